"""A processor in a folder, as a checkpoint has it: every byte a token of its own, and the control tokens."""

from __future__ import annotations

from pathlib import Path

from tokenizers import pre_tokenizers
from tokenizers.models import BPE

from qwen2_audio.inputs.feature_extractor import WhisperFeatureExtractor
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.text.tokenizer_files import byte_level_bpe

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
CONFIG = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "padding_side": "left", "model_max_length": 8192}


def small_tokenizer(**config: str) -> Tokenizer:
    """The tokenizer, with these keys of tokenizer_config.json besides."""
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = byte_level_bpe(BPE(vocab, []))
    backend.add_special_tokens(CONTROL)
    return Tokenizer(backend, {**CONFIG, **config})


def write_small_processor(folder: Path, **config: str) -> Path:
    """Its files in `folder`, which is returned."""
    WhisperFeatureExtractor().save_pretrained(folder)
    small_tokenizer(**config).save_pretrained(folder)
    return folder
