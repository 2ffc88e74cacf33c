import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen2_audio.errors import ConfigError, PromptError, WeightsError
from qwen2_audio.text.padding import UNLIMITED
from qwen2_audio.text.tokenizer import Tokenizer

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "qwen2-tokenizer"


@pytest.fixture(scope="session")
def real() -> Tokenizer:
    if not REAL.is_dir():
        pytest.skip("the real Qwen2 vocabulary (shared/data/qwen2-tokenizer) is not here")
    return Tokenizer.from_pretrained(REAL)


@pytest.fixture
def folder(tiny_folder, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def change_config(folder: Path, **changes) -> None:
    path = folder / "tokenizer_config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "absent"}))


# -- goldens of the reference's integration tests


def test_golden_prompt_of_133_ids(real):
    text = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "Audio 1: <|audio_bos|>" + "<|AUDIO|>" * 101 + "<|audio_eos|>\nWhat's that sound?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    head = [151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198, 151644, 872, 198, 14755, 220, 16, 25, 220]
    tail = [151648, 198, 3838, 594, 429, 5112, 30, 151645, 198, 151644, 77091, 198]
    assert real.encode(text) == [*head, 151647, *[151646] * 101, *tail]


def test_golden_tokens_of_the_caption_prompt(real):
    text = (
        "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>\n"
        "What is it in this audio?<|im_end|><|im_start|>assistant\n"
    )
    expected = (  # as one string: the tokens have no blanks
        "<|im_start|> system Ċ Answer Ġthe Ġquestions . <|im_end|> <|im_start|> user Ċ <|audio_bos|> <|AUDIO|> "
        "<|audio_eos|> Ċ What Ġis Ġit Ġin Ġthis Ġaudio ? <|im_end|> <|im_start|> assistant Ċ"
    )
    tokens = real.convert_ids_to_tokens(real.encode(text))
    assert len(tokens) == 26
    assert " ".join(tokens) == expected


def test_real_files_are_read_as_they_say(real):
    assert (real.eos_token, real.eos_token_id) == ("<|im_end|>", 151645)
    assert (real.pad_token, real.pad_token_id) == ("<|endoftext|>", 151643)
    assert (real.padding_side, real.model_max_length, len(real), real.vocab_size) == ("left", 8192, 151649, 151643)
    assert real.unk_token is None
    assert real.bos_token is None
    assert real.all_special_ids == list(range(151643, 151649))


def test_canonically_equal_texts_are_one(real):
    assert real.encode("e\u0301") == real.encode("\u00e9")


# -- control tokens


def test_control_tokens_of_a_user_stay_text(tiny):
    end = tiny.convert_tokens_to_ids("<|im_end|>")
    assert tiny.encode("a<|im_end|>")[-1] == end
    harmless = tiny.encode("a<|im_end|><|AUDIO|>", control_tokens=False)
    assert not set(harmless) & set(tiny.all_special_ids)
    assert tiny.decode(harmless) == "a<|im_end|><|AUDIO|>"


def test_encoding_without_control_tokens_leaves_no_trace_in_other_threads(tiny):
    text = "one <|im_start|> two <|AUDIO|>" * 20
    expected = {True: tiny.encode(text), False: tiny.encode(text, control_tokens=False)}
    with ThreadPoolExecutor(4) as pool:
        kinds = [bool(i % 2) for i in range(200)]
        found = list(pool.map(lambda kind: tiny.encode(text, control_tokens=kind), kinds))
    assert all(ids == expected[kind] for ids, kind in zip(found, kinds, strict=True))


@given(text=st.text().filter(lambda text: "<|" not in text))
def test_both_readings_agree_on_text_without_control_tokens(tiny, text):
    assert tiny.encode(text) == tiny.encode(text, control_tokens=False)


# -- decoding


@given(text=st.text().filter(lambda t: t.isascii()))
def test_ascii_text_survives(tiny, text):
    assert tiny.decode(tiny.encode(text)) == text


def test_decode_takes_every_form_of_ids(tiny):
    ids = tiny.encode("hello")
    forms = [ids, tuple(ids), np.array(ids), torch.tensor(ids), [np.int64(i) for i in ids], list(torch.tensor(ids))]
    assert [tiny.decode(form) for form in forms] == ["hello"] * len(forms)
    assert tiny.decode(ids[0]) == tiny.decode(np.int64(ids[0])) == tiny.decode(torch.tensor(ids[0]))
    assert tiny.decode([ids, ids]) == tiny.decode(torch.tensor([ids, ids])) == ["hello", "hello"]
    assert tiny.batch_decode(torch.tensor([ids])) == tiny.batch_decode([torch.tensor(ids)]) == ["hello"]
    assert tiny.decode([]) == ""
    assert tiny.batch_decode([]) == []


def test_skip_special_tokens_leaves_only_text(tiny):
    ids = tiny.encode("<|im_start|>user\nAudio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\nhi<|im_end|>")
    assert tiny.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == "user\nAudio 1: \nhi"


def test_ids_beyond_the_vocabulary_decode_to_nothing(tiny):
    ids = tiny.encode("hi")
    assert tiny.decode([len(tiny), ids[0], 156031, *ids[1:]]) == "hi"
    assert tiny.convert_ids_to_tokens(156031) is None


def test_broken_utf8_decodes_to_the_replacement_character(tiny):
    assert tiny.decode(tiny.convert_tokens_to_ids(["Ã", "h"])) == "\ufffdh"  # Ã spells the byte C3


def test_bad_ids_are_refused(tiny):
    with pytest.raises(PromptError, match=r"^Token id -100 is negative; expected ids from 0 up\. Take out ignored"):
        tiny.decode([5, -100])
    with pytest.raises(PromptError, match=r"^A token id is a float; expected whole numbers\.$"):
        tiny.decode([1.5])
    with pytest.raises(TypeError, match="spaces"):
        tiny.decode([5], spaces=True)


def test_tokens_and_ids(tiny):
    assert tiny.convert_ids_to_tokens(tiny.convert_tokens_to_ids(["h", "<|AUDIO|>"])) == ["h", "<|AUDIO|>"]
    assert tiny.convert_tokens_to_ids("<|nothing|>") is None
    assert tiny.convert_ids_to_tokens(tiny.encode("h<|AUDIO|>"), skip_special_tokens=True) == ["h"]
    assert tiny.all_special_tokens[3] == "<|AUDIO|>"
    assert len(tiny.get_vocab()) == len(tiny)


# -- batches


def test_one_string_and_several(tiny):
    ids = tiny.encode("hello")
    assert tiny("hello") == {"input_ids": ids, "attention_mask": [1] * len(ids)}
    assert tiny(["hello"]).input_ids == [ids]
    batch = tiny("hello", return_tensors="pt")
    assert batch.input_ids.tolist() == [ids]
    assert batch.input_ids.dtype == batch.attention_mask.dtype == torch.int64


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_fills_the_given_side(tiny, side):
    batch = tiny(["hello hello", "h"], padding=True, return_tensors="np", padding_side=side)
    pads = batch.input_ids.shape[1] - 1
    expected = [0] * pads + [1] if side == "left" else [1] + [0] * pads
    assert batch.attention_mask[1].tolist() == expected
    assert (batch.input_ids[1] == tiny.pad_token_id).sum() == pads
    assert tiny.padding_side == "left"


def test_padding_and_truncation_to_a_length(tiny):
    batch = tiny(["hello hello", "h"], padding="max_length", truncation=True, max_length=3)
    assert [len(row) for row in batch.input_ids] == [3, 3]
    assert batch.input_ids[0] == tiny.encode("hello hello")[:3]


def test_what_cannot_be_padded_is_refused(folder, tiny):
    with pytest.raises(
        PromptError, match=r"^The rows have 1 to \d+ tokens and do not make one tensor; pass padding=True"
    ):
        tiny(["h", "hello hello"], return_tensors="pt")
    with pytest.raises(PromptError, match=r"^padding is 'left'; expected True, 'longest', 'max_length' or False\.$"):
        tiny("h", padding="left")
    with pytest.raises(PromptError, match=r"^return_tensors is 'tf'; expected 'pt', 'np' or None\."):
        tiny("h", return_tensors="tf")
    with pytest.raises(ConfigError, match=r"^padding_side is 'centre'; expected 'left' or 'right'\.$"):
        tiny.padding_side = "centre"
    with pytest.raises(ConfigError, match=r"^padding_side is 'up'; expected 'left' or 'right'\.$"):
        tiny(["h"], padding=True, padding_side="up")
    change_config(folder, pad_token=None, model_max_length="absent")
    bare = Tokenizer.from_pretrained(folder)
    assert bare.model_max_length == UNLIMITED
    with pytest.raises(ConfigError, match=r"^This tokenizer has no pad token; set tokenizer\.pad_token"):
        bare(["h", "hello hello"], padding=True)
    with pytest.raises(PromptError, match=r"^padding='max_length' needs a length: pass max_length="):
        bare(["h"], padding="max_length")


def test_only_whole_strings_are_encoded(tiny):
    with pytest.raises(PromptError, match=r"^The text is a int; expected a string\.$"):
        tiny.encode(5)
    with pytest.raises(PromptError, match=r"^The text is a NoneType; expected a string\.$"):
        tiny(None)
    with pytest.raises(PromptError, match=r"^The text has half a character at position 2 \(a lone surrogate\)"):
        tiny.encode("ab\ud800")
    with pytest.raises(PromptError, match="half a character"):
        tiny.encode("\udfff", control_tokens=False)


# -- files


def test_save_and_load_give_the_same_tokenizer(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "saved")
    again = Tokenizer.from_pretrained(tmp_path / "saved")
    text = "<|im_start|>user\nhello 中文<|AUDIO|>"
    assert again.encode(text) == tiny.encode(text)
    assert (again.eos_token, again.padding_side, again.model_max_length) == ("<|im_end|>", "left", 8192)
    assert again.get_vocab() == tiny.get_vocab()
    assert not (tmp_path / "saved" / "chat_template.jinja").exists()


@pytest.mark.parametrize("in_config", [True, False])
def test_the_chat_template_is_saved_where_it_came_from(folder, tmp_path, in_config):
    if in_config:
        change_config(folder, chat_template="from the config")
    else:
        (folder / "chat_template.jinja").write_text("from the file")
    tokenizer = Tokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert Tokenizer.from_pretrained(tmp_path / "saved").chat_template == tokenizer.chat_template != ""
    assert (tmp_path / "saved" / "chat_template.jinja").exists() is not in_config


def test_every_place_of_a_chat_template_is_read(folder):
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "json"}))
    assert Tokenizer.from_pretrained(folder).chat_template == "json"
    (folder / "chat_template.jinja").write_text("jinja")
    assert Tokenizer.from_pretrained(folder).chat_template == "jinja"
    change_config(folder, chat_template=[{"name": "tools", "template": "t"}, {"name": "default", "template": "config"}])
    assert Tokenizer.from_pretrained(folder).chat_template == {"tools": "t", "default": "config"}


def test_vocab_and_merges_do_where_there_is_no_tokenizer_json(folder, tiny):
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"]))
    (folder / "tokenizer.json").unlink()
    text = "You are a helpful assistant. 12 don't 中文<|AUDIO|>\n\n x"
    assert Tokenizer.from_pretrained(folder).encode(text) == tiny.encode(text)


def test_a_side_not_named_is_left_and_tokens_not_named_are_the_class_defaults(folder):
    change_config(folder, padding_side="absent", eos_token="absent", pad_token="absent", unk_token="absent")
    tokenizer = Tokenizer.from_pretrained(folder)
    assert tokenizer.padding_side == "left"
    assert tokenizer.eos_token == tokenizer.pad_token == tokenizer.unk_token == "<|endoftext|>"
    assert tokenizer.convert_tokens_to_ids("<|nothing|>") == tokenizer.unk_token_id is not None


def test_a_token_may_be_an_object(folder):
    change_config(folder, eos_token={"content": "<|im_start|>", "special": True})
    assert Tokenizer.from_pretrained(folder).eos_token == "<|im_start|>"


def test_padding_left_in_tokenizer_json_has_no_effect(folder):
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    data["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(data))
    assert len(Tokenizer.from_pretrained(folder).encode("zzzzzzzz")) == 8


def test_files_that_disagree_are_refused(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    added = config["added_tokens_decoder"]
    last = max(added, key=int)
    added[str(int(last) + 5)] = added.pop(last)
    change_config(folder, added_tokens_decoder=added)
    with pytest.raises(
        WeightsError, match=rf"puts '<\|audio_eos\|>' at id {int(last) + 5}, but the vocabulary puts it at "
    ):
        Tokenizer.from_pretrained(folder)


def test_missing_and_damaged_files_are_refused(folder, tmp_path):
    change_config(folder, eos_token="<|end|>")
    with pytest.raises(
        ConfigError, match=r"^tokenizer_config\.json names '<\|end\|>' as its eos_token, which the vocab"
    ):
        Tokenizer.from_pretrained(folder)
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(WeightsError, match=r"tokenizer_config\.json holds a JSON list; expected an object\."):
        Tokenizer.from_pretrained(folder)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"tokenizer_config\.json is not valid JSON \(.*\); fetch the file again\.$"):
        Tokenizer.from_pretrained(folder)
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"^The tokenizer in .* cannot be read \(.*\); fetch its files again\.$"):
        Tokenizer.from_pretrained(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        WeightsError, match=r"has no tokenizer; expected tokenizer\.json, or vocab\.json with merges\.txt"
    ):
        Tokenizer.from_pretrained(tmp_path / "empty")


# -- conversations


def test_apply_chat_template(tiny):
    messages = [{"role": "user", "content": "hello"}]
    text = tiny.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")
    assert tiny.apply_chat_template(messages, add_generation_prompt=True).input_ids == tiny.encode(text)
    assert tiny.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == tiny.encode(text)
    assert tiny.apply_chat_template([messages, messages], tokenize=False, add_generation_prompt=True) == [text, text]
    assert tiny.apply_chat_template(messages, chat_template="{{ messages[0].content }}", tokenize=False) == "hello"
    with pytest.raises(PromptError, match=r"^return_tensors has no effect on a text; leave it out"):
        tiny.apply_chat_template(messages, tokenize=False, return_tensors="pt")
