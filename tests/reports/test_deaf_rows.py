"""Rows whose sound nothing would read are refused; typed control tokens of base rows are tokens, and not doubled."""

import json

import pytest

from qwen2_audio.errors import PromptError
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.train import masks
from qwen2_audio.train.data import Dataset
from qwen2_audio.train.formats import read_row

TALK = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A dog."}]


@pytest.mark.parametrize(
    "more",
    [
        {"audio_path": "dog.wav"},
        {"audio_paths": ["a.flac", "b.flac"]},
        {"wav": "/data/dog.WAV"},
        {"sound": {"path": "dog.mp3", "bytes": None}},
        {"sound": {"bytes": None, "path": None, "array": [0.0], "sampling_rate": 16000}},
        {"speech": "data:audio/wav;base64,UklGRg=="},
        {"clip_url": "https://host/dog.ogg?key=1"},
        {"audio_source": "dog.opus"},
        {"file": "dog.m4a"},
        {"id": "dog.wav"},
    ],
    ids=lambda more: next(iter(more)),
)
def test_a_sound_under_a_key_that_nothing_reads_is_refused(more, tmp_path):
    with pytest.raises(
        PromptError, match=rf"(names a sound under {next(iter(more))!r}.*'audios')|Did you mean 'audios'"
    ):
        read_row({"messages": TALK, **more}, tmp_path)


@pytest.mark.parametrize(
    "more",
    [
        {"source": "librispeech"},
        {"id": "dog.wav"},
        {"original": "x/dog.wav"},
        {"audio_id": "7"},
        {"note": "a.wav is\nshort"},
    ],
)
def test_what_only_describes_a_clip_that_is_read_is_left_alone(more, tmp_path):
    asked = [{"role": "user", "content": "<audio>What is it?"}, TALK[1]]
    assert read_row({"messages": asked, "audios": ["dog.wav"], **more}, tmp_path)


def test_a_clip_token_typed_in_a_row_without_clips_is_refused(tmp_path):
    typed = [{"role": "user", "content": "Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\nWhat is it?"}, TALK[1]]
    with pytest.raises(PromptError, match="typed in its text and no clip, so nothing is heard"):
        read_row({"messages": typed}, tmp_path)


@pytest.fixture
def tokenizer(tiny_checkpoint):
    tokenizer = Tokenizer.from_pretrained(tiny_checkpoint)
    tokenizer._backend.add_special_tokens(["<|en|>"])
    return tokenizer


PREFIX = "<|audio_bos|><|AUDIO|><|audio_eos|>"


def test_typed_control_tokens_of_a_base_row_are_what_the_reference_makes_of_them(tokenizer):
    plain = masks.encode_base("Recognize: <|en|>", "a dog", 3, tokenizer)
    typed = masks.encode_base(f"{PREFIX}Recognize: <|en|>", "a dog<|endoftext|>", 3, tokenizer)
    assert typed == plain
    assert (tokenizer.convert_tokens_to_ids("<|en|>"), False) in zip(*plain, strict=True)
    ids, trained = masks.encode_base("Recognize:", "<|en|>a dog", 3, tokenizer)
    assert (tokenizer.convert_tokens_to_ids("<|en|>"), True) in zip(ids, trained, strict=True)


@pytest.mark.parametrize(("prompt", "target"), [(PREFIX * 2, "a dog"), ("What?", f"{PREFIX}a dog")])
def test_a_second_clip_token_of_a_base_row_is_refused(tokenizer, prompt, target):
    with pytest.raises(PromptError, match=r"one clip, and <\|AUDIO\|> is typed"):
        masks.encode_base(prompt, target, 3, tokenizer)


def test_a_base_row_with_typed_tokens_is_an_example(tiny_checkpoint, tmp_path, wav_file):
    clip = wav_file("dog.wav", 0.5)
    row = {"audio": str(clip), "prompt": f"{PREFIX}Recognize:", "gt": "a dog<|endoftext|>"}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "prompt": "Recognize:", "gt": "a dog"}) + "\n")
    dataset = Dataset(path, Qwen2AudioProcessor.from_pretrained(tiny_checkpoint))
    assert dataset.example(0).ids == dataset.example(1).ids
