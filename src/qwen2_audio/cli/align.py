"""`qwen2-audio align`: when the words of a text that is known are said in a sound."""

from __future__ import annotations

import json as json_lines
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from . import terminal, transcribe
from .sound_files import Sound, sounds_of
from .sound_progress import SoundProgress
from .terminal import note
from .transcription import check_aligner, turns_of

if TYPE_CHECKING:
    from ..api.chat import AudioChat
    from ..longform.transcript import Transcript

FAILED = 1  # exit status: some words were not found
_SUBTITLES = (".srt", ".vtt", ".json", ".tsv", ".ctm", ".textgrid")

Text = Annotated[str, typer.Argument(help="What is said, a file that holds it, or - for stdin.", show_default=False)]
Format = Annotated[
    str | None,
    typer.Option("--format", "-f", help="ctm (default), srt, vtt, tsv, json, textgrid, ...; several: srt,ctm."),
]


def command(
    sound: Annotated[str, typer.Argument(help="A file or URL, or - for stdin.", show_default=False)],
    text: Text,
    output: transcribe.Output = None,
    format: Format = None,
    no_vad: transcribe.NoVad = False,
    speakers: transcribe.Speakers = None,
    force: transcribe.Force = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 1 where a word is not found.")] = False,
    quiet: transcribe.Quiet = False,
    aligner: transcribe.Aligner = None,
    model: terminal.Model = None,
    adapter: terminal.Adapter = None,
    device: terminal.Device = "auto",
    dtype: terminal.DType = "auto",
    quantize: terminal.Quantize = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on a line.")] = False,
) -> int:
    loading: dict[str, Any] = {"model": model, "device": device, "dtype": dtype, "adapter": adapter}
    loading["quantize"] = quantize
    if not terminal.is_first():
        terminal.load_model(**loading)  # exits when the first process ends
    from ..longform.formats import ENDINGS, formats_of, write
    from ..longform.speakers import label_speakers
    from ..longform.word_times_letters import spell

    check_aligner(model, aligner)
    if json and format is not None:
        raise ConfigError("--json and --format both say what is written; leave one of them out.")
    formats = formats_of([format or "ctm"])
    if output is None and len(formats) > 1:
        raise ConfigError("Several formats are files, not one text; give --output FOLDER.")
    if sound == "-" and text == "-":
        raise ConfigError("Sound and text are both -, and stdin is read once; give one of them as a file.")
    sounds = sounds_of([sound])
    if len(sounds) > 1:
        raise ConfigError(f"{sound} holds {len(sounds)} sounds; expected one, whose text is known.")
    turns = turns_of(speakers, sounds, alone=True)
    words = text_of(text)
    paths = [] if output is None else [(name, Path(output) / f"{sounds[0].stem}{ENDINGS[name]}") for name in formats]
    if paths and not force and all(path.exists() for _, path in paths):
        note(f"{', '.join(str(path) for _, path in paths)} exists and is kept; --force writes it anew.")
        return 0
    chat = terminal.load_model(**loading, aligner=aligner)
    with SoundProgress(quiet=quiet) as progress:
        talk = _aligned(chat, sounds[0], words, no_vad, progress)
    talk = talk if turns is None else replace(talk, segments=tuple(label_speakers(talk.segments, turns[0])))
    for sentence in talk.notes:
        note(f"{sounds[0].name}: {sentence}")
    if json:
        print(json_lines.dumps({"source": sounds[0].name, **talk.to_dict()}, ensure_ascii=False), flush=True)
    elif not paths:
        print(write(talk, formats[0]), end="", flush=True)
    for name, path in paths:
        if path.exists() and not force:
            note(f"{path} exists and is kept; --force writes it anew.")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            talk.save(path, name)
    return FAILED if strict and any(word.start is None and spell(word.text) for word in talk.words) else 0


def _aligned(chat: AudioChat, sound: Sound, text: str, everything: bool, progress: SoundProgress) -> Transcript:
    from ..longform.transcribe import Listening
    from ..longform.word_times_known import align

    service, listening = chat.service(), Listening(everything=everything)
    settings, show = service.transcription, partial(progress.show, sound.name)
    return align(service.aligner, sound.source, sound.name, text, settings, listening, show)


def text_of(argument: str) -> str:
    """The text that an argument is, or names. Raises ConfigError for a file that is missing, or no plain text."""
    if argument == "-":
        return sys.stdin.read()
    path = Path(argument)
    looks_like_a_path = "\n" not in argument and len(argument) < 1000
    if looks_like_a_path and path.is_file():
        if path.suffix.lower() in _SUBTITLES:
            raise ConfigError(f"{argument} ends as subtitles or a table do; expected plain text, what is said.")
        try:
            return path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
            raise ConfigError(f"{argument} cannot be read: {reason}.") from error
    if looks_like_a_path and not argument.count(" ") and (path.suffix.lower() == ".txt" or "/" in argument):
        raise ConfigError(f"No such file: {argument!r}; a text that is no file has blanks between its words.")
    return argument
