"""The bodies of transcriptions: json, text, srt, vtt, verbose_json, and the events of a stream.

The model hears a clip as a whole and tells no times, so a transcript is one segment from the clip's start to its end.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..types import Completion, FinishReason, Heard, TokenLogprob, Usage
from .answers import FINISH, FLOOR


@dataclass(frozen=True)
class Transcript:
    """What was said in one clip."""

    answer: Completion
    text: str  # the words out of it
    temperature: float

    @property
    def seconds(self) -> float:
        """Of the clip."""
        return sum(clip.seconds for clip in self.answer.heard)


def cut(reason: FinishReason) -> dict[str, str]:
    """Told where the model did not come to an end by itself."""
    return {} if reason == "stop" else {"finish_reason": FINISH[reason]}


def json_body(transcript: Transcript, *, logprobs: bool) -> dict[str, Any]:
    """response_format json."""
    body: dict[str, Any] = {
        "text": transcript.text,
        "usage": usage_body(transcript.answer.usage, transcript.answer.heard),
    }
    body |= cut(transcript.answer.finish_reason)
    return {**body, "logprobs": logprobs_body(transcript.answer.logprobs)} if logprobs else body


def verbose_body(transcript: Transcript, *, task: str, language: str) -> dict[str, Any]:
    """response_format verbose_json. no_speech_prob is 0 always: the model does not tell."""
    text, logprobs = transcript.text, [max(one.logprob, FLOOR) for one in transcript.answer.logprobs]
    segment = {
        "id": 0, "seek": 0, "start": 0.0, "end": transcript.seconds, "text": text,
        "tokens": [one.token for one in transcript.answer.logprobs],
        "temperature": transcript.temperature,
        "avg_logprob": sum(logprobs) / len(logprobs) if logprobs else 0.0,
        "compression_ratio": len(text.encode()) / len(zlib.compress(text.encode())),
        "no_speech_prob": 0.0,
    }  # fmt: skip
    return {
        "task": task, "language": language, "duration": transcript.seconds, "text": text,
        "segments": [segment] if text else [],
        "usage": {"type": "duration", "seconds": transcript.seconds},
        **cut(transcript.answer.finish_reason),
    }  # fmt: skip


def srt(transcript: Transcript) -> str:
    """SubRip."""
    if not transcript.text:
        return ""
    return f"1\n{_clock(0, ',')} --> {_clock(transcript.seconds, ',')}\n{_cue(transcript.text)}\n\n"


def vtt(transcript: Transcript) -> str:
    """WebVTT (W3C)."""
    if not transcript.text:
        return "WEBVTT\n"
    text = _cue(transcript.text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"WEBVTT\n\n{_clock(0, '.')} --> {_clock(transcript.seconds, '.')}\n{text}\n"


def usage_body(usage: Usage, heard: Sequence[Heard]) -> dict[str, Any]:
    """What a transcription cost."""
    return {
        "type": "tokens",
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "input_token_details": {
            "audio_tokens": usage.audio_tokens,
            "text_tokens": usage.prompt_tokens - usage.audio_tokens,
            "cached_tokens": usage.cached_tokens,
        },
        "heard": [{"seconds": round(clip.seconds, 3), "tokens": clip.tokens} for clip in heard],
    }


def logprobs_body(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """include[]=logprobs."""
    return [{"token": one.text, "logprob": max(one.logprob, FLOOR), "bytes": list(one.data)} for one in tokens]


def _cue(text: str) -> str:
    """A subtitle's text: an empty line would end it."""
    return "\n".join(line for line in text.splitlines() if line.strip())


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    return (
        f"{milliseconds // 3_600_000:02}:{milliseconds // 60_000 % 60:02}:{milliseconds // 1000 % 60:02}"
        f"{point}{milliseconds % 1000:03}"
    )
