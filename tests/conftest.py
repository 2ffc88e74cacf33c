"""For all tests: patience with slow machines; a tiny random checkpoint in the official layout, made once a session."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from kit.clip_files import tone

# A machine that is busy with something else is slow at drawing examples: that says nothing about the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("exhaustive", settings.get_profile("patient"), max_examples=3000)  # make test-all
settings.load_profile("patient")

# Files that take longest, so that no process is left alone with one of them in the end.
FIRST = (
    "unit/jobs/test_ray_runner.py", "examples/test_documentation.py", "contract/test_page.py",
    "contract/test_page_sound.py",
    "unit/train/test_processes.py", "unit/benchmarks/test_bench_train.py", "unit/benchmarks/test_bench_command.py",
    "equivalence/test_engine_equivalence.py", "unit/train/test_resume.py", "unit/distributed/test_tensor_parallel.py",
    "equivalence/test_native_equivalence.py", "parity/test_librosa_parity.py", "examples/test_examples.py",
    "unit/cli/test_eval_command.py", "parity/test_evaluation_parity.py", "contract/test_page_history.py",
    "contract/test_page_failures.py", "unit/evaluate/verify/test_reference_rows.py", "contract/test_fuzz.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    place = {here / name: number for number, name in enumerate(FIRST)}
    assert all(path.is_file() for path in place), "FIRST names a file that is gone"
    items.sort(key=lambda item: place.get(item.path, len(place)))  # within a file, and of the others, as they were


SENTENCES = [
    "What is that sound?", "It is a dog. It barks twice, then a door is closed.", "You are a helpful assistant.",
    "How many people speak in this clip?", "system user assistant Audio 1: Audio 2:", "glass breaking, rain, thunder",
]  # fmt: skip
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
VOCABULARY = 512  # rows of the model; the tokenizer has fewer


def _tokenizer_files(folder: Path) -> dict[str, int]:
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    backend = Tokenizer(BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=320, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    first = backend.get_vocab_size()
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(first + i): {"content": token, **flags} for i, token in enumerate(CONTROL)}
    config = {
        "tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "padding_side": "left", "model_max_length": 8192, "added_tokens_decoder": added,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return {token: first + i for i, token in enumerate(CONTROL)}


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: 2 + 2 layers, 32 wide, 128 mel bins, context of 2048, greedy. What it says makes no sense."""
    from kit.tiny import tiny_config, tiny_model
    from qwen2_audio import GenerationConfig

    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    ids = _tokenizer_files(folder)
    config = tiny_config(
        {"d_model": 32, "encoder_ffn_dim": 64, "num_mel_bins": 128, "max_source_positions": 1500},
        {
            "intermediate_size": 64, "vocab_size": VOCABULARY, "max_position_embeddings": 2048,
            "initializer_range": 0.4, "eos_token_id": ids["<|im_end|>"],
        },
        audio_token_index=ids["<|AUDIO|>"],
        torch_dtype="float32",
    )  # fmt: skip
    model = tiny_model(config, seed=1)
    model.generation_config = GenerationConfig(
        eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"], max_new_tokens=24
    )
    model.save_pretrained(folder)
    preprocessor = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")
    return folder


@pytest.fixture
def clip() -> np.ndarray:
    """A second of sound, float32 at 16 kHz: 25 audio tokens."""
    return tone(1.0)


@pytest.fixture
def wav_file(tmp_path: Path):
    """Write a sound to a WAV file: wav_file("dog.wav", seconds=1.0, rate=16000) -> Path."""
    from kit.clip_files import wav_bytes

    def write(name: str, seconds: float = 1.0, *, rate: int = 16_000, hertz: float = 440.0) -> Path:
        path = tmp_path / name
        path.write_bytes(wav_bytes(seconds, rate, hertz))
        return path

    return write


@pytest.fixture(scope="session")
def tiny_chat(tiny_checkpoint: Path):
    """The tiny checkpoint, loaded. Leave it as it is."""
    import qwen2_audio as qa

    return qa.load(tiny_checkpoint, device="cpu", dtype="float32")
