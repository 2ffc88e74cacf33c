"""Response bodies of transcriptions: json, text, srt, vtt and verbose_json.

The model hears a clip at once and gives no times, so a transcript is one segment from the clip's start to its end.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..types import Completion, FinishReason, Heard, TokenLogprob, Usage
from .answers import MIN_LOGPROB, OPENAI_FINISH_REASON, heard_body


@dataclass(frozen=True)
class Transcript:
    """The transcript of one clip."""

    answer: Completion
    text: str  # the answer's text without the model's frame around it
    temperature: float

    @property
    def seconds(self) -> float:
        """The length of the clip."""
        return sum(clip.seconds for clip in self.answer.heard)


def truncation_fields(reason: FinishReason) -> dict[str, str]:
    """`finish_reason`, if a limit cut the transcript; otherwise nothing."""
    return {} if reason == "stop" else {"finish_reason": OPENAI_FINISH_REASON[reason]}


def json_body(transcript: Transcript, *, logprobs: bool) -> dict[str, Any]:
    """The body of response_format json."""
    body: dict[str, Any] = {
        "text": transcript.text,
        "usage": usage_body(transcript.answer.usage, transcript.answer.heard),
    }
    body |= truncation_fields(transcript.answer.finish_reason)
    return {**body, "logprobs": logprobs_body(transcript.answer.logprobs)} if logprobs else body


def verbose_body(transcript: Transcript, *, task: str, language: str) -> dict[str, Any]:
    """The body of response_format verbose_json. no_speech_prob is always 0, because the model does not give it."""
    text, logprobs = transcript.text, [max(token.logprob, MIN_LOGPROB) for token in transcript.answer.logprobs]
    segment = {
        "id": 0, "seek": 0, "start": 0.0, "end": transcript.seconds, "text": text,
        "tokens": [token.token for token in transcript.answer.logprobs],
        "temperature": transcript.temperature,
        "avg_logprob": sum(logprobs) / len(logprobs) if logprobs else 0.0,
        "compression_ratio": len(text.encode()) / len(zlib.compress(text.encode())),
        "no_speech_prob": 0.0,
    }  # fmt: skip
    return {
        "task": task, "language": language, "duration": transcript.seconds, "text": text,
        "segments": [segment] if text else [],
        "usage": {"type": "duration", "seconds": transcript.seconds},
        **truncation_fields(transcript.answer.finish_reason),
    }  # fmt: skip


def srt(transcript: Transcript) -> str:
    """The transcript as SubRip."""
    if not transcript.text:
        return ""
    return f"1\n{_clock(0, ',')} --> {_clock(transcript.seconds, ',')}\n{_cue(transcript.text)}\n\n"


def vtt(transcript: Transcript) -> str:
    """The transcript as WebVTT (W3C)."""
    if not transcript.text:
        return "WEBVTT\n"
    text = _cue(transcript.text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"WEBVTT\n\n{_clock(0, '.')} --> {_clock(transcript.seconds, '.')}\n{text}\n"


def usage_body(usage: Usage, heard: Sequence[Heard]) -> dict[str, Any]:
    """The `usage` of a transcription."""
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
        "heard": heard_body(heard),
    }


def running_usage(prompt: Usage | None, output: int) -> dict[str, Any]:
    """The `usage` of a transcription so far."""
    tokens = 0 if prompt is None else prompt.prompt_tokens
    return {"type": "tokens", "input_tokens": tokens, "output_tokens": output, "total_tokens": tokens + output}


def logprobs_body(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """The `logprobs` that include[]=logprobs asks for."""
    return [{"token": t.text, "logprob": max(t.logprob, MIN_LOGPROB), "bytes": list(t.data)} for t in tokens]


def _cue(text: str) -> str:
    """The text of a cue, without empty lines, which would end the cue."""
    return "\n".join(line for line in text.splitlines() if line.strip())


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    return (
        f"{milliseconds // 3_600_000:02}:{milliseconds // 60_000 % 60:02}:{milliseconds // 1000 % 60:02}"
        f"{point}{milliseconds % 1000:03}"
    )
