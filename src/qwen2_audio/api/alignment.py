"""`m.align`: times of a text that is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..audio.io import name_of
from ..errors import ConfigError
from ..longform.speakers import Speakers, label_transcript
from ..longform.transcribe import Listening
from ..longform.transcript import Transcript
from ..longform.word_times_known import align
from .service import Service


def run(
    service: Service, audio: Any, text: str, listening: Listening, speakers: str | Path | None = None
) -> Transcript:
    """As `AudioChat.align`."""
    if not isinstance(text, str):
        raise ConfigError(f"align() got {type(text).__name__} as text; expected what is said in the sound, a str.")
    known = None if speakers is None else Speakers.read(speakers)
    name = name_of(audio) or "Sound 1"
    turns = None if known is None else known.turns_of(name, alone=True)  # before anything is computed
    talk = align(service.aligner, audio, name, text, service.transcription, listening)
    return talk if known is None or turns is None else label_transcript(talk, known)
