"""Samples in, tokens out: processor and model from one folder against transformers', at the official front-end shape.

Widths are tiny, but 128 mel bins and windows of 3000 frames are the real ones: every edge of the length arithmetic
(one audio token, odd and even encoder frames, just below, at and above 30 s) goes through the whole path.
"""

import warnings

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from tokenizers.models import BPE

from kit.reference import reference_shape
from qwen2_audio.inputs.feature_extractor import WhisperFeatureExtractor
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.text.tokenizer_files import byte_level_bpe

transformers = pytest.importorskip("transformers")

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
PROMPT = "<|audio_bos|><|AUDIO|><|audio_eos|>What is that?"
# Samples -> audio tokens.
LENGTHS = {
    321: 1, 640: 1, 641: 1, 960: 1, 961: 2, 16_000: 25, 16_001: 25, 47_999: 75,
    479_839: 750, 479_840: 750, 479_841: 750, 480_000: 750, 480_001: 750,
}  # fmt: skip
ANSWER = 3  # tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint that the reference saved, with our processor's files beside it."""
    folder = tmp_path_factory.mktemp("end_to_end")
    backend = byte_level_bpe(
        BPE({letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    backend.add_special_tokens(CONTROL)
    config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "padding_side": "left"}
    tokenizer = Tokenizer(backend, config)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    torch.manual_seed(0)
    shape = reference_shape(
        {"num_mel_bins": 128, "max_source_positions": 1500},
        {"vocab_size": 272, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    config = transformers.Qwen2AudioConfig(**shape)
    config.ignore_index = -100  # the reference's legacy merge, which it takes one-token clips for, reads it
    model = transformers.Qwen2AudioForConditionalGeneration(config).eval()
    with torch.no_grad():
        for p in model.parameters():  # larger than the initial 0.02, so that errors show and tokens are clear
            p.add_(torch.randn_like(p) * 0.15)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    return Qwen2AudioProcessor.from_pretrained(folder), Qwen2AudioForConditionalGeneration.from_pretrained(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    model = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    model.config.ignore_index = -100
    return transformers.Qwen2AudioProcessor.from_pretrained(folder), model


def clip(samples: int) -> np.ndarray:
    """Noise that swells, so that every frame differs from the others."""
    noise = np.random.default_rng(samples).standard_normal(samples)
    return (noise * np.linspace(0.02, 0.3, samples)).astype(np.float32)


def inputs_of(processor, *clips):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # ours says what it leaves out of a clip over 30 s
        return processor(
            text=[PROMPT] * len(clips), audio=list(clips), sampling_rate=16_000, return_tensors="pt", padding=True
        )


def greedy_by_forward(model, inputs):
    """(logits of the prompt [B, T, V], greedy tokens [B, ANSWER]), every step from scratch.

    The reference's generate() breaks on clips of one token; its forward() does not.
    """
    ids, mask, first = inputs["input_ids"], inputs["attention_mask"], None
    for _ in range(ANSWER):
        batch = {**inputs, "input_ids": ids, "attention_mask": mask}
        with torch.no_grad():
            logits = model(**batch, use_cache=False).logits
        first = logits if first is None else first
        ids = torch.cat((ids, logits[:, -1:].argmax(-1)), 1)
        mask = torch.cat((mask, torch.ones_like(mask[:, :1])), 1)
    return first, ids[:, -ANSWER:]


@pytest.mark.parametrize("samples", LENGTHS)
def test_every_length_from_samples_to_tokens(ours, theirs, samples):
    expected = inputs_of(theirs[0], clip(samples))
    found = inputs_of(ours[0], clip(samples))
    assert torch.equal(found["input_ids"], expected["input_ids"])
    assert int((found["input_ids"] == ours[1].config.audio_token_index).sum()) == LENGTHS[samples]
    logits, tokens = greedy_by_forward(theirs[1], expected)
    torch.testing.assert_close(ours[1](**found).logits, logits, atol=1e-4, rtol=0)
    answer = ours[1].generate(**found, max_new_tokens=ANSWER, eos_token_id=None)
    assert torch.equal(answer[:, -ANSWER:], tokens)


def test_a_batch_of_mixed_lengths(ours, theirs):
    clips = [clip(n) for n in (641, 480_001, 16_001)]
    found = inputs_of(ours[0], *clips)
    logits, tokens = greedy_by_forward(theirs[1], inputs_of(theirs[0], *clips))
    torch.testing.assert_close(ours[1](**found).logits[:, -1], logits[:, -1], atol=1e-4, rtol=0)
    assert torch.equal(ours[1].generate(**found, max_new_tokens=ANSWER, eos_token_id=None)[:, -ANSWER:], tokens)
