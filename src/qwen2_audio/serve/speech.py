"""Transcription and translation as questions to a model that chats: what it is asked, and the words out of its answer.

Qwen2-Audio-7B-Instruct likes to answer "The original content of this audio is: '...'": only what it quotes is wanted.
"""

from __future__ import annotations

import re

from .errors import ApiError

LANGUAGES = {
    "ar": "Arabic", "yue": "Cantonese", "zh": "Chinese", "cs": "Czech", "nl": "Dutch", "en": "English",
    "fi": "Finnish", "fr": "French", "de": "German", "el": "Greek", "hi": "Hindi", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "ms": "Malay", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "es": "Spanish", "sv": "Swedish", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian",
    "vi": "Vietnamese",
}  # fmt: skip
TRANSCRIBE, TRANSLATE = "Transcribe the speech.", "Translate the speech into English."
UNKNOWN = "unknown"  # what verbose_json calls a language that nobody named: the model does not tell
_LEADS = tuple(
    f"the {kind}content of this {sound} is"
    for kind in ("original ", "")
    for sound in ("audio", "recording", "speech", "clip")
)
_QUOTES = {"'": "'", '"': '"', "‘": "’", "“": "”"}
_WRAPPED = re.compile(rf"""(?:{"|".join(_LEADS)}):?\s*(['"‘“])""", re.IGNORECASE)


def language_of(code: str | None) -> str | None:
    """The English name of the language with the ISO 639 code `code`. ApiError for one that is not known."""
    if code is None:
        return None
    name = LANGUAGES.get(code.lower().partition("-")[0])
    if name is None:
        known = ", ".join(sorted(LANGUAGES))
        raise ApiError(f"language is {code[:40]!r}; expected one of {known}.", param="language")
    return name


def instruction(*, translate: bool, language: str | None, prompt: str | None) -> str:
    """What the model is asked about the clip."""
    asked = TRANSLATE if translate else TRANSCRIBE
    if language is not None:
        asked += f" It is in {language}."
    return asked if not prompt else f"{asked} Context: {prompt}"


class Unquote:
    """Takes "The original content of this audio is: '...'" off an answer that arrives in pieces; others stay."""

    def __init__(self) -> None:
        self._held = ""  # not told yet
        self._close: str | None = None  # the quote that ends it
        self._decided = False

    def push(self, text: str, *, last: bool = False) -> str:
        """What `text` adds to the transcript; with `last`, all that is left."""
        self._held += text
        if not self._decided:
            found = _WRAPPED.match(self._held.lstrip())
            if found is None and not last and _may_lead(self._held.lstrip()):
                return ""
            self._decided = True
            self._held = self._held.lstrip()
            if found is not None:
                self._close = _QUOTES[found[1]]
                self._held = self._held[found.end() :]
        told, self._held = self._split(last)
        return told

    def _split(self, last: bool) -> tuple[str, str]:
        """What can be told now, and what may turn out to be the end of the quotation."""
        if self._close is None:
            end = len(self._held.rstrip())
            return (self._held[:end], "") if last else (self._held[:end], self._held[end:])
        if last:
            return re.sub(rf"{self._close}\s*\.?\s*$", "", self._held).rstrip(), ""
        end = len(self._held.rstrip(f"{self._close}. \n"))
        return self._held[:end], self._held[end:]


def _may_lead(text: str) -> bool:
    """Whether more text could make a lead of this."""
    begun = text.lower()
    return any(
        lead.startswith(begun) or (begun.startswith(lead) and not begun[len(lead) :].strip(": \n")) for lead in _LEADS
    )
