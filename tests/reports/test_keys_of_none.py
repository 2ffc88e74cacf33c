"""A key with the value None is absent: datasets fills the fields of a union with it."""

from __future__ import annotations

import base64
import copy
import io
import wave
from pathlib import Path
from typing import Any

import pytest

import qwen2_audio as qa
from qwen2_audio.errors import PromptError
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.inputs.prompt import build_prompt
from qwen2_audio.serve.convert import messages_of
from qwen2_audio.serve.protocol import parse_chat
from qwen2_audio.serve.settings import Settings
from qwen2_audio.text import chat_template as chat
from qwen2_audio.text.rendering import render
from qwen2_audio.train.formats import ChatRow, read_row


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(bytes(32_000))
    return file.getvalue()


def conversation(clip: Any) -> list[dict[str, Any]]:
    """A conversation in which every part and message has all keys."""
    keys = {"type": None, "text": None, "audio": None, "audio_url": None, "url": None, "path": None}
    parts = [{**keys, "type": "audio", "audio": clip}, {**keys, "type": "text", "text": "Q"}, {**keys, "text": "R"}]
    return [{"role": "user", "content": parts, "type": None, "name": None, "tool_calls": None}]


PLAIN = [{"role": "user", "content": [{"type": "audio", "audio": wav()}, {"text": "Q"}, {"text": "R"}]}]


def test_every_renderer_takes_it_for_absent() -> None:
    messages = conversation(wav())
    before = copy.deepcopy(messages)
    for template in (None, chat.BUILTIN_TEMPLATE, chat.BUILTIN_TEMPLATE + "{#- own -#}"):
        assert render(messages, template=template) == render(PLAIN, template=template)
    assert chat.check_messages(messages) == [wav()]
    assert messages == before


def test_no_clip_is_made_of_it() -> None:
    text = [{"role": "user", "content": [{"type": "text", "text": "Q", "audio": None, "audio_url": None}]}]
    assert render(text) == render([{"role": "user", "content": "Q"}])
    assert chat.check_messages(text) == []
    with pytest.raises(PromptError, match="names no sound"):
        chat.check_messages([{"role": "user", "content": [{"type": "audio", "audio": None, "text": None}]}])


@pytest.mark.parametrize("template", [None, chat.BUILTIN_TEMPLATE + "{#- own -#}"])
def test_prompts_are_equal(template: str | None) -> None:
    processor = Qwen2AudioProcessor.from_pretrained(qa.nano_path())
    assert build_prompt(conversation(wav()), processor, template).ids == build_prompt(PLAIN, processor, template).ids


def test_http_and_training_rows(tmp_path: Path) -> None:
    data = {"data": base64.b64encode(wav()).decode(), "format": None, "extra": None}
    parts = [
        {"type": "input_audio", "input_audio": data, "text": None, "audio_url": None},
        {"type": "text", "text": "Q"},
    ]
    messages = messages_of(parse_chat({"messages": [{"role": "user", "content": parts, "name": None}]}), Settings())
    assert [part["type"] for part in messages[0]["content"]] == ["audio", "text"]
    row = read_row(
        {"messages": [*conversation("a.wav"), {"role": "assistant", "content": "A."}], "audios": None}, tmp_path
    )
    assert isinstance(row, ChatRow)
    assert [part["type"] for part in row.messages[0]["content"]] == ["audio", "text", "text"]
