"""Our Tokenizer against transformers' Qwen2TokenizerFast, on a vocabulary made here and on the real one."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers, trainers
from tokenizers.models import BPE

from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.text.tokenizer_files import byte_level_bpe

transformers = pytest.importorskip("transformers")

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "qwen2-tokenizer"
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
CORPUS = ["You're a helpful assistant. What's that SOUND? 1234 \n\n the hello 中文 é 😀\r\n  x"] * 3
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=12), st.sampled_from([*CONTROL, " ", "\n", "\n\n", "'LL", "e\u0301", "ﬁ", "Ⅷ", "٣", "12"])
    ),
    max_size=8,
).map("".join)
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What's that?"}]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """(ours, theirs)"""
    folder = tmp_path_factory.mktemp("made")
    backend = byte_level_bpe(BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    )
    first = backend.get_vocab_size()
    backend.save(str(folder / "tokenizer.json"))
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    config = {
        "added_tokens_decoder": {str(first + i): {"content": token, **flags} for i, token in enumerate(CONTROL)},
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "model_max_length": 8192,
        "padding_side": "left",
        "tokenizer_class": "Qwen2Tokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return _pair(folder)


def _pair(folder: Path):
    return Tokenizer.from_pretrained(folder), transformers.Qwen2TokenizerFast.from_pretrained(folder)


@pytest.fixture(scope="session")
def real():
    if not REAL.is_dir():
        pytest.skip("the real Qwen2 vocabulary (shared/data/qwen2-tokenizer) is not here")
    return _pair(REAL)


@pytest.fixture(scope="session", params=["made", "real"])
def both(request):
    return request.getfixturevalue(request.param)


@given(text=TEXTS)
def test_same_ids_and_same_text_back(both, text):
    ours, theirs = both
    ids = theirs(text)["input_ids"]
    assert ours.encode(text) == ours(text).input_ids == ids
    for skip in (False, True):
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)


@given(data=st.data())
def test_same_text_for_any_ids(both, data):
    ours, theirs = both
    assert len(ours) == len(theirs)
    ids = data.draw(st.lists(st.integers(0, len(ours) + 100), max_size=20))
    assert ours.decode(ids) == theirs.decode(ids)
    assert ours.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
    assert ours.batch_decode([ids, ids[:3]], skip_special_tokens=True) == theirs.batch_decode(
        [ids, ids[:3]], skip_special_tokens=True
    )


@given(texts=st.lists(TEXTS, min_size=1, max_size=4), side=st.sampled_from(["left", "right"]))
def test_same_batches(both, texts, side):
    ours, theirs = both
    theirs.padding_side = side
    expected = theirs(texts, padding=True)
    found = ours(texts, padding=True, padding_side=side)
    assert found.input_ids == expected["input_ids"]
    assert found.attention_mask == expected["attention_mask"]
    cut = {"padding": "max_length", "truncation": True, "max_length": 7}
    assert ours(texts, padding_side=side, **cut).input_ids == theirs(texts, **cut)["input_ids"]


def test_same_settings(both):
    ours, theirs = both
    names = ("eos_token", "pad_token", "unk_token", "bos_token", "eos_token_id", "pad_token_id", "unk_token_id")
    for name in (*names, "model_max_length", "vocab_size"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.convert_tokens_to_ids(CONTROL) == theirs.convert_tokens_to_ids(CONTROL)


def test_each_reads_what_the_other_saved(made, tmp_path):
    ours, theirs = made
    text = "<|im_start|>user\nhello 中文<|AUDIO|> e\u0301 'LL\n\n"
    ours.save_pretrained(tmp_path / "ours")
    theirs.padding_side = "left"
    theirs.save_pretrained(tmp_path / "theirs")
    by_them = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    by_us = Tokenizer.from_pretrained(tmp_path / "theirs")
    assert by_them(text)["input_ids"] == by_us.encode(text) == ours.encode(text)
    assert by_them.padding_side == by_us.padding_side == "left"
    assert by_them.eos_token == by_us.eos_token == "<|im_end|>"
    assert by_them.model_max_length == by_us.model_max_length == 8192


def test_same_prompts(both):
    ours, theirs = both
    template = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    template += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    for options in ({"tokenize": False}, {"return_dict": False}, {"add_generation_prompt": True}):
        expected = theirs.apply_chat_template(MESSAGES, chat_template=template, **options)
        assert ours.apply_chat_template(MESSAGES, chat_template=template, **options) == expected
        assert ours.apply_chat_template(MESSAGES, **options) == expected
