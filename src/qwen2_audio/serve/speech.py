"""What a transcription asks the model, with the request's field in errors."""

from __future__ import annotations

from ..errors import ConfigError
from ..longform import wording
from .errors import ApiError


def language_of(code: str | None) -> str | None:
    """As `wording.language_of`. ApiError for an unknown language."""
    try:
        return wording.language_of(code)
    except ConfigError as error:
        raise ApiError(str(error), param="language") from error


def question(*, translate: bool, language: str | None, prompt: str | None, base: bool) -> str:
    """The text that the checkpoint is asked. ApiError for a hint that a base checkpoint does not take."""
    word = wording.base_instruction if base else wording.instruction
    try:
        return word(to="English" if translate else None, language=language, prompt=prompt)
    except ConfigError as error:
        raise ApiError(str(error), param="prompt", code="unsupported_value") from error
