"""Rows of lhotse's manifests: cuts, or recordings with supervisions; JSON lines, compressed by gzip or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from .lines import read_json

_COPIED = ("speaker", "language", "gender")


def is_cut(row: Mapping[str, Any]) -> bool:
    """Whether a line of JSON is a cut of lhotse."""
    return "recording" in row and "start" in row and "duration" in row


def read_cuts(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """One row a cut: columns id, audio, offset, duration, text (of its supervisions, in order), speaker, language."""
    for cut, where in read_json(path):
        if not is_cut(cut) or not isinstance(cut["recording"], Mapping):
            raise DatasetError(f"{where} is no cut of one recording; expected the keys recording, start and duration.")
        said = [s for s in cut.get("supervisions") or [] if isinstance(s, Mapping)]
        said.sort(key=lambda supervision: _seconds(supervision, "start", where))
        row = {"id": cut.get("id"), "audio": _source(cut["recording"], cut.get("channel"), where)}
        row |= _part(cut, cut["recording"], where)
        if said:
            row["text"] = " ".join(str(supervision.get("text") or "") for supervision in said).strip()
            row |= {key: said[0][key] for key in _COPIED if said[0].get(key)}
        yield row, where


def read_supervisions(recordings: Path, supervisions: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """One row a supervision, as `read_cuts`. The recordings' manifest is held in memory."""
    known = {recording.get("id"): recording for recording, _ in read_json(recordings)}
    for said, where in read_json(supervisions):
        recording = known.get(said.get("recording_id"))
        if recording is None:
            raise DatasetError(
                f"{where} names the recording {said.get('recording_id')!r}, which {recordings.name} does not have."
            )
        row = {"id": said.get("id"), "audio": _source(recording, said.get("channel"), where)}
        row |= _part(said, recording, where) if "duration" in said else {}
        row["text"] = said.get("text") or ""
        yield row | {key: said[key] for key in _COPIED if said.get(key)}, where


def _source(recording: Mapping[str, Any], channel: Any, where: str) -> str:
    """The file or URL of a recording. Raises DatasetError for a command, several files, and one channel of several."""
    sources = recording.get("sources") or []
    if len(sources) != 1 or not isinstance(sources[0], Mapping):
        raise DatasetError(f"{where}: the recording has {len(sources)} sources; expected one file.")
    source = sources[0]
    if source.get("type") not in ("file", "url"):
        raise DatasetError(f"{where}: the recording is of type {source.get('type')!r}; expected a file or a URL.")
    channels = source.get("channels") or [0]
    chosen = channel if isinstance(channel, list) else [0 if channel is None else channel]
    if len(channels) > 1 and sorted(chosen) != sorted(channels):
        raise DatasetError(
            f"{where}: channel {chosen} of a recording with {len(channels)}; all are heard together. Split the file."
        )
    return str(source.get("source"))


def _part(row: Mapping[str, Any], recording: Mapping[str, Any], where: str) -> dict[str, float]:
    """The columns offset and duration; none where all of the recording is meant."""
    start, duration = _seconds(row, "start", where), _seconds(row, "duration", where)
    whole = _seconds(recording, "duration", where) or duration
    return {} if start == 0 and abs(duration - whole) < 0.001 else {"offset": start, "duration": duration}


def _seconds(row: Mapping[str, Any], name: str, where: str) -> float:
    value = row.get(name) or 0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DatasetError(f"{where}: {name} is {value!r}; expected seconds.")
    return float(value)
