"""Rows of Kaldi's data folders: wav.scp, with text (or trans.txt), segments and utt2spk where they are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from .lines import numbered_lines

_TEXTS = ("text", "trans.txt", "text.txt")


def read_kaldi(scp: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The utterances of a wav.scp: columns id, audio, text, speaker, offset, duration as the files beside it give them.

    The texts of one folder are held in memory. Raises DatasetError with file and line, also for a command in place of
    a file: commands are never run.
    """
    folder = scp.parent
    texts = next((_pairs(folder / name) for name in _TEXTS if (folder / name).is_file()), {})
    speakers = _pairs(folder / "utt2spk") if (folder / "utt2spk").is_file() else {}
    segments = folder / "segments"
    if not segments.is_file():
        for key, path, where in _entries(scp):
            yield _row(key, path, texts, speakers), where
        return
    recordings = {key: path for key, path, _ in _entries(scp)}
    for number, line in numbered_lines(segments):
        if not line.strip():
            continue
        where = f"segments, line {number}"
        fields = line.split()
        try:
            key, recording, start, end = fields[0], fields[1], float(fields[2]), float(fields[3])
        except (ValueError, IndexError):
            raise DatasetError(f"{where} is {line[:60]!r}; expected utterance, recording, start and end.") from None
        if recording not in recordings:
            raise DatasetError(f"{where} names the recording {recording!r}, which {scp.name} does not have.")
        if not end > start >= 0:
            raise DatasetError(
                f"{where} ends at {end:g} s and begins at {start:g} s; expected a part of its recording."
            )
        part = {"offset": start, "duration": end - start}
        yield _row(key, recordings[recording], texts, speakers) | part, where


def _row(key: str, path: str, texts: dict[str, str], speakers: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": key, "audio": path}
    if key in texts:
        row["text"] = texts[key]
    if key in speakers:
        row["speaker"] = speakers[key]
    return row


def _entries(scp: Path) -> Iterator[tuple[str, str, str]]:
    for number, line in numbered_lines(scp):
        if not line.strip():
            continue
        where = f"{scp.name}, line {number}"
        key, *rest = line.split(maxsplit=1)
        if not rest:
            raise DatasetError(f"{where} is {line[:60]!r}; expected an utterance's name and a file.")
        path = rest[0].strip()
        if path.endswith("|"):
            raise DatasetError(
                f"{where} is a command; commands are not run here. Write its sound to a file and name that."
            )
        yield key, path, where


def _pairs(path: Path) -> dict[str, str]:
    """First word of a line -> the rest of it."""
    pairs = {}
    for _, line in numbered_lines(path):
        key, *rest = line.split(maxsplit=1)[:2] or [""]
        if key:
            pairs[key] = rest[0].strip() if rest else ""
    return pairs
