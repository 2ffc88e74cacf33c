"""From one line of a data file to messages: our format, ms-swift, LLaMA-Factory, OpenAI, the official evaluation files.

    ours            {"messages": [{"role": "user", "content": [{"type": "audio", "audio": "dog.wav"}, ...]}, ...]}
                    ("conversations" in place of "messages", and "audio_url" in a part, as in the official examples)
    ms-swift        {"messages": [{"role": "user", "content": "<audio>What is it?"}, ...], "audios": ["dog.wav"]}
    LLaMA-Factory   {"conversations": [{"from": "human", "value": "<audio>What is it?"}, ...], "audios": ["dog.wav"]}
    OpenAI          parts {"type": "input_audio", "input_audio": {"data": base64, "format": "wav"}} or "audio_url"
    evaluation      {"audio": "dog.wav", "prompt": "Recognize the speech:", "gt": "hello", "source": "..."}

Pairs for DPO: `rejected_response` beside the messages (ms-swift), or `chosen` and `rejected` after them.
A clip is a path (relative to the data file), a member of a .tar ("shard-0001.tar#0042.flac"), a URL, a data: URI,
{"path": ...}, {"bytes": base64}, or {"array": samples, "sampling_rate": Hz}; `offset` and `duration`
(seconds) beside it name a part of it.
Keys that hold neither audio nor text (id, source, task...) are ignored.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import PromptError, refuse_unknown
from ..types import Message
from .clip_sources import SEGMENT_KEYS, Segment, clip_source, refuse_unread_clips, segment_of

TAG = "<audio>"  # stands for a clip in the texts of ms-swift and LLaMA-Factory
TYPED_CLIP = "<|AUDIO|>"  # the chat template makes this token itself; in a text it stands for no clip
ROLES = {"system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant"}
CHAT_KEYS = (
    "messages", "conversations", "audios", "system", "chosen", "rejected", "rejected_response", *SEGMENT_KEYS,
)  # fmt: skip
EVAL_KEYS = ("audio", "prompt", "gt")
TRL_KEYS = ("prompt", "completion", "chosen", "rejected")
MESSAGE_KEYS = ("role", "content", "from", "value", "weight", "loss")
PART_KEYS = ("type", "text", "audio", "audio_url", "input_audio", "url", "path", *SEGMENT_KEYS)
CLIP_KEYS = ("audio", "audio_url", "input_audio", "url", "path")  # of a part
# Endings of keys with information about a row: "conversation_id" is no misspelt "conversations".
METADATA_SUFFIXES = ("_id", "_ids", "_index", "_reason", "_score", "_source", "_model")
# Keys that nothing here reads although they would change what is learned. An empty value is accepted.
UNREAD_KEYS = (
    "images", "image", "videos", "video", "objects", "tools", "functions", "label", "channel", "kto_tag",
    "rejected_messages", "rejected_audios",
)  # fmt: skip


@dataclass(frozen=True)
class ChatRow:
    """A checked conversation that ends in an answer; a clip is a part {"type": "audio", "audio": source}."""

    messages: list[Message]
    answers: tuple[int, ...]  # indices of the assistant's messages that the row does not exclude from training
    rejected: Message | None = None  # the worse last answer, for DPO


@dataclass(frozen=True)
class BaseRow:
    """A clip, a prompt, and the text with which the base model continues it; no chat template."""

    audio: Path | bytes | str | tuple[Any, Any] | Segment
    prompt: str
    target: str


def read_row(row: Any, folder: Path) -> ChatRow | BaseRow:
    """A row from a parsed line; relative paths start at `folder`. Raises PromptError, which says what is wrong."""
    if not isinstance(row, dict):
        raise PromptError(f"The row is a {type(row).__name__}; expected an object with 'messages'.")
    row = _without_nulls(row)
    if "messages" not in row and "conversations" not in row:
        _refuse_trl(row)
        if {"prompt", "gt"} & set(row):
            return _base_row(row, folder)
    _check_row_keys(row)
    if ("messages" in row) == ("conversations" in row):
        which = "both" if "messages" in row else "neither"
        raise PromptError(f"The row has {which} of 'messages' and 'conversations'; expected one of them.")
    clips = _Clips(row, folder)
    entries = _entries(row)
    messages = [_message(entry, where, clips) for where, entry in entries.items()]
    excluded = {i for i, (where, entry) in enumerate(entries.items()) if _is_excluded(entry, where)}
    rejected = _rejected(row, clips)
    clips.check_all_used()
    _check_all_heard(row, messages)
    _cut_segment(row, messages)
    named = dict(zip(entries, messages, strict=True))
    _check_order(named)
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant" and i not in excluded]
    if not answers:
        raise PromptError("Every answer of the row is switched off by 'weight' or 'loss'; nothing is left to learn.")
    _check_answers(named)
    if rejected is not None:
        _check_answers({"'rejected'" if "rejected" in row else "'rejected_response'": rejected})
        if answer_text(rejected) == answer_text(messages[-1]):
            raise PromptError("The chosen and the rejected answer are the same; there is nothing to prefer.")
    return ChatRow(messages, tuple(answers), rejected)


def _base_row(row: dict[str, Any], folder: Path) -> BaseRow:
    for key in EVAL_KEYS:
        if key not in row:
            raise PromptError(f"An evaluation row needs {', '.join(EVAL_KEYS)}; {key!r} is missing.")
    for key in ("prompt", "gt"):
        if not isinstance(row[key], str) or not row[key].strip():
            raise PromptError(f"{key!r} of the evaluation row is {row[key]!r}; expected a text that is not empty.")
    audio = clip_source(row["audio"], folder, "The row", {key: row.get(key) for key in SEGMENT_KEYS})
    refuse_unread_clips(row, (*EVAL_KEYS, *SEGMENT_KEYS), [audio], "It has one clip, named under 'audio'.")
    return BaseRow(audio, row["prompt"], row["gt"])


def _refuse_trl(row: dict[str, Any]) -> None:
    """Raises PromptError for a row of TRL's forms, which would be taken for a broken evaluation row."""
    found = [key for key in TRL_KEYS if key in row]
    if not {"completion", "chosen", "rejected"} & set(found):
        return
    prompt = "the prompt, as the user's message" if "prompt" in row else "the messages before the two answers"
    answer = "and 'chosen' and 'rejected' beside it" if "completion" not in row else "and the completion after it"
    names = " and ".join(filter(None, (", ".join(map(repr, found[:-1])), repr(found[-1]))))
    raise PromptError(
        f"The row has {names} and no 'messages': a form of TRL, which is not read here. Expected 'messages' with "
        f"{prompt}, {answer}."
    )


def _without_nulls(table: dict[str, Any]) -> dict[str, Any]:
    """Without the nulls that Arrow and other writers put where a row has no value."""
    return {key: value for key, value in table.items() if value is not None}


def _check_row_keys(row: dict[str, Any]) -> None:
    for key, value in row.items():
        if key in CHAT_KEYS or key.endswith(METADATA_SUFFIXES):
            continue
        if key in UNREAD_KEYS and value not in ([], "", {}):
            raise PromptError(f"The row has {key!r}, which is not trained on here; take it out of the row.")
        near = difflib.get_close_matches(key, CHAT_KEYS, n=1, cutoff=0.8)
        if near:  # with "audio" beside "messages", for example, the model would not hear the clip
            raise PromptError(f"The row has the key {key!r}, which nothing reads. Did you mean {near[0]!r}?")


def _check_all_heard(row: dict[str, Any], messages: list[Message]) -> None:
    """Raises PromptError where the row names a sound that no message contains."""
    parts = _parts(messages)
    sources = [part["audio"] for part in parts if "audio" in part]
    spelling = f"Name it under 'audios', with an {TAG} tag in the text, or as a part of the message."
    refuse_unread_clips(row, CHAT_KEYS, sources, spelling)
    if sources:
        return
    texts = [m["content"] for m in messages if isinstance(m["content"], str)] + [
        part["text"] for part in parts if "text" in part
    ]
    if any(TYPED_CLIP in text for text in texts):
        raise PromptError(f"The row has {TYPED_CLIP} typed in its text and no clip, so nothing is heard. {spelling}")


def _cut_segment(row: dict[str, Any], messages: list[Message]) -> None:
    """Apply the row's `offset` and `duration` to its clip. Raises PromptError unless it has exactly one."""
    bounds = {key: row[key] for key in SEGMENT_KEYS if key in row}
    if not bounds:
        return
    parts = [part for part in _parts(messages) if "audio" in part]
    if len(parts) != 1 or isinstance(parts[0]["audio"], Segment):
        raise PromptError(
            f"The row has {next(iter(bounds))!r}, which names a part of its clip, and {len(parts)} clips; expected one "
            'clip, or the key in each clip: {"path": ..., "offset": ..., "duration": ...}.'
        )
    parts[0]["audio"] = segment_of(parts[0]["audio"], bounds, "The row")


def _parts(messages: list[Message]) -> list[dict[str, Any]]:
    return [part for message in messages if not isinstance(message["content"], str) for part in message["content"]]


class _Clips:
    """The clips in the row's `audios`, in the order of the <audio> tags."""

    def __init__(self, row: dict[str, Any], folder: Path) -> None:
        audios = row.get("audios")
        audios = [] if audios is None else audios if isinstance(audios, list) else [audios]
        self.folder = folder
        self.sources = [clip_source(audio, folder, "The row") for audio in audios]
        self.tags = 0

    def next_part(self) -> dict[str, Any]:
        """The part of a message that the next tag stands for."""
        self.tags += 1
        return {"type": "audio", "audio": self.sources[self.tags - 1] if self.tags <= len(self.sources) else None}

    def check_all_used(self) -> None:
        if self.tags != len(self.sources):
            raise PromptError(
                f"The row has {self.tags} {TAG} tag(s) and {len(self.sources)} clip(s) in 'audios'; expected one tag "
                "for each clip."
            )


def _entries(row: dict[str, Any]) -> dict[str, Any]:
    """The conversation's messages as the row has them, the chosen answer at the end, by their names in errors."""
    entries = row.get("messages", row.get("conversations"))
    if not isinstance(entries, list) or not entries:
        raise PromptError(f"The conversation is {_short(entries)}; expected a list of messages.")
    named: dict[str, Any] = {}
    system = row.get("system")
    if system:
        if isinstance(entries[0], dict) and _role(entries[0]) == "system":
            raise PromptError("The row has a 'system' beside a first message that is one; give it once.")
        named["'system'"] = {"role": "system", "content": system}
    named |= {f"Message {number}": entry for number, entry in enumerate(entries, 1)}
    if "chosen" in row:
        named["'chosen'"] = _as_answer(row["chosen"], "chosen")
    return named


def _is_excluded(entry: dict[str, Any], where: str) -> bool:
    """Whether a message is not trained on: OpenAI's `weight` 0, ms-swift's `loss` false. Raises PromptError."""
    for key in ("weight", "loss"):
        if entry.get(key) not in (None, 0, 1):
            raise PromptError(f"{where} has {key} {entry[key]!r}; expected 0 or 1, false or true.")
    return 0 in (entry.get("weight"), entry.get("loss"))


def _rejected(row: dict[str, Any], clips: _Clips) -> Message | None:
    if "rejected" in row and "rejected_response" in row:
        raise PromptError("The row has both 'rejected' and 'rejected_response'; give one of them.")
    if ("rejected" in row) != ("chosen" in row):
        raise PromptError("The row has one of 'chosen' and 'rejected'; a pair needs both.")
    for key in ("rejected", "rejected_response"):
        if key in row:
            return _message(_as_answer(row[key], key), repr(key), clips)
    return None


def _as_answer(value: Any, key: str) -> dict[str, Any]:
    """An answer as a message, from a text, a message, or a list of one message. Raises PromptError."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        value = {"role": "assistant", "content": value}
    if not isinstance(value, dict) or _role(value) != "assistant":
        raise PromptError(f"{key!r} is {_short(value)}; expected the answer as a text, or as an assistant's message.")
    return value


def _message(entry: Any, where: str, clips: _Clips) -> Message:
    if not isinstance(entry, dict):
        raise PromptError(f"{where} is {_short(entry)}; expected an object with 'role' and 'content'.")
    entry = _without_nulls(entry)
    refuse_unknown(entry, MESSAGE_KEYS, PromptError, f"{where} has the key", ", which nothing here reads.")
    for name, alias in (("role", "from"), ("content", "value")):
        if (name in entry) == (alias in entry):
            which = "both" if name in entry else "neither"
            raise PromptError(f"{where} has {which} of {name!r} and {alias!r}; expected one of them.")
    role = _role(entry)
    if role is None:
        value = entry.get("role", entry.get("from"))
        raise PromptError(f"{where} has the role {_short(value)}; expected one of {', '.join(ROLES)}.")
    content = entry.get("content", entry.get("value"))
    if isinstance(content, str):
        return {"role": role, "content": _split_at_tags(content, role, where, clips)}
    if not isinstance(content, list) or not content:
        raise PromptError(f"{where} has {_short(content)} as its content; expected a text or a list of parts.")
    parts = [_part(part, f"{where}, part {n}", clips.folder) for n, part in enumerate(content, 1)]
    if role == "assistant" and any("audio" in part for part in parts):
        raise PromptError(f"{where} is an answer with a clip in it; the model answers in text.")
    return {"role": role, "content": parts}


def _role(entry: dict[str, Any]) -> str | None:
    """Our name of the entry's role, None where it has none that is known."""
    role = entry.get("role") or entry.get("from")
    return ROLES.get(role) if isinstance(role, str) else None


def _split_at_tags(text: str, role: str, where: str, clips: _Clips) -> str | list[dict[str, Any]]:
    if TAG not in text:
        return text
    if role == "assistant":
        raise PromptError(f"{where} is an answer with an {TAG} tag in it; the model answers in text.")
    parts: list[dict[str, Any]] = []
    for stretch in re.split(f"({TAG}\n?)", text):  # the chat template adds the line end after a clip itself
        if stretch.startswith(TAG):
            parts.append(clips.next_part())
        elif stretch:
            parts.append({"type": "text", "text": stretch})
    return parts


def _part(part: Any, where: str, folder: Path) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise PromptError(f"{where} is {_short(part)}; expected an object with 'text' or a clip.")
    part = _without_nulls(part)
    refuse_unknown(part, PART_KEYS, PromptError, f"{where} has the key", ", which nothing here reads.")
    clip_keys = [key for key in CLIP_KEYS if key in part]
    if len(clip_keys) + ("text" in part) != 1:
        raise PromptError(f"{where} has the keys {sorted(part)}; expected either 'text' or one clip.")
    if clip_keys:
        bounds = {key: part[key] for key in SEGMENT_KEYS if key in part}
        return {"type": "audio", "audio": clip_source(part[clip_keys[0]], folder, where, bounds)}
    if not isinstance(part["text"], str) or part.get("type", "text") != "text":
        raise PromptError(f"{where} is of type {part.get('type')!r} with {_short(part['text'])}; expected a text.")
    return {"type": "text", "text": part["text"]}


def _check_order(messages: dict[str, Message]) -> None:
    """Raises PromptError unless there is at most one system message, at the start, then user and assistant take turns,
    and the assistant is last."""
    turns = [(where, message["role"]) for where, message in messages.items()]
    if turns[0][1] == "system":
        del turns[0]
    for (where, role), expected in zip(turns, _alternating(), strict=False):
        if role != expected and where == "'chosen'":
            raise PromptError("'chosen' comes after an answer; expected the messages before it to end with the user's.")
        if role != expected:
            raise PromptError(f"{where} is the {role}'s, expected the {expected}'s; they take turns.")
    if not turns or turns[-1][1] != "assistant":
        raise PromptError("The conversation does not end in an answer; expected an assistant's message at its end.")


def _alternating() -> Iterator[str]:
    while True:
        yield "user"
        yield "assistant"


def answer_text(message: Message) -> str:
    """The text of an assistant's message."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _check_answers(messages: dict[str, Message]) -> None:
    for where, message in messages.items():
        if message["role"] == "assistant" and not answer_text(message).strip():
            raise PromptError(f"{where} is an empty answer; the model would learn to say nothing.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
