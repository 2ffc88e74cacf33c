"""Transcripts as files: srt, vtt, tsv, txt, lrc, json, verbose_json, TextGrid, ctm; one writer each.

Times are rounded to milliseconds once. A cue ends after it starts, and not after the next one starts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, did_you_mean
from .cues import Cue, CueShape, cues_of
from .transcript import Segment, Transcript, Word

__all__ = ["ENDINGS", "FORMATS", "CueShape", "format_of", "json_object", "verbose_object", "write"]

ENDINGS = {
    "srt": ".srt", "vtt": ".vtt", "tsv": ".tsv", "txt": ".txt", "lrc": ".lrc", "json": ".json",
    "verbose_json": ".verbose.json", "textgrid": ".TextGrid", "ctm": ".ctm",
}  # fmt: skip
_ALL = ("txt", "vtt", "srt", "tsv", "json")  # Whisper's
_MEL_FRAMES = 100  # a second: Whisper's unit of `seek`


def format_of(path: Path) -> str:
    """The format that a file's ending names. Raises ConfigError for another ending."""
    name = path.name.lower()
    for format, ending in sorted(ENDINGS.items(), key=lambda item: -len(item[1])):
        if name.endswith(ending.lower()):
            return format
    raise ConfigError(f"{path} ends in none of {', '.join(ENDINGS.values())}; give a format, as in format='srt'.")


def write(transcript: Transcript, format: str, shape: CueShape | None = None) -> str:
    """The text of a transcript's file. `shape`: how srt and vtt are cut into cues; None: each segment is one.

    Raises ConfigError: an unknown format, or ctm without times of words.
    """
    if format not in FORMATS:
        raise ConfigError(
            f"{format!r} is no format of transcripts; expected one of {', '.join(FORMATS)}."
            f"{did_you_mean(format, list(FORMATS))}"
        )
    return FORMATS[format](transcript, shape)


def _srt(transcript: Transcript, shape: CueShape | None) -> str:
    """SubRip. It knows no escapes: an arrow in a text loses a dash."""
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{_spoken(cue).replace('-->', '->')}\n\n"
        for number, cue in enumerate(cues_of(transcript, shape), 1)
    )


def _vtt(transcript: Transcript, shape: CueShape | None) -> str:
    """WebVTT (W3C)."""
    cues = cues_of(transcript, shape)
    note = "NOTE Some times are estimated, from pauses and the texts' lengths.\n\n"
    parts = ["WEBVTT\n\n", note if any(cue.estimated for cue in cues) else ""]
    for cue in cues:
        voice = "" if cue.speaker is None else f"<v {_escape(' '.join(cue.speaker.split()))}>"
        text = _escape("\n".join(cue.lines))
        parts.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{voice}{text}\n\n")
    return "".join(parts).rstrip("\n") + "\n"


def _tsv(transcript: Transcript, _: CueShape | None) -> str:
    """Whisper's: integer milliseconds."""
    rows = [f"{cue.start}\t{cue.end}\t{' '.join(cue.lines)}\n" for cue in cues_of(transcript, None)]
    return "start\tend\ttext\n" + "".join(rows)


def _txt(transcript: Transcript, _: CueShape | None) -> str:
    return "".join(f"{_spoken(cue, ' ')}\n" for cue in cues_of(transcript, None))


def _lrc(transcript: Transcript, shape: CueShape | None) -> str:
    """Lyrics: minutes, seconds and hundredths. Minutes may exceed 99."""
    lines = []
    for cue in cues_of(transcript, shape):
        hundredths = cue.start // 10
        clock = f"{hundredths // 6000:02}:{hundredths // 100 % 60:02}.{hundredths % 100:02}"
        lines.append(f"[{clock}]{' '.join(cue.lines)}\n")
    return "".join(lines)


def _json(transcript: Transcript, _: CueShape | None) -> str:
    return json.dumps(json_object(transcript), ensure_ascii=False, indent=2) + "\n"


def _verbose_json(transcript: Transcript, _: CueShape | None) -> str:
    return json.dumps(verbose_object(transcript, words=bool(transcript.words)), ensure_ascii=False, indent=2) + "\n"


def _textgrid(transcript: Transcript, _: CueShape | None) -> str:
    """Praat's long form; the intervals of a tier have no holes."""
    end = _milliseconds(transcript.seconds)
    tiers = [("segments", [(cue.start, cue.end, " ".join(cue.lines)) for cue in cues_of(transcript, None)])]
    if words := _timed_words(transcript):
        tiers.append(("words", [(*_span(word), word.text.strip()) for word in words]))
    tiled = [(name, _tile(spans, end)) for name, spans in tiers]
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {_decimal(end)}"]
    lines += ["tiers? <exists>", f"size = {len(tiled)}", "item []:"]
    for number, (name, spans) in enumerate(tiled, 1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {_decimal(end)}", f"        intervals: size = {len(spans)}"]
        for index, (start, stop, text) in enumerate(spans, 1):
            quoted = text.replace('"', '""')
            lines += [f"        intervals [{index}]:", f"            xmin = {_decimal(start)}"]
            lines += [f"            xmax = {_decimal(stop)}", f'            text = "{quoted}"']
    return "\n".join(lines) + "\n"


def _ctm(transcript: Transcript, _: CueShape | None) -> str:
    """NIST's: file, channel, start, duration, word, confidence."""
    if transcript.text and not _timed_words(transcript):
        raise ConfigError("ctm holds a time for each word, and this transcript has none; choose another format.")
    name = "_".join(Path(transcript.name).stem.split()) or "sound"
    lines = []
    for segment in transcript.segments:
        for word in segment.words:
            if word.start is not None and word.end is not None:
                (start, end), text = _span(word), "".join(word.text.split())
                sure = "" if word.confidence is None else f" {word.confidence:.3f}"
                place = f"{name} {(segment.channel or 0) + 1} {_decimal(start)} {_decimal(end - start)}"
                lines.append((start, f"{place} {text}{sure}\n"))
    return "".join(line for _, line in sorted(lines, key=lambda item: item[0]))


FORMATS: dict[str, Callable[[Transcript, CueShape | None], str]] = {
    "srt": _srt, "vtt": _vtt, "tsv": _tsv, "txt": _txt, "lrc": _lrc, "json": _json, "verbose_json": _verbose_json,
    "textgrid": _textgrid, "ctm": _ctm,
}  # fmt: skip


def json_object(transcript: Transcript) -> dict[str, Any]:
    """Whisper's object, and more: what was skipped, notes, and each segment's flags, confidence and raw text."""
    return {
        "text": transcript.text,
        "segments": [_segment(number, segment) for number, segment in enumerate(transcript.segments)],
        "language": transcript.language,
        "task": transcript.task,
        "duration": _rounded(transcript.seconds),
        "skipped": [{"start": _rounded(start), "end": _rounded(end)} for start, end in transcript.skipped],
        "notes": list(transcript.notes),
    }


def verbose_object(transcript: Transcript, *, words: bool = False) -> dict[str, Any]:
    """OpenAI's verbose_json; `words` at its top level only where asked for."""
    timed = _timed_words(transcript)
    return {
        "task": transcript.task,
        "language": transcript.language or "unknown",
        "duration": _rounded(transcript.seconds),
        "text": transcript.text,
        "segments": [  # the client's types have no null; 0 stands for what is not known
            {name: 0.0 if value is None else value for name, value in _whisper_segment(number, segment).items()}
            for number, segment in enumerate(transcript.segments)
        ],
        **({"words": [{"word": w.text.strip(), **_times(w)} for w in timed]} if words else {}),
        "usage": {"type": "duration", "seconds": _rounded(transcript.seconds)},
    }


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    given = {"raw": segment.raw, "channel": segment.channel, "speaker": segment.speaker}
    return {
        **_whisper_segment(number, segment),
        **({"words": [_word(word) for word in segment.words]} if segment.words else {}),
        "language": segment.language,
        "confidence": segment.confidence,
        "flags": list(segment.flags),
        "timing": segment.timing,
        **{name: value for name, value in given.items() if value is not None},
    }


def _whisper_segment(number: int, segment: Segment) -> dict[str, Any]:
    return {
        "id": number,
        "seek": round(segment.start * _MEL_FRAMES),
        "start": _rounded(segment.start),
        "end": _rounded(segment.end),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    }


def _word(word: Word) -> dict[str, Any]:
    speaker = {} if word.speaker is None else {"speaker": word.speaker}
    return {"word": word.text, **_times(word), "probability": word.confidence, **speaker}


def _times(word: Word) -> dict[str, float | None]:
    return {
        "start": None if word.start is None else _rounded(word.start),
        "end": None if word.end is None else _rounded(word.end),
    }


def _timed_words(transcript: Transcript) -> list[Word]:
    return [word for word in transcript.words if word.start is not None and word.end is not None]


def _span(word: Word) -> tuple[int, int]:
    assert word.start is not None and word.end is not None
    start = _milliseconds(word.start)
    return start, max(start + 1, _milliseconds(word.end))


def _tile(spans: Iterable[tuple[int, int, str]], end: int) -> list[tuple[int, int, str]]:
    """Spans without overlap, with empty ones in the holes between 0 and `end`."""
    tiled: list[tuple[int, int, str]] = []
    position = 0
    for start, stop, text in sorted(spans):
        start, stop = max(start, position), min(stop, end)
        if stop <= start:
            continue
        if start > position:
            tiled.append((position, start, ""))
        tiled.append((start, stop, text))
        position = stop
    return [*tiled, (position, end, "")] if position < end else tiled


def _spoken(cue: Cue, separator: str = "\n") -> str:
    text = separator.join(cue.lines)
    return text if cue.speaker is None else f"{cue.speaker}: {text}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _rounded(seconds: float) -> float:
    return round(seconds, 3)


def _decimal(milliseconds: int) -> str:
    return f"{milliseconds // 1000}.{milliseconds % 1000:03}"


def _clock(milliseconds: int, point: str) -> str:
    hours, rest = divmod(milliseconds, 3_600_000)
    return f"{hours:02}:{rest // 60_000:02}:{rest // 1000 % 60:02}{point}{rest % 1000:03}"


def formats_of(names: Sequence[str]) -> list[str]:
    """Formats by name, "all" for all of Whisper's. Raises ConfigError for an unknown one."""
    wanted = [name.strip().lower() for item in names for name in item.split(",") if name.strip()]
    wanted = [format for name in wanted for format in (_ALL if name == "all" else (name,))]
    for name in wanted:
        if name not in FORMATS:
            raise ConfigError(
                f"{name!r} is no format of transcripts; expected all, or some of {', '.join(FORMATS)}."
                f"{did_you_mean(name, list(FORMATS))}"
            )
    return list(dict.fromkeys(wanted))
