"""Which clip an entry of a data row names, and which part of it; entries that name one without being read are found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..audio.fetch import decode_base64
from ..audio.io import local_path
from ..audio.limits import LONGEST_PATH
from ..errors import AudioError, PromptError, refuse_unknown

SOURCE_KEYS = ("path", "url", "bytes", "data", "array", "sampling_rate", "format", "offset", "duration")
SEGMENT_KEYS = ("offset", "duration")
# Other programs' names of a segment's bounds; they are refused, as some of them count samples or milliseconds.
OTHER_SEGMENT_KEYS = ("start", "end", "begin", "start_time", "end_time", "begin_time", "onset", "offset_ms", "segment")
_SOUND_FILE = re.compile(
    r"\.(wav|wave|flac|mp3|ogg|oga|opus|m4a|aac|aif|aiff|au|caf|wma|webm|w64|amr|sph|mp4|mkv|mov)$", re.IGNORECASE
)
_NAMES = ("id", "key", "utt", "utt_id", "name", "idx", "index", "uid", "uuid")  # of a row: often the file's name


@dataclass(frozen=True)
class Segment:
    """A part of a clip: `seconds` from `offset` on; None: up to its end."""

    source: Any  # Path, bytes, str, or (samples, rate)
    offset: float = 0.0  # s
    seconds: float | None = None


def clip_source(value: Any, folder: Path, where: str, segment: dict[str, Any] | None = None) -> Any:
    """A clip as `clips.read_clip` takes it: a path, an http(s) URL or data: URI, bytes, (samples, rate), or a Segment.

    segment: `offset` and `duration` that stand beside the clip. Raises PromptError.
    """
    bounds = {key: value for key, value in (segment or {}).items() if value is not None}
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if item is not None}
        refuse_unknown(
            value, SOURCE_KEYS, PromptError, f"{where} names a clip with the key", ", which is not read here."
        )
        twice = sorted(set(bounds) & set(value))
        if twice:
            raise PromptError(f"{where} has {twice[0]!r} beside a clip and in it; give it once.")
        bounds |= {key: value[key] for key in SEGMENT_KEYS if key in value}
    source = _whole_clip(value, folder, where)
    return segment_of(source, bounds, where) if bounds else source


def segment_of(source: Any, bounds: dict[str, Any], where: str) -> Segment:
    """The part of `source` that `offset` and `duration` of `bounds` name. Raises PromptError."""
    offset, seconds = (_seconds(bounds.get(key), key, where) for key in SEGMENT_KEYS)
    if seconds == 0:
        raise PromptError(f"{where} has a duration of 0 s; expected more, or no 'duration'.")
    return Segment(source, offset or 0.0, seconds)


def _seconds(value: Any, key: str, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise PromptError(f"{where} has {key} {_short(value)}; expected seconds, a number of 0 or more.")
    return float(value)


def _whole_clip(value: Any, folder: Path, where: str) -> Any:
    if isinstance(value, dict):
        if "array" in value:
            return _samples(value, where)
        encoded = value.get("bytes") or value.get("data")
        if isinstance(encoded, str):
            return _from_base64(encoded, where)
        value = value.get("url") or value.get("path")
    if not isinstance(value, str) or not value:
        raise PromptError(f"{where} names a clip by {_short(value)}; expected a path, a URL, or base64 in 'bytes'.")
    if value[:7].lower() == "file://":
        try:
            return Path(local_path(value))
        except AudioError as error:  # on another host
            raise PromptError(f"{where} names a clip that is not here: {error}") from error
        except ValueError as error:
            raise PromptError(f"{where} names a clip by {_short(value)}, which is no URL: {error}.") from error
    if re.match(r"(data:|https?://)", value, flags=re.IGNORECASE):
        return value
    if len(value) > LONGEST_PATH:  # no path: a sound in base64
        return _from_base64(value, where)
    return folder / value


def _samples(value: dict[str, Any], where: str) -> tuple[list[Any], Any]:
    """Samples as the audio column of `datasets` holds them. Raises PromptError."""
    if not isinstance(value["array"], list) or not value["array"]:
        raise PromptError(f"{where} has the array {_short(value['array'])}; expected a list of samples.")
    if "sampling_rate" not in value:
        raise PromptError(f"{where} has an array without its 'sampling_rate' in Hz.")
    return value["array"], value["sampling_rate"]


def _from_base64(text: str, where: str) -> bytes:
    try:
        return decode_base64(text)
    except ValueError as error:  # not ASCII, or not base64
        raise PromptError(f"{where} holds a clip that is not base64: {error}.") from error


def refuse_unread_clips(row: dict[str, Any], read_keys: tuple[str, ...], clips: list[Any], spelling: str) -> None:
    """Raises PromptError for a key of `row` that names a sound, is none of `read_keys`, and is not of `clips`.

    spelling: how the sound should have been named.
    """
    names = {_file_name(clip) for clip in clips}
    for key, value in row.items():
        if key in read_keys:
            continue
        if clips and key in OTHER_SEGMENT_KEYS and value not in ("", []):
            raise PromptError(
                f"The row has the key {key!r}, which is not read here. A part of a clip is named by 'offset' and "
                "'duration', in seconds."
            )
        sounds = [name for name in _sound_names(value) if name not in names]
        if sounds and not (clips and key.lower() in _NAMES):
            raise PromptError(
                f"The row names a sound under {key!r} ({_short(sounds[0])}), which nothing reads: the model would not "
                f"hear it. {spelling}"
            )


def _sound_names(value: Any) -> list[str]:
    """The file names (or kinds) of the sounds that `value` stands for; [] where it is no sound."""
    if isinstance(value, list):
        return [name for item in value[:8] for name in _sound_names(item)]
    if isinstance(value, dict):
        if "array" in value and "sampling_rate" in value:
            return ["an array of samples"]
        return [name for key in ("path", "url", "bytes") for name in _sound_names(value.get(key))]
    if not isinstance(value, str) or "\n" in value or len(value) > LONGEST_PATH:
        return ["a data: URI"] if isinstance(value, str) and value[:11].lower() == "data:audio/" else []
    if value[:11].lower() == "data:audio/":
        return ["a data: URI"]
    path = value.partition("?")[0]
    return [_base_name(path)] if _SOUND_FILE.search(path) else []


def _file_name(clip: Any) -> str:
    clip = clip.source if isinstance(clip, Segment) else clip
    return _base_name(str(clip).partition("?")[0]) if isinstance(clip, str | Path) else ""


def _base_name(path: str) -> str:
    return re.split(r"[/\\#]", path)[-1]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
