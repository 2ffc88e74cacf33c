"""What the columns of a row are called in other people's files, and what of them is a sound, a text or an id."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from ..errors import DatasetError, did_you_mean
from .paths import SoundFinder
from .row import EmbeddedSound, Sound

# Names in the order they are looked for, small letters: of the official lists, NeMo, open_asr, Kimi, UltraEval,
# ms-swift, Common Voice, and the audio folders of Hugging Face's datasets.
SOUND = (
    "audio", "audio_path", "audio_filepath", "audio_file", "audio_filename", "wavpath", "wav_path", "wav", "audios",
    "path", "file", "file_name", "filename", "audio_id", "sound", "clip", "audio_url", "url",
)  # fmt: skip
TEXT = (
    "text",
    "sentence",
    "normalized_text",
    "transcript",
    "transcription",
    "gt",
    "reference",
    "ref",
    "target",
    "answer",
)
QUESTION = ("question", "query", "instruction", "questions", "prompt")
ANSWER = ("answer", "gt", "reference", "answer_gt", "target", "answers", "text")
ID = ("id", "key", "utt", "utt_id", "uid", "uniq_id", "uuid", "index", "idx")
SPEAKER = ("speaker", "speaker_id", "spk_id", "spk", "client_id")
PLACE = ("offset", "duration")
CONVERSATION = ("messages", "conversations")
_AUDIO_TAGS = ("<audio>", "<|audio_bos|><|AUDIO|><|audio_eos|>", "<|AUDIO|>")


def first(columns: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The first value of `names` that is neither null nor empty, whatever its name's case; None: there is none."""
    name = first_name(columns, names)
    return None if name is None else columns[name]


def first_name(columns: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The column's own name where `first` finds a value."""
    lower: dict[str, str] | None = None
    for name in names:
        if columns.get(name) not in (None, "", [], {}):
            return name
        if lower is None:
            lower = {key.lower(): key for key in columns if not key.islower()}
        own = lower.get(name)
        if own is not None and columns[own] not in (None, "", [], {}):
            return own
    return None


def has_any(columns: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Whether there is a column of one of `names`, though it be empty."""
    lower = {key.lower() for key in columns}
    return any(name in lower for name in names)


def speaker_of(columns: Mapping[str, Any]) -> str:
    """Who speaks, "" where no column says so."""
    value = first(columns, SPEAKER)
    return "" if value is None else str(value)


def as_list(value: Any) -> list[Any]:
    """A list from a column that holds one, or its JSON, as tables without lists have it."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = json.loads(value)
        except ValueError:
            return [value]
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def spoken_turns(columns: Mapping[str, Any], where: str) -> tuple[str, str | None]:
    """The question and the answer of a conversation (ms-swift, LLaMA-Factory, our training rows), without clips.

    The question is the last user's message, the answer the assistant's after it, None where there is none.
    """
    entries = first(columns, CONVERSATION)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DatasetError(f"{where}: the conversation is {_short(entries)}; expected a list of messages.")
    texts = [
        (entry.get("role", entry.get("from")), _text(entry.get("content", entry.get("value")))) for entry in entries
    ]
    users = [index for index, (role, _) in enumerate(texts) if role in ("user", "human")]
    if not users:
        raise DatasetError(f"{where}: the conversation has no user's message; expected a question.")
    after = [text for role, text in texts[users[-1] + 1 :] if role in ("assistant", "gpt")]
    return texts[users[-1]][1], after[0] if after else None


def _text(content: Any) -> str:
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    text = content if isinstance(content, str) else ""
    for tag in _AUDIO_TAGS:
        text = text.replace(f"{tag}\n", "").replace(tag, "")
    return text.strip("\n")


def sound_value(columns: Mapping[str, Any], where: str) -> Any:
    """The column that names the row's sound, as it is, or the clip in its conversation; None: there is none."""
    value = first(columns, SOUND)
    if value is None and has_any(columns, CONVERSATION):
        clips = list(_clips(first(columns, CONVERSATION)))
        if len(clips) > 1:
            raise DatasetError(f"{where}: the row has {len(clips)} clips; expected one.")
        value = clips[0] if clips else None
    if isinstance(value, list):
        if len(value) != 1:
            raise DatasetError(f"{where}: the row has {len(value)} clips; expected one.")
        value = value[0]
    return value


def _clips(entries: Any) -> Iterable[Any]:
    for entry in entries if isinstance(entries, list) else []:
        content = entry.get("content") if isinstance(entry, dict) else None
        for part in content if isinstance(content, list) else []:
            if isinstance(part, dict):
                value = first(part, ("audio", "audio_url", "input_audio", "path", "url"))
                if value is not None:
                    yield value


def sound_of(columns: Mapping[str, Any], finder: SoundFinder, where: str) -> Sound | None:
    """The row's sound, found below the finder's folders; None where no column names one. Raises DatasetError."""
    value = sound_value(columns, where)
    if value is None:
        return None
    place = {name: first(columns, (name,)) for name in PLACE}
    if isinstance(value, dict):
        place |= {name: value[name] for name in PLACE if value.get(name) is not None}
    offset = _seconds(place["offset"], "offset", where)
    if offset is None and not isinstance(place["duration"], int | float):  # "00:04": a description, no part of a clip
        place["duration"] = None
    duration = _seconds(place["duration"], "duration", where)
    return Sound(_source(value, finder, where), offset or 0.0, duration or None)


def _source(value: Any, finder: SoundFinder, where: str) -> str | EmbeddedSound:
    if isinstance(value, dict):
        encoded = value.get("bytes") or value.get("data")
        path = value.get("path") or value.get("url")
        if isinstance(encoded, str):
            return _from_base64(encoded, str(path or where), where)
        if "array" in value and not path:
            raise DatasetError(f"{where}: the clip is a list of samples; expected a path, a URL, or base64 in 'bytes'.")
        value = path
    if not isinstance(value, str) or not value:
        raise DatasetError(f"{where}: the clip is {_short(value)}; expected a path, a URL, or base64 in 'bytes'.")
    return finder.find(value)


def _from_base64(text: str, name: str, where: str) -> EmbeddedSound:
    return EmbeddedSound(name, partial(_decode_base64, text, where))


def _decode_base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DatasetError(f"{where}: the clip's 'bytes' are not base64: {error}.") from error


def _seconds(value: Any, name: str, where: str) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if isinstance(value, bool) or not 0 <= seconds < float("inf"):
        raise DatasetError(f"{where}: {name} is {_short(value)}; expected seconds, a number of 0 or more.")
    return seconds


def without_sounds(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns as JSON can hold them, encoded sounds left out: what is kept beside an answer is small."""
    return {str(name): _plain(value) for name, value in columns.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)  # NaN is a table's word for a value that is missing
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        is_sound = value and set(value) <= {"bytes", "path", "array", "sampling_rate"}
        return value.get("path") if is_sound else {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, bytes) else str(value)  # a date, a decimal


def no_sound(columns: Mapping[str, Any], where: str) -> DatasetError:
    """The error of a row whose columns name no sound."""
    if empty := [str(name) for name in columns if str(name).lower() in SOUND]:
        return DatasetError(f"{where}: the column {empty[0]!r} is empty; expected a path, a URL, or base64 in 'bytes'.")
    names = ", ".join(map(str, columns)) or "none"
    near = next((hint for name in columns if (hint := did_you_mean(str(name).lower(), SOUND))), "")
    return DatasetError(
        f"{where}: no column names a sound; expected one of {', '.join(SOUND[:5])}; found {names}.{near}"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
