"""Our Qwen2AudioProcessor against transformers' on a vocabulary made here and on the real one."""

import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from tokenizers.models import BPE

from qwen2_audio.inputs.feature_extractor import WhisperFeatureExtractor
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.text.chat_template import BUILTIN_TEMPLATE
from qwen2_audio.text.rendering import render, render_template
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.text.tokenizer_files import byte_level_bpe

transformers = pytest.importorskip("transformers")

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "qwen2-tokenizer"
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
CONFIG = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "padding_side": "left", "model_max_length": 8192}
SLOT = "<|audio_bos|><|AUDIO|><|audio_eos|>"
PARTS = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=8)}),
    st.sampled_from([{"type": "audio", "audio_url": "x"}, {"audio": "x", "text": "y"}, {"type": "audio"}]),
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant", "tool"]),
            "content": st.one_of(st.text(max_size=8), st.lists(PARTS, max_size=3)),
        },
        optional={"type": st.just("audio")},
    ),
    min_size=1,
    max_size=4,
)


def noise(samples: int) -> np.ndarray:
    """Not a pure tone: 80 dB below one, both sides have float32 rounding and nothing else (4e-5 apart)."""
    return (0.1 * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)


def _pair(folder: Path):
    """(ours, theirs)"""
    WhisperFeatureExtractor().save_pretrained(folder)
    return Qwen2AudioProcessor.from_pretrained(folder), transformers.Qwen2AudioProcessor.from_pretrained(folder)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = byte_level_bpe(BPE(vocab, []))
    backend.add_special_tokens(CONTROL)
    Tokenizer(backend, CONFIG).save_pretrained(folder)
    return _pair(folder)


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    if not REAL.is_dir():
        pytest.skip("the real Qwen2 vocabulary (shared/data/qwen2-tokenizer) is not here")
    return _pair(Path(shutil.copytree(REAL, tmp_path_factory.mktemp("real"), dirs_exist_ok=True)))


@pytest.fixture(scope="session", params=["made", "real"])
def both(request):
    return request.getfixturevalue(request.param)


def assert_same(ours, theirs) -> None:
    assert list(ours) == list(theirs)
    for name, expected in theirs.items():
        assert ours[name].dtype == expected.dtype, name
        assert ours[name].shape == expected.shape, name
        if name == "input_features":
            torch.testing.assert_close(ours[name], expected, atol=1e-5, rtol=0)
        else:
            assert torch.equal(ours[name], expected), name


@pytest.mark.parametrize("side", ["left", "right"])
def test_same_inputs_for_a_batch(both, side):
    ours, theirs = both
    theirs.tokenizer.padding_side = side
    text = [f"Audio 1: {SLOT}\nAudio 2: {SLOT}\nhi", "no sound 中文", f"{SLOT}e\u0301<|im_end|>"]
    clips = [noise(321), noise(16000), noise(481000)]
    options = {"padding": True, "return_tensors": "pt"}
    with pytest.warns(UserWarning, match="Clip 3 lasts 30.1 s"):
        found = ours(text=text, audio=clips, padding_side=side, **options)
    assert_same(found, theirs(text=text, audio=clips, sampling_rate=16000, **options))
    theirs.tokenizer.padding_side = "left"


def test_same_inputs_for_text_alone_and_for_half_wrapped_placeholders(both):
    ours, theirs = both
    assert_same(ours(text="hello", return_tensors="pt"), theirs(text="hello", return_tensors="pt"))
    for text in ("<|audio_bos|><|AUDIO|>x", "<|AUDIO|><|audio_eos|>"):
        expected = theirs(text=text, audio=noise(999), sampling_rate=16000, return_tensors="pt")
        assert_same(ours(text=text, audio=noise(999), return_tensors="pt"), expected)
    expected = theirs(text="<|AUDIO|>", audio=noise(999), sampling_rate=16000, return_tensors="pt")
    assert_same(ours(text="<|AUDIO|>", audio=noise(999), wrap_audio=False, return_tensors="pt"), expected)


def test_bare_placeholders_come_out_as_wrapped_ones(both):
    ours, theirs = both
    clips = [noise(999), noise(1999)]
    expected = theirs(text=f"{SLOT}x{SLOT}", audio=clips, sampling_rate=16000, return_tensors="pt")
    assert_same(ours(text="<|AUDIO|>x<|AUDIO|>", audio=clips, return_tensors="pt"), expected)


@settings(max_examples=10)
@given(samples=st.integers(321, 20000))
def test_same_number_of_positions_for_any_length(both, samples):
    ours, theirs = both
    expected = theirs(text=SLOT, audio=noise(samples), sampling_rate=16000)
    assert ours(text=SLOT, audio=noise(samples)).input_ids == expected["input_ids"]


@given(messages=MESSAGES, prompt=st.booleans())
def test_same_prompt_for_any_conversation(both, messages, prompt):
    ours, theirs = both
    expected = theirs.apply_chat_template(messages, add_generation_prompt=prompt)
    assert ours.apply_chat_template(messages, add_generation_prompt=prompt) == expected
    assert render(messages, add_generation_prompt=prompt) == expected
    # The reference's template through our sandbox, and ours through the reference.
    assert render_template(theirs.chat_template, messages, add_generation_prompt=prompt) == expected
    assert theirs.apply_chat_template(messages, BUILTIN_TEMPLATE, add_generation_prompt=prompt) == expected


@given(messages=MESSAGES, last=st.one_of(st.text(max_size=9), st.lists(st.text(max_size=5), min_size=1, max_size=3)))
def test_same_prompt_when_the_last_message_goes_on(both, messages, last):
    ours, theirs = both
    content = last if isinstance(last, str) else [{"type": "text", "text": text} for text in last]
    messages = [*messages, {"role": "assistant", "content": content}]
    expected = theirs.apply_chat_template(messages, continue_final_message=True)
    assert ours.apply_chat_template(messages, continue_final_message=True) == expected


def test_same_inputs_from_a_conversation_with_a_file(both, tmp_path):
    ours, theirs = both
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((noise(8000) * 32767 / 2).astype("<i2").tobytes())
    parts = [{"type": "audio", "path": str(path)}, {"type": "text", "text": "hi"}]
    messages = [{"role": "user", "content": parts}]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    assert_same(ours.apply_chat_template(messages, **options), theirs.apply_chat_template(messages, **options))


def test_each_reads_what_the_other_saved(made, tmp_path):
    ours, theirs = made
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    by_them = transformers.AutoProcessor.from_pretrained(tmp_path / "ours")
    assert isinstance(by_them, transformers.Qwen2AudioProcessor)
    by_us = Qwen2AudioProcessor.from_pretrained(tmp_path / "theirs")
    messages = [{"role": "user", "content": [{"audio": "x"}, {"type": "text", "text": "é?"}]}]
    texts = [processor.apply_chat_template(messages) for processor in (ours, theirs, by_us, by_them)]
    assert texts == texts[:1] * 4
    expected = by_them(text=texts[0], audio=noise(999), sampling_rate=16000, return_tensors="pt")
    assert_same(by_us(text=texts[0], audio=noise(999), return_tensors="pt"), expected)
    assert_same(ours(text=texts[0], audio=noise(999), return_tensors="pt"), expected)
