"""A random checkpoint to measure or verify on: official layout and proportions, made once and kept.

Speed and agreement do not depend on what the weights say, so real ones are not needed; they must only stay in the
range where nothing overflows or becomes denormal.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..checkpoint.config import CONFIG_FILE, Qwen2AudioConfig
from ..checkpoint.json_file import write_json
from ..checkpoint.memory import require_disk
from ..checkpoint.weights import INDEX_FILE
from ..model.initialize import without_weights
from ..model.qwen2_audio import Qwen2AudioForConditionalGeneration

MAX_SHARD_BYTES = 700_000_000  # a larger tensor has a shard of its own
_SEED = 20240715
_BYTES = 2  # stored as bf16, as the official checkpoints are
_MAX_DRAWN = 2**24 - 3  # numbers drawn for a tensor; a larger one repeats them, each row beginning elsewhere


@dataclass(frozen=True)
class Shape:
    """What of the official shape is scaled; the rest (128 mel bins, 30 s window, untied head) is kept."""

    encoder_layers: int = 16
    encoder_width: int = 640
    encoder_heads: int = 10
    encoder_ffn: int = 2560
    layers: int = 16
    width: int = 2048
    heads: int = 16
    ffn: int = 5504
    vocab_size: int = 156_032
    audio_token_index: int = 151_646
    label: str = "model1b"  # what its rows are called

    @property
    def name(self) -> str:
        return f"random-{self.encoder_layers}x{self.encoder_width}-{self.layers}x{self.width}-v{self.vocab_size}"

    def to_config(self) -> dict[str, Any]:
        """config.json, with the keys that the official one has."""
        audio = {
            "model_type": "qwen2_audio_encoder",
            "d_model": self.encoder_width,
            "encoder_layers": self.encoder_layers,
            "encoder_attention_heads": self.encoder_heads,
            "encoder_ffn_dim": self.encoder_ffn,
            "num_mel_bins": 128,
            "max_source_positions": 1500,
        }
        text = {
            "model_type": "qwen2",
            "vocab_size": self.vocab_size,
            "hidden_size": self.width,
            "intermediate_size": self.ffn,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "torch_dtype": "bfloat16",
        }
        return {
            "architectures": ["Qwen2AudioForConditionalGeneration"],
            "model_type": "qwen2_audio",
            "audio_token_index": self.audio_token_index,
            "ignore_index": -100,
            "vocab_size": self.vocab_size,
            "torch_dtype": "bfloat16",
            "audio_config": audio,
            "text_config": text,
        }


SHAPES = {
    "mid": Shape(8, 512, 8, 2048, 8, 1024, 8, 2752, vocab_size=32_768, audio_token_index=32_000, label="mid"),
    "1b": Shape(),
    "full": Shape(32, 1280, 20, 5120, 32, 4096, 32, 11008, label="model"),  # the official one: 8.4 billion parameters
}


def cache_folder() -> Path:
    """Where checkpoints to measure on are kept: `$XDG_CACHE_HOME/qwen2-audio/bench`, else the same under ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "qwen2-audio" / "bench"


def ensure(shape: Shape, folder: Path | None = None, progress: Callable[[str], None] = lambda line: None) -> Path:
    """The folder of the checkpoint of `shape`, written first if it is not there.

    Tensors are drawn one by one and written shard by shard, so memory holds one shard. Every tensor has a seed of its
    own name: the same on every machine with the same torch.

    Raises:
        CapacityError: the disk has no room.
    """
    folder = folder or cache_folder() / shape.name
    if (folder / INDEX_FILE).is_file():  # written last
        return folder
    shards = _shards(shape)
    total = sum(math.prod(size) for shard in shards for size in shard.values()) * _BYTES
    folder.mkdir(parents=True, exist_ok=True)
    require_disk(total, folder, "The random checkpoint to measure on")
    write_json(folder / CONFIG_FILE, shape.to_config())
    write_json(folder / "preprocessor_config.json", _preprocessor())
    write_json(folder / "generation_config.json", {"do_sample": False, "pad_token_id": shape.vocab_size - 1})
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        progress(f"writing random weights to {folder}, shard {number} of {len(shards)}")
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write(folder / file, shard)
        weight_map |= dict.fromkeys(shard, file)
    write_json(folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})
    return folder


def quantized(folder: Path, scheme: str, progress: Callable[[str], None] = lambda line: None) -> Path:
    """The folder of `folder`'s checkpoint in "int4" or "int8", made first if it is not there, tensor by tensor.

    Raises CapacityError: disk or memory have no room.
    """
    from ..quantize.convert import Job, convert

    target = folder.with_name(f"{folder.name}-{scheme}")
    if not (target / CONFIG_FILE).is_file():  # it appears in one step
        progress(f"quantising {folder} to {scheme}")
        convert(Job(folder, target, scheme))
    return target


def scheme_of(folder: Path) -> str:
    """ "int4" or "int8" for a quantised checkpoint, "fp32" for a plain one, which is computed in that."""
    data = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    return str(data.get("quantization_config", {}).get("scheme", "fp32"))


def nbytes(folder: Path) -> int:
    """Bytes of weights in memory: a quantised checkpoint's files, else four for each parameter."""
    if scheme_of(folder) == "fp32":
        return 4 * num_parameters(folder)
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def num_parameters(folder: Path) -> int:
    """Parameters of the checkpoint in `folder`, by its config.json."""
    data = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    return sum(math.prod(size) for size in _sizes(Qwen2AudioConfig.from_dict(data)).values())


def _sizes(config: Qwen2AudioConfig) -> dict[str, tuple[int, ...]]:
    with without_weights():
        model = Qwen2AudioForConditionalGeneration(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _shards(shape: Shape) -> list[dict[str, tuple[int, ...]]]:
    """Tensor name -> size, file by file."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    shard_bytes = 0
    for name, size in _sizes(Qwen2AudioConfig.from_dict(shape.to_config())).items():
        tensor_bytes = math.prod(size) * _BYTES
        if shard_bytes + tensor_bytes > MAX_SHARD_BYTES and shards[-1]:
            shards.append({})
            shard_bytes = 0
        shards[-1][name] = size
        shard_bytes += tensor_bytes
    return shards


def _write(path: Path, shard: dict[str, tuple[int, ...]]) -> None:
    from safetensors.torch import save_file

    save_file({name: draw(name, size) for name, size in shard.items()}, path, metadata={"format": "pt"})


def draw(name: str, size: tuple[int, ...]) -> torch.Tensor:
    """The bf16 tensor called `name`. Matrices keep the size of what goes through them: N(0, 1 / inputs)."""
    if name.endswith("embed_positions.weight"):
        return _sinusoids(*size).bfloat16()
    if "norm" in name:  # LayerNorm and RMSNorm
        return torch.full(size, 1.0 if name.endswith("weight") else 0.0, dtype=torch.bfloat16)
    spread = 0.02 if len(size) == 1 else math.prod(size[1:]) ** -0.5
    if name.endswith("embed_tokens.weight"):
        spread = 1.0
    generator = torch.Generator().manual_seed(_SEED + zlib.crc32(name.encode()))
    numbers = math.prod(size)
    drawn = torch.empty(min(numbers, _MAX_DRAWN)).normal_(0.0, spread, generator=generator).bfloat16()
    return drawn.repeat(-(-numbers // len(drawn)))[:numbers].view(size)


def _sinusoids(positions: int, width: int) -> torch.Tensor:
    """Whisper's: sines in the first half of the channels, cosines in the second."""
    half = width // 2
    rates = 10000.0 ** (-torch.arange(half) / (half - 1))
    angles = torch.arange(positions)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def _preprocessor() -> dict[str, Any]:
    return {
        "chunk_length": 30,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": 128,
        "hop_length": 160,
        "n_fft": 400,
        "n_samples": 480_000,
        "nb_max_frames": 3000,
        "padding_side": "right",
        "padding_value": 0.0,
        "processor_class": "Qwen2AudioProcessor",
        "return_attention_mask": True,
        "sampling_rate": 16_000,
    }
