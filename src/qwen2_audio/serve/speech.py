"""What a transcription asks the model, with the request's field in errors."""

from __future__ import annotations

from ..errors import ConfigError
from ..longform import wording
from ..longform.word_times import WordTimer
from .errors import ApiError

UNKNOWN = "unknown"  # language in verbose_json where neither the request, the answer nor the transcript tells


def language_of(code: str | None, param: str = "language") -> str | None:
    """As `wording.language_of`. ApiError for an unknown language."""
    try:
        return wording.language_of(code, param)
    except ConfigError as error:
        raise ApiError(str(error), param=param) from error


def check_aligner(aligner: WordTimer) -> None:
    """ApiError where the checkpoint cannot tell when words are said."""
    try:
        aligner.ensure_available()
    except ConfigError as error:
        raise ApiError(str(error), param="timestamp_granularities", code="unsupported_value") from error


def question(*, to: str | None, language: str | None, prompt: str | None, base: bool) -> str:
    """The text that the checkpoint is asked. ApiError for a hint that a base checkpoint does not take."""
    try:
        return (wording.base_instruction if base else wording.instruction)(to=to, language=language, prompt=prompt)
    except ConfigError as error:
        raise ApiError(str(error), param="prompt", code="unsupported_value") from error
