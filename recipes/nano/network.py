"""Nano's shape and its first weights; and the folder it is saved in, in the official layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from qwen2_audio.checkpoint.config import Qwen2AudioConfig, Qwen2AudioEncoderConfig, Qwen2Config
from qwen2_audio.model.qwen2_audio import Qwen2AudioForConditionalGeneration
from qwen2_audio.text.tokenizer import Tokenizer

from .tokenizer import CONTEXT, save_processor

VOCABULARY = 1600  # rows of the embedding: at most 1542 tokens, and room to a multiple of 64
MAX_NEW_TOKENS = 64


def nano_config(tokenizer: Tokenizer) -> Qwen2AudioConfig:
    """4 encoder layers of 192, 4 language layers of 256: 6.0 M parameters."""
    assert len(tokenizer) <= VOCABULARY
    audio = Qwen2AudioEncoderConfig(
        num_mel_bins=128,
        encoder_layers=4,
        encoder_attention_heads=3,
        encoder_ffn_dim=768,
        d_model=192,
        max_source_positions=1500,
    )
    text = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2AudioConfig(audio, text, audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"))


def fresh_model(config: Qwen2AudioConfig, seed: int) -> Qwen2AudioForConditionalGeneration:
    """New weights. The convolutions start larger than the default, or the sinusoids would drown what they hear."""
    torch.manual_seed(seed)
    model = Qwen2AudioForConditionalGeneration(config)
    tower = model.audio_tower
    with torch.no_grad():
        tower.conv1.weight.mul_(2)
        tower.conv2.weight.mul_(6)
        positions, width = tower.embed_positions.weight.shape
        tower.embed_positions.weight.copy_(torch.from_numpy(sinusoids(positions, width)))
    return model


def sinusoids(positions: int, width: int) -> np.ndarray:
    """Whisper's position table, float32 [positions, width]: sines in the first half, cosines in the second."""
    half = width // 2
    speed = 10_000 ** (-np.arange(half) / (half - 1))
    angle = np.arange(positions)[:, None] * speed
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def save_checkpoint(model: nn.Module, config: Qwen2AudioConfig, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the official files. Weights are stored in half precision; config.json asks for float32 in memory, because
    a CPU has no fast half precision and nano needs none."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_processor(tokenizer, folder)
    weights = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # the library makes it readable by its owner alone
    extra = {"architectures": ["Qwen2AudioForConditionalGeneration"], "torch_dtype": "float32"}
    _write(folder / "config.json", {**extra, **config.to_dict()})
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]  # an answer ends with the first, a caption with the second
    generation = {
        "do_sample": False,
        "eos_token_id": ends,
        "pad_token_id": tokenizer.pad_token_id,
        "max_new_tokens": MAX_NEW_TOKENS,
    }
    _write(folder / "generation_config.json", generation)


def finish(trained: Path, folder: Path) -> None:
    """What the trainer saved, as it ships: half precision, nano's own generation_config, the vocabulary's files."""
    from qwen2_audio.inputs.processor import Qwen2AudioProcessor
    from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration

    model = Qwen2AudioForConditionalGeneration.from_pretrained(trained)
    save_checkpoint(model, model.config, Qwen2AudioProcessor.from_pretrained(trained).tokenizer, folder)


def _write(path: Path, data: dict) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
