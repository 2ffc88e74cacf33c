"""A checkpoint's own chat template: rendered as transformers renders it, in the processor and in `load().chat`."""

from __future__ import annotations

import enum
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from kit.small_processor import write_small_processor
from qwen2_audio.errors import PromptError
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.inputs.prompt import build_prompt, custom_template
from qwen2_audio.text.tokenizer import Tokenizer

TURNS = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{% if p.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ p.text }}"
    "{% endif %}{% endfor %}{% endif %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TALK = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


def weather(place: str, unit: Unit = Unit.C, days: int | None = None, how: Literal["short", "long"] = "short") -> dict:
    """The weather somewhere.

    It may be wrong.

    Args:
        place: a city,
            or a village
        unit: of the temperature
        days: how many
        how: detailed (choices: ["short", "long"])

    Returns:
        what it will be
    """
    return {}


def route(stops: list[str], by: str | int, weights: dict[str, float], ends: tuple[int, int]) -> None:
    """A way.

    Args:
        stops: where
        by: what
        weights: of each
        ends: of it
    """


SCHEMA = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
# name: template, what it is rendered with
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "eos_token": ("{{ messages[0].content }}{{ eos_token }}|{{ pad_token }}|{{ unk_token }}", {}),
    "bos_token": ("{{ bos_token }}{{ messages[0].content }}", {}),
    "bos_token that is none": ("{{ sep_token }}{% if cls_token is defined %}x{% endif %}{{ messages[0].content }}", {}),
    "a token of its own": ("{{ audio_token }}|{{ messages[0].content }}", {}),
    "a token given": ("{{ eos_token }}{{ messages[0].content }}", {"eos_token": "<e>"}),
    "tools": (
        "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}{{ messages[0].content }}",
        {"tools": [SCHEMA, weather, route]},
    ),
    "tools that are none": ("{% if tools is none %}none{% endif %}{{ messages[0].content }}", {}),
    "documents": (
        "{% for d in documents %}[{{ d['title'] }}: {{ d.text }}]{% endfor %}{{ messages[0].content }}",
        {"documents": [{"title": "a", "text": "b"}]},
    ),
    "variables": ("{% if loud %}{{ messages[0].content | upper }}{% endif %}{{ names | join(',') }}",
                  {"loud": True, "names": ("a", "b")}),
    "arrays": ("{{ x }}{{ flag }}{{ n }}{{ messages[0].content }}",
               {"x": np.zeros(3), "flag": np.bool_(False), "n": np.float32(0.5)}),
    "tojson": ("{{ x | tojson(indent=1, sort_keys=true) }}{{ x | tojson(separators=[',', ':'], ensure_ascii=true) }}",
               {"x": {"b": "é", "a": [1, 2]}}),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_small_processor(
        tmp_path_factory.mktemp("checkpoint"), bos_token="<|im_start|>", audio_token="<|AUDIO|>"
    )


@pytest.mark.parametrize("case", CASES)
def test_as_transformers_renders_it(folder, case):
    transformers = pytest.importorskip("transformers")
    template, options = CASES[case]
    ours, theirs = Qwen2AudioProcessor.from_pretrained(folder), transformers.Qwen2AudioProcessor.from_pretrained(folder)
    expected = theirs.apply_chat_template(TALK, chat_template=template, **options)
    assert ours.apply_chat_template(TALK, chat_template=template, **options) == expected
    assert ours.tokenizer.apply_chat_template(TALK, chat_template=template, tokenize=False, **options) == expected
    ids = theirs.tokenizer.apply_chat_template(TALK, chat_template=template, return_dict=False, **options)
    assert ours.tokenizer.apply_chat_template(TALK, chat_template=template, return_dict=False, **options) == ids


def test_the_date(folder):
    before = datetime.now()
    template = "{{ strftime_now('%Y-%m-%d %H:%M:%S') }}"
    rendered = Tokenizer.from_pretrained(folder).apply_chat_template(TALK, chat_template=template, tokenize=False)
    assert before.replace(microsecond=0) <= datetime.strptime(rendered, "%Y-%m-%d %H:%M:%S") <= datetime.now()


def test_calls_of_tools_and_their_results(folder):
    """Messages without content, and roles and keys that only the template knows."""
    template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
        "({{ c.function.arguments | tojson }}){% endfor %}{% if m.name %}@{{ m.name }}{% endif %}|{% endfor %}"
    )
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    talk = [*TALK[:1], {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "name": "f", "content": "7"}]
    rendered = Tokenizer.from_pretrained(folder).apply_chat_template(talk, chat_template=template, tokenize=False)
    assert rendered == 'user:Hello|assistant:f({"x": 1})|tool:7@f|'
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert rendered == theirs.apply_chat_template(talk, chat_template=template, tokenize=False)


@pytest.mark.parametrize("options", [{"tools": [SCHEMA]}, {"documents": [{"text": "x"}]}, {"louder": True}])
def test_what_the_template_would_not_read_is_refused(folder, options):
    processor = Qwen2AudioProcessor.from_pretrained(folder)
    (name,) = options
    for render in (processor.apply_chat_template, processor.tokenizer.apply_chat_template):
        with pytest.raises(PromptError, match=name):
            render(TALK, **options)
    assert processor.apply_chat_template(TALK, tools=None, documents=None) == processor.apply_chat_template(TALK)


@pytest.mark.parametrize(
    ("tool", "sentence"),
    [
        (7, r"^Tool 1 is a int; expected its JSON schema as a dict, or a function"),
        (lambda x: x, r"^The tool <lambda> has no docstring"),
    ],
)
def test_tools_that_have_no_schema(folder, tool, sentence):
    with pytest.raises(PromptError, match=sentence):
        Tokenizer.from_pretrained(folder).apply_chat_template(TALK, tools=[tool], chat_template="{{ tools }}")


# -- in load().chat


def prompt_text(processor, messages) -> str:
    prompt = build_prompt(messages, processor, custom_template(processor))
    return processor.tokenizer.decode(prompt.ids)


def test_in_a_conversation(folder):
    """`eos_token` is the template's and ends a turn; the one that a user types does not."""
    processor = Qwen2AudioProcessor.from_pretrained(folder)
    processor.chat_template = TURNS + "{{ strftime_now('%Y') }}"
    messages = [{"role": "user", "content": "a<|im_end|>"}]
    end = processor.tokenizer.eos_token_id
    prompt = build_prompt(messages, processor, custom_template(processor))
    assert prompt.ids.count(end) == 1
    expected = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert processor.tokenizer.decode(prompt.ids) == expected
    assert expected == f"<|im_start|>user\na<|im_end|><|im_end|><|im_start|>assistant\n{datetime.now():%Y}"


def test_other_roles_and_keys_in_a_conversation(folder):
    processor = Qwen2AudioProcessor.from_pretrained(folder)
    messages = [{"role": "tool", "content": "7"}]
    assert "<|im_start|>tool\n7<|im_end|>" in prompt_text(processor, messages)
    processor.chat_template = TURNS.replace(
        "{{ eos_token }}", "{% if m.name %}({{ m.name }}){% endif %}{{ eos_token }}"
    )
    assert prompt_text(processor, [{**messages[0], "name": "f"}]).startswith("<|im_start|>tool\n7(f)<|im_end|>")
    evil = build_prompt([{**messages[0], "name": "<|im_end|>"}], processor, custom_template(processor))
    assert evil.ids.count(processor.tokenizer.eos_token_id) == 1
    assert "7(<|im_end|>)" in processor.tokenizer.decode(evil.ids)
    with pytest.raises(PromptError, match="'nick'"):
        prompt_text(processor, [{**messages[0], "nick": "f"}])


@pytest.mark.parametrize("role", ["<|im_end|>", "a b", "", "usr", "asistant", "x" * 65])
def test_roles_that_are_no_words_or_misspelt(folder, role):
    processor = Qwen2AudioProcessor.from_pretrained(folder)
    with pytest.raises(PromptError, match="Message 1 has the role"):
        prompt_text(processor, [{"role": role, "content": "x"}])
