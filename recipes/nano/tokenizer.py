"""Nano's vocabulary: a byte-level BPE learned from the recipe's own sentences, the official control tokens on top."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import trainers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from qwen2_audio.inputs.feature_extractor import WhisperFeatureExtractor
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.text.tokenizer_files import byte_level_bpe

from .imagine import imagined
from .writer import Writer

BPE_SIZE = 1536
# Of the corpus. Its own, so that a change of the training data leaves the vocabulary as it is.
SHARES = {"questions": 0.56, "chat": 0.16, "after": 0.05, "both": 0.03, "base": 0.1, "text": 0.1}
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
CONTEXT = 8192


def corpus(count: int = 12_000, seed: int = 0) -> list[str]:
    """Sentences as in training, about imagined clips of every kind."""
    rng = np.random.default_rng(seed)
    clips = [imagined(rng) for _ in range(count)]
    writer, texts = Writer(clips, SHARES), ["system\n", "user\n", "assistant\n", "Audio 1: "]
    for number in range(count):
        conversation = writer.write(number, rng)
        texts += list(conversation.base or ())
        for message in conversation.messages:
            content = message["content"]
            parts = [{"text": content}] if isinstance(content, str) else content
            texts += [part["text"] for part in parts if "text" in part]
    return texts


def train_tokenizer() -> Tokenizer:
    """The tokenizer, the same one every time."""
    backend = byte_level_bpe(BPE())
    alphabet = sorted(ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_SIZE, initial_alphabet=alphabet, special_tokens=[], show_progress=False
    )
    backend.train_from_iterator(corpus(), trainer)
    backend.add_special_tokens(list(CONTROL))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "split_special_tokens": False,
        "model_max_length": CONTEXT,
        "padding_side": "left",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
    }
    return Tokenizer(backend, config)


def save_processor(tokenizer: Tokenizer, folder: Path) -> None:
    """Tokenizer, chat template and preprocessor_config.json, in the official layout, vocab.json and merges.txt too."""
    Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=128), tokenizer).save_pretrained(folder)
    tokenizer._backend.model.save(str(folder))
