"""Transcription and translation: what a checkpoint is asked, and the extraction of the transcript from its answer.

Qwen2-Audio-7B-Instruct often answers "The original content of this audio is: '...'"; the transcript is the quoted text.
"""

from __future__ import annotations

import re

from ..errors import ConfigError

LANGUAGES = {
    "ar": "Arabic", "yue": "Cantonese", "zh": "Chinese", "cs": "Czech", "nl": "Dutch", "en": "English",
    "fi": "Finnish", "fr": "French", "de": "German", "el": "Greek", "hi": "Hindi", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "ms": "Malay", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "es": "Spanish", "sv": "Swedish", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian",
    "vi": "Vietnamese",
}  # fmt: skip
TRANSCRIBE = "Transcribe the speech."
ENGLISH = "English"
TRANSLATE = "Write down the {to} translation of what is said."  # "Translate the speech" had nano answer questions
RECOGNIZE = "Detect the language and recognize the speech:"  # the official prompts of base checkpoints
RECOGNIZE_AND_TRANSLATE = "Detect the language and translate the speech into {to}:"
OFFICIAL_NAMES = {"Chinese": "Mandarin"}  # where the official prompts have another name
_ALIASES = {"mandarin": "zh", "castilian": "es", "flemish": "nl"}  # Whisper's, beside the names
_CODES = {name.lower(): code for code, name in LANGUAGES.items()} | _ALIASES
_LEADS = tuple(
    f"the {kind}content of this {sound} is"
    for kind in ("original ", "")
    for sound in ("audio", "recording", "speech", "clip")
)
_CLOSING_QUOTES = {"'": "'", '"': '"', "‘": "’", "“": "”"}
_TAG = re.compile(r"\s*<\|([a-z]{2,3})\|>\s*")  # the language that a base checkpoint detects
_TAG_START = re.compile(r"<(\|([a-z]{0,3}(\|(>\s*)?)?)?)?")  # text that may become a tag with words behind it
_FRAME_START = re.compile(rf"""(?:{"|".join(_LEADS)}):?\s*(['"‘“])""", re.IGNORECASE)


def language_of(code: str | None, name: str = "language") -> str | None:
    """The English name of a language: by ISO 639 code, also with a region ("en_US"), or by name ("english").

    None, "" and "auto" name no language. Raises ConfigError, with the option's `name`, for an unknown one.
    """
    plain = (code or "").strip().lower()
    if plain in ("", "auto"):
        return None
    language = LANGUAGES.get(_CODES.get(plain, plain.replace("_", "-").partition("-")[0]))
    if language is None:
        known = ", ".join(sorted(LANGUAGES))
        raise ConfigError(f"{name} is {str(code)[:40]!r}; expected one of {known}.")
    return language


def code_of(language: str | None) -> str | None:
    """The ISO 639 code of a language's English name."""
    return next((code for code, name in LANGUAGES.items() if name == language), None)


def instruction(*, to: str | None, language: str | None, prompt: str | None) -> str:
    """The text that a chat checkpoint is asked about the clip; `to`: the language of a translation.

    Hints come first: after the order, they made models answer the question that is spoken instead of writing it down.
    """
    text = TRANSCRIBE if to is None else TRANSLATE.format(to=to)
    return with_hints(text, language=language, prompt=prompt)


def with_hints(text: str, *, language: str | None, prompt: str | None) -> str:
    """An order to a chat checkpoint, with the language and the context that are known in front."""
    if language is not None:
        text = f"The speech is in {language}. {text}"
    return text if not prompt else f"Context: {prompt}\n{text}"


def base_instruction(*, to: str | None, language: str | None, prompt: str | None) -> str:
    """The official prompt of a base checkpoint. Raises ConfigError for a hint: these were not trained with any."""
    if prompt:
        raise ConfigError("prompt would not help: this base checkpoint knows one wording only; leave it out.")
    text = RECOGNIZE if to is None else RECOGNIZE_AND_TRANSLATE.format(to=OFFICIAL_NAMES.get(to, to))
    code = code_of(language)
    return text if code is None else f"{text} <|{code}|>"


def transcript_of(answer: str) -> tuple[str, str | None]:
    """The transcript in a whole answer, without tag and frame, and the code of the language that a tag names."""
    unquote = Unquote()
    return unquote.push(answer, last=True), unquote.language


class Unquote:
    """Removes the frame "The original content of this audio is: '...'" from a streamed answer, if it has one.

    Attribute: `language`, the ISO 639 code that the answer begins with, as a base checkpoint's does, or None.
    """

    def __init__(self) -> None:
        self.language: str | None = None
        self._pending = ""  # text that was not returned yet
        self._closing_quote: str | None = None  # ends the quoted text; None: the answer has no frame
        self._frame_checked = False

    def push(self, text: str, *, last: bool = False) -> str:
        """What `text` adds to the transcript; with `last`, also all that is still pending."""
        self._pending += text
        if not self._frame_checked:
            opening = _FRAME_START.match(self._pending.lstrip())
            if opening is None and not last and _may_become_lead(self._pending.lstrip()):
                return ""
            self._frame_checked = True
            self._pending = self._pending.lstrip()
            if tag := _TAG.match(self._pending):
                self.language, self._pending = tag[1], self._pending[tag.end() :]
            if opening is not None:
                self._closing_quote = _CLOSING_QUOTES[opening[1]]
                self._pending = self._pending[opening.end() :]
        transcript, self._pending = self._split(last)
        return transcript

    def _split(self, last: bool) -> tuple[str, str]:
        """The part of the pending text to return now, and the part that may be the end of the quotation."""
        if self._closing_quote is None:
            end = len(self._pending.rstrip())
            return (self._pending[:end], "") if last else (self._pending[:end], self._pending[end:])
        if last:
            return re.sub(rf"{self._closing_quote}\s*\.?\s*$", "", self._pending).rstrip(), ""
        end = len(self._pending.rstrip(f"{self._closing_quote}. \n"))
        return self._pending[:end], self._pending[end:]


def _may_become_lead(text: str) -> bool:
    """Whether `text` is the beginning of a tag or of a lead, so that more text has to arrive first."""
    lower = text.lower()
    if _TAG_START.fullmatch(text):
        return True
    return any(
        lead.startswith(lower) or (lower.startswith(lead) and not lower[len(lead) :].strip(": \n")) for lead in _LEADS
    )
