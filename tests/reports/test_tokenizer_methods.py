"""Methods of a tokenizer that fine-tuning code and data collators call: add_tokens, tokenize, pad, parts by id."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from kit.small_processor import small_tokenizer, write_small_processor
from qwen2_audio.errors import ConfigError, PromptError
from qwen2_audio.text.tokenizer import Tokenizer


@pytest.fixture
def both(tmp_path):
    """(ours, theirs)"""
    transformers = pytest.importorskip("transformers")
    folder = write_small_processor(tmp_path / "saved")
    return Tokenizer.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)


def test_added_tokens(both, tmp_path):
    text = "a<cough>b<speaker>c"
    for tokenizer in both:
        before = len(tokenizer)
        assert tokenizer.add_tokens(["<cough>", "<cough>"]) == 1
        assert tokenizer.add_tokens("<speaker>", special_tokens=True) == 1
        assert tokenizer.add_tokens("<cough>") == 0
        assert len(tokenizer) == before + 2
    ours, theirs = both
    assert ours.encode(text) == theirs.encode(text)
    ids = ours.encode(text)
    assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True) == "a<cough>bc"
    ours.save_pretrained(tmp_path / "again")
    again = Tokenizer.from_pretrained(tmp_path / "again")
    assert again.encode(text) == ids
    assert ours.encode("<cough>", control_tokens=False) != ours.encode("<cough>")


def test_parts(both):
    for tokenizer in both:
        assert tokenizer.add_special_tokens({"cls_token": "<cls>", "pad_token": "<|im_start|>"}) == 1
        assert (tokenizer.cls_token, tokenizer.decode(tokenizer.cls_token_id)) == ("<cls>", "<cls>")
        tokenizer.pad_token_id = tokenizer.eos_token_id
        assert tokenizer.pad_token == "<|im_end|>"
        tokenizer.sep_token = "<|AUDIO|>"
        assert tokenizer.sep_token_id == tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    ours, theirs = both
    assert ours.special_tokens_map == theirs.special_tokens_map
    with pytest.raises(ConfigError, match=r"^A tokenizer has no 'pad_tokn'; expected one of bos_token,"):
        ours.add_special_tokens({"pad_tokn": "x"})


def test_parts_survive(tmp_path):
    tokenizer = small_tokenizer()
    tokenizer.add_special_tokens({"cls_token": "<cls>", "extra_special_tokens": ["<x>"]})
    tokenizer.save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    assert again.cls_token == "<cls>"
    assert "<x>" in again.all_special_tokens


def test_tokens_of_a_text(both):
    ours, theirs = both
    for text in ("hé <|im_end|>\n", "", "中"):
        tokens = ours.tokenize(text)
        assert tokens == theirs.tokenize(text)
        assert ours.convert_tokens_to_ids(tokens) == ours.encode(text)
    assert ours.convert_tokens_to_string(ours.tokenize("hé ")) == theirs.convert_tokens_to_string(ours.tokenize("hé "))


FORMS = {
    "rows": {"input_ids": [[1, 2, 3], [4]]},
    "a list of mappings": [
        {"input_ids": [1, 2, 3], "attention_mask": [1, 1, 1]}, {"input_ids": [4], "attention_mask": [0]}
    ],
    "one row": {"input_ids": [1, 2, 3]},
    "arrays": [{"input_ids": np.array([1, 2])}, {"input_ids": np.array([3])}],
    "tensors": [{"input_ids": torch.tensor([1, 2])}, {"input_ids": torch.tensor([3])}],
    "other keys": [{"input_ids": [1, 2], "weight": 0.5}, {"input_ids": [3], "weight": 8.0}],
}  # fmt: skip


def plain(value):
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else np.asarray(value).tolist()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "max_length", "max_length": 5, "padding_side": "right"},
        {"pad_to_multiple_of": 4, "return_tensors": "pt"},
        {"padding": False, "return_attention_mask": False},
        {"padding": "longest", "return_tensors": "np"},
    ],
)
def test_pad(both, form, options):
    if options.get("padding") is False and form in ("arrays", "tensors"):
        pytest.skip("rows of unequal length make no tensor")
    ours, theirs = (tokenizer.pad(copy.deepcopy(FORMS[form]), **options) for tokenizer in both)
    assert sorted(ours) == sorted(theirs)
    for name, expected in theirs.items():
        assert type(ours[name]) is type(expected), name
        assert plain(ours[name]) == plain(expected), name


def test_pad_refuses_what_has_no_ids():
    with pytest.raises(PromptError, match=r"^pad\(\) found \['labels'\], and no input_ids; pass what the tokenizer"):
        small_tokenizer().pad({"labels": [[1]]})


def test_a_collator_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = small_tokenizer()
    collate = transformers.DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8)
    batch = collate([tokenizer("hello"), tokenizer("hi")])
    assert batch["input_ids"].shape == (2, 8)
    assert batch["attention_mask"].sum(1).tolist() == [5, 2]
