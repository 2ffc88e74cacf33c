"""Several named chat templates: a dict survives `save_pretrained`, names choose, and other programs read the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.small_processor import write_small_processor
from qwen2_audio.errors import ConfigError, PromptError
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.inputs.prompt import build_prompt, custom_template
from qwen2_audio.quantize.convert import FILES_ALONG
from qwen2_audio.text.chat_template import BUILTIN_TEMPLATE
from qwen2_audio.text.tokenizer import Tokenizer

TALK = [{"role": "user", "content": "Hi"}]
NAMED = {"default": "a {{ messages[0].content }}", "short": "b", "tool_use": "c {{ tools }}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_small_processor(tmp_path_factory.mktemp("named"))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.j*") if "chat_template" in str(path)}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # transformers leaves files open
def test_a_dict_survives(folder, tmp_path):
    processor = Qwen2AudioProcessor.from_pretrained(folder)
    processor.chat_template = NAMED
    written = processor.save_pretrained(tmp_path)
    names = {"short", "tool_use"}
    assert files(tmp_path) == {"chat_template.jinja", *(f"additional_chat_templates/{name}.jinja" for name in names)}
    assert {Path(path) for path in written} == {path for path in tmp_path.rglob("*") if path.is_file()}
    again = Qwen2AudioProcessor.from_pretrained(tmp_path)
    assert again.chat_template == again.tokenizer.chat_template == NAMED
    transformers = pytest.importorskip("transformers")
    assert transformers.Qwen2AudioProcessor.from_pretrained(tmp_path).chat_template == NAMED


def test_one_of_transformers_is_read(folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.Qwen2AudioProcessor.from_pretrained(folder)
    theirs.chat_template = NAMED
    theirs.save_pretrained(tmp_path)
    assert Qwen2AudioProcessor.from_pretrained(tmp_path).chat_template == NAMED


def test_a_tokenizers_dict_survives_too(folder, tmp_path):
    tokenizer = Tokenizer.from_pretrained(folder)
    tokenizer.chat_template = NAMED
    written = tokenizer.save_pretrained(tmp_path)
    assert {Path(path) for path in written} == {path for path in tmp_path.rglob("*") if path.is_file()}
    assert Tokenizer.from_pretrained(tmp_path).chat_template == NAMED


def test_names_choose(folder):
    processor = Qwen2AudioProcessor.from_pretrained(folder)
    processor.chat_template = processor.tokenizer.chat_template = NAMED
    assert processor.apply_chat_template(TALK) == "a Hi"
    assert processor.apply_chat_template(TALK, "short") == "b"
    assert processor.apply_chat_template(TALK, "{{ 1 }}") == "1"
    tokenizer = processor.tokenizer
    assert tokenizer.apply_chat_template(TALK, tokenize=False) == "a Hi"
    assert tokenizer.apply_chat_template(TALK, tools=[{"x": 1}], tokenize=False) == "c [{'x': 1}]"
    with pytest.raises(PromptError, match=r"^There is no chat template 'shrt'\. Did you mean 'short'\?$"):
        processor.apply_chat_template(TALK, "shrt")


def test_none_is_the_default(folder):
    processor = Qwen2AudioProcessor.from_pretrained(folder)
    processor.chat_template = {"x": "1", "y": "2"}
    with pytest.raises(PromptError, match=r"none is the default; pass chat_template= one of \['x', 'y'\]\.$"):
        processor.apply_chat_template(TALK)
    assert processor.apply_chat_template(TALK, "y") == "2"


def test_the_default_one_is_chatted_in(folder):
    processor = Qwen2AudioProcessor.from_pretrained(folder)
    processor.chat_template = {"default": BUILTIN_TEMPLATE, "short": "b"}
    assert custom_template(processor) is None
    processor.chat_template = NAMED
    assert processor.tokenizer.decode(build_prompt(TALK, processor, custom_template(processor)).ids) == "a Hi"


def test_names_that_are_no_file_names(folder, tmp_path):
    processor = Qwen2AudioProcessor.from_pretrained(folder)
    processor.chat_template = {"default": "a", "../x": "b"}
    with pytest.raises(ConfigError, match=r"^A chat template is called '\.\./x'; expected letters"):
        processor.save_pretrained(tmp_path / "in")
    assert not (tmp_path / "in" / "x.jinja").exists()


def test_quantising_takes_them_along():
    assert "additional_chat_templates/*.jinja" in FILES_ALONG
