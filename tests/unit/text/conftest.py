"""A byte-level vocabulary of a few hundred tokens, so that the suite says something without real data."""

import json
from pathlib import Path

import pytest
from tokenizers import pre_tokenizers, trainers
from tokenizers.models import BPE

from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.text.tokenizer_files import byte_level_bpe

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
TEXT = ["You are a helpful assistant. What's that sound? \n\n the hello 中文 é 😀 system user Audio 1:\n"] * 3


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """tokenizer.json with the three chat tokens only, the audio tokens in tokenizer_config.json, as officially."""
    folder = tmp_path_factory.mktemp("tokenizer")
    backend = byte_level_bpe(BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    )
    first = backend.get_vocab_size()
    backend.add_special_tokens(CONTROL[:3])
    backend.save(str(folder / "tokenizer.json"))
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    config = {
        "added_tokens_decoder": {str(first + i): {"content": token, **flags} for i, token in enumerate(CONTROL)},
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "bos_token": None,
        "model_max_length": 8192,
        "padding_side": "left",
        "tokenizer_class": "Qwen2Tokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder) -> Tokenizer:
    return Tokenizer.from_pretrained(tiny_folder)
