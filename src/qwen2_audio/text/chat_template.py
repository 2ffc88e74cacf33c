"""The chat template of a conversation: prompt text, audio slots and loss mask in one pass.

A conversation is a list of `{"role": str, "content": str | list[part]}`. A part is a clip if it has the key `audio` or
`audio_url`, has the type "audio", or is in a message of type "audio"; any other part is its `text`. A key
whose value is None is absent.
The built-in template is the reference's default (transformers 5.23). With \\n for line ends, it renders a user's first
message, a clip and "What is it?", as:

    <|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n
    <|im_start|>user\\nAudio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\\nWhat is it?<|im_end|>\\n
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import PromptError, did_you_mean, refuse_unknown
from ..types import Message

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
AUDIO, AUDIO_BOS, AUDIO_EOS = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
DEFAULT_SYSTEM = "You are a helpful assistant."
SOURCE_KEYS = ("audio", "audio_url", "url", "path")  # keys of a part that may hold its clip; the first one present wins
ROLES = ("system", "user", "assistant")
_ROLE = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")  # a role that is no word could spell a control token
MESSAGE_KEYS = ("role", "content", "type")
PART_KEYS = ("type", "text", *SOURCE_KEYS)

# `render_segments` in Jinja, for other programs that read our checkpoints. A test shows that the two agree.
BUILTIN_TEMPLATE = """\
{%- set clips = namespace(n=0) -%}
{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{{ '<|im_start|>' ~ message['role'] ~ '\\n' }}
{%- if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if 'audio' in part or 'audio_url' in part or message['type'] == 'audio' or part['type'] == 'audio' -%}
{%- set clips.n = clips.n + 1 -%}
{{ 'Audio ' ~ clips.n ~ ': <|audio_bos|><|AUDIO|><|audio_eos|>\\n' }}
{%- elif 'text' in part -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""


@dataclass(frozen=True)
class AudioSlot:
    """One clip of a conversation."""

    number: int  # 1, 2, 3, ... over the whole conversation
    source: Any  # path, URL, bytes, samples, ...; None when the part has none
    where: str  # "message 2, part 1", for error messages


@dataclass(frozen=True)
class Segment:
    """A part of a rendered conversation, tokenized on its own."""

    text: str
    control: bool = False  # True: one control token. False: plain text, even if it spells a control token
    trained: bool = False  # the loss is computed here: the assistant's text and its <|im_end|>
    slot: AudioSlot | None = None  # set on the <|AUDIO|> of a clip


def render_segments(
    messages: Sequence[Message], *, add_generation_prompt: bool = False, continue_final_message: bool = False
) -> Iterator[Segment]:
    """The segments of a conversation in the built-in template; their joined texts are the prompt.

    Args:
        add_generation_prompt: append the header of an assistant's message.
        continue_final_message: leave out the end of the last message, so that the model continues its text.

    Raises:
        PromptError: a message is malformed, or a part of it would render nothing.
    """
    _check_conversation(messages, add_generation_prompt and continue_final_message)
    messages, clips = without_nones(messages), 0
    for index, message in enumerate(messages):
        role = _role_of(message, index)
        if index == 0 and role != "system":
            yield from _turn("system", [Segment(DEFAULT_SYSTEM)])
        content = list(_content_segments(message, index, clips, trained=role == "assistant"))
        clips += sum(segment.slot is not None for segment in content)
        if continue_final_message and index == len(messages) - 1:
            _check_ends_in_text(message)
            yield from [*_head(role), *content]
        else:
            yield from _turn(role, content)
    if add_generation_prompt:
        yield from _head("assistant")


def without_nones(messages: Sequence[Message]) -> list[Any]:
    """The messages without the keys whose value is None: datasets and other writers fill unions of fields with it."""
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        return messages
    return [_without_nones(message) if isinstance(message, dict) else message for message in messages]


def _without_nones(message: Message) -> Message:
    message = {key: value for key, value in message.items() if value is not None or key in ("role", "content")}
    if not isinstance(message.get("content"), (list, tuple)):
        return message
    parts = [
        {key: value for key, value in part.items() if value is not None} if isinstance(part, dict) else part
        for part in message["content"]
    ]
    return {**message, "content": parts}


def _head(role: str) -> Iterator[Segment]:
    yield Segment(IM_START, control=True)
    yield Segment(role)
    yield Segment("\n")


def _turn(role: str, content: Sequence[Segment]) -> Iterator[Segment]:
    yield from _head(role)
    yield from content
    yield Segment(IM_END, control=True, trained=role == "assistant")
    yield Segment("\n")


def _check_ends_in_text(message: Message) -> None:
    content = message["content"]
    if not content and not isinstance(content, str):
        raise PromptError("The final message has no text to continue; give it some, or use add_generation_prompt.")
    if not isinstance(content, str) and is_clip(message, content[-1]):
        raise PromptError("The final message ends in a clip, not in text to continue; put its text last.")


def _content_segments(message: Message, index: int, clips: int, *, trained: bool) -> Iterator[Segment]:
    content = message["content"]
    if isinstance(content, str):
        yield Segment(content, trained=trained)
        return
    for part_index, part in enumerate(content):
        where = f"message {index + 1}, part {part_index + 1}"
        if not isinstance(part, dict):
            raise PromptError(f"In {where}: found a {type(part).__name__}, expected a dict with 'text' or 'audio'.")
        if is_clip(message, part):
            clips += 1
            yield from _clip_segments(AudioSlot(clips, source_of(part), where))
        elif "text" in part:
            yield Segment(_text_of(part, where), trained=trained)
        else:
            raise PromptError(
                f"In {where}: found the keys {sorted(map(str, part))}, of which nothing would reach the model; "
                "expected 'text', or 'audio' or 'audio_url' for a clip."
            )


def is_clip(message: Message, part: dict[str, Any]) -> bool:
    """Whether a part of a message's content is a clip."""
    return "audio" in part or "audio_url" in part or "audio" in (message.get("type"), part.get("type"))


def _clip_segments(slot: AudioSlot) -> Iterator[Segment]:
    yield Segment(f"Audio {slot.number}: ")
    yield Segment(AUDIO_BOS, control=True)
    yield Segment(AUDIO, control=True, slot=slot)
    yield Segment(AUDIO_EOS, control=True)
    yield Segment("\n")


def source_of(part: dict[str, Any]) -> Any:
    """The source of a part that is a clip; None where it names none."""
    for key in SOURCE_KEYS:
        source = part.get(key)
        if key == "audio_url" and isinstance(source, dict):
            source = source.get("url")
        if source is not None:
            return source
    return None


def _text_of(part: dict[str, Any], where: str) -> str:
    text = part["text"]
    if not isinstance(text, str):
        raise PromptError(f"In {where}: 'text' is a {type(text).__name__}; expected a string.")
    return text


def _check_conversation(messages: Any, both_endings: bool) -> None:
    if both_endings:
        raise PromptError(
            "add_generation_prompt and continue_final_message exclude each other: "
            "the first begins an answer, the second goes on with one; pass one of them."
        )
    if isinstance(messages, dict) or not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise PromptError(f"The conversation is a {type(messages).__name__}; expected a list of messages.")
    if not messages:
        raise PromptError("The conversation is empty; expected at least one message.")


def _role_of(message: Any, index: int) -> str:
    where = f"Message {index + 1}"
    if not isinstance(message, dict):
        raise PromptError(f"{where} is a {type(message).__name__}; expected a dict with 'role' and 'content'.")
    for key in ("role", "content"):
        if key not in message:
            raise PromptError(f"{where} has no {key!r}, found {sorted(map(str, message))}; every message needs one.")
    role, content = message["role"], message["content"]
    if not isinstance(role, str):
        raise PromptError(f"{where} has a {type(role).__name__} as its role; expected a string such as 'user'.")
    if not isinstance(content, (str, list, tuple)):
        raise PromptError(f"{where} has a {type(content).__name__} as its content; expected a string or a list.")
    return role


def audio_sources(messages: Sequence[Message]) -> list[Any]:
    """The source of each clip, in order. Raises PromptError for a clip without one."""
    slots = [segment.slot for segment in render_segments(messages) if segment.slot is not None]
    for slot in slots:
        if slot.source is None:
            raise PromptError(f"In {slot.where}: the clip names no sound; give it one under any of {SOURCE_KEYS}.")
    return [slot.source for slot in slots]


def check_messages(messages: Sequence[Message], readable: str = "") -> list[Any]:
    """The source of each clip of a conversation, in order.

    A role is one of ROLES or another word that is not nearly one of them; the templates render it as it is.
    `readable`: a checkpoint's own template, whose source names the further keys of a message that it reads.
    Raises PromptError for malformed messages, and for content that the model would silently not get.
    """
    messages = without_nones(messages)
    sources = audio_sources(messages)
    for index, message in enumerate(messages, 1):
        check_role(message["role"], f"Message {index}")
        own = {key: value for key, value in message.items() if key in MESSAGE_KEYS or str(key) not in readable}
        _refuse_unknown_keys(own, MESSAGE_KEYS, f"Message {index}")
        if not isinstance(message["content"], str):
            for number, part in enumerate(message["content"], 1):
                _check_part(part, f"Message {index}, part {number}")
    return sources


def check_role(role: str, where: str) -> None:
    """Raises PromptError for a role that is no word, or a misspelt one of ROLES."""
    near = "" if role in ROLES else did_you_mean(role, ROLES)
    if near or not _ROLE.fullmatch(role):
        expected = f"expected one of {', '.join(ROLES)}, or another word.{near}"
        raise PromptError(f"{where} has the role {role[:80]!r}; {expected}")


def _check_part(part: dict[str, Any], where: str) -> None:
    _refuse_unknown_keys(part, PART_KEYS, where)
    sources = [key for key in SOURCE_KEYS if part.get(key) is not None]
    if len(sources) > 1:
        raise PromptError(f"{where} names its sound twice, under {' and '.join(sources)}; give one.")
    if sources and "text" in part:
        raise PromptError(f"{where} holds both a clip and text; make two parts of it.")


def _refuse_unknown_keys(entry: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    if entry.keys() <= set(known):
        return
    after = f", which nothing here reads; expected {', '.join(known)}."
    refuse_unknown(entry, known, PromptError, f"{where} has the key", after)
