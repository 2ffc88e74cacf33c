"""`qwen2-audio transcribe`: sound of any length to text, subtitles and tables."""

from __future__ import annotations

from typing import Annotated

import typer

from . import terminal
from .transcription import run_options

Sources = Annotated[
    list[str], typer.Argument(help="Files, folders, URLs, or - for stdin.", show_default=False, metavar="SOUND...")
]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", help="Folder to write NAME.FORMAT into; default stdout for one sound, else here."),
]
Format = Annotated[
    str | None,
    typer.Option("--format", "-f", help="txt, srt, vtt, tsv, json, lrc, textgrid, ctm; several: srt,json; or all."),
]
Language = Annotated[str | None, typer.Option(help="That is spoken, as en or english; default: not known.")]
Hint = Annotated[str | None, typer.Option("--prompt", help="What it is about: names, a topic. Chat checkpoints only.")]
NoVad = Annotated[bool, typer.Option("--no-vad", help="Hear everything, speech or not.")]
Channels = Annotated[str, typer.Option(help="mix; or split: one speaker a channel, as calls are recorded.")]
Window = Annotated[float | None, typer.Option(help="Seconds heard at once, at most; default the checkpoint's.")]
MergeGap = Annotated[float | None, typer.Option(help="Seconds between words that share a window, at most.")]
NoRetry = Annotated[bool, typer.Option("--no-fallback", help="Do not ask again where an answer loops.")]
LineWidth = Annotated[int | None, typer.Option(help="Characters of a line of a subtitle; usual are 42.")]
LineCount = Annotated[int | None, typer.Option(help="Lines of a subtitle; usual are 2.")]
CueSeconds = Annotated[float | None, typer.Option(help="Seconds of a subtitle; usual are 7.")]
CharactersPerSecond = Annotated[float | None, typer.Option(help="Subtitles stay longer to be read; usual are 17.")]
Force = Annotated[bool, typer.Option("--force", help="Write files that exist already.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit status 1 where a segment is flagged, too.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]
Begin = Annotated[str | None, typer.Option("--from", help="Hear from here on: seconds, or as 1:30 or 1:02:03.5.")]
Until = Annotated[str | None, typer.Option("--to", "--until", help="Hear up to here.")]
Png = Annotated[bool, typer.Option("--png", help="Also draw NAME.png: what was said over the spectrogram.")]
WordTimes = Annotated[bool, typer.Option("--word-timestamps", help="Times of words, by the checkpoint's aligner.")]
Speakers = Annotated[str | None, typer.Option(help="RTTM of a diariser: who speaks, for segments and words.")]
Aligner = Annotated[
    str | None, typer.Option(help="File of `train aligner`; default the checkpoint's own.", show_default=False)
]


def command(
    sounds: Sources,
    output: Output = None,
    format: Format = None,
    language: Language = None,
    prompt: Hint = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    no_vad: NoVad = False,
    channels: Channels = "mix",
    window: Window = None,
    merge_gap: MergeGap = None,
    begin: Begin = None,
    until: Until = None,
    no_fallback: NoRetry = False,
    max_line_width: LineWidth = None,
    max_line_count: LineCount = None,
    max_cue_seconds: CueSeconds = None,
    max_characters_per_second: CharactersPerSecond = None,
    force: Force = False,
    png: Png = False,
    strict: Strict = False,
    quiet: Quiet = False,
    word_timestamps: WordTimes = False,
    speakers: Speakers = None,
    aligner: Aligner = None,
    model: terminal.Model = None,
    adapter: terminal.Adapter = None,
    device: terminal.Device = "auto",
    dtype: terminal.DType = "auto",
    quantize: terminal.Quantize = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line, one for each sound.")] = False,
) -> int:
    return run_options(locals())
