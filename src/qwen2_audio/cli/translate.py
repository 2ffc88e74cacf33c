"""`qwen2-audio translate`: what is said in sound of any length, in another language."""

from __future__ import annotations

from typing import Annotated

import typer

from . import terminal, transcribe
from .transcription import run_options


def command(
    sounds: transcribe.Sources,
    to: Annotated[str, typer.Option(help="The language to translate into, as en or english.")] = "en",
    output: transcribe.Output = None,
    format: transcribe.Format = None,
    language: transcribe.Language = None,
    prompt: transcribe.Hint = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    no_vad: transcribe.NoVad = False,
    channels: transcribe.Channels = "mix",
    window: transcribe.Window = None,
    merge_gap: transcribe.MergeGap = None,
    begin: transcribe.Begin = None,
    until: Annotated[str | None, typer.Option("--until", help="Hear up to here.")] = None,
    no_fallback: transcribe.NoRetry = False,
    max_line_width: transcribe.LineWidth = None,
    max_line_count: transcribe.LineCount = None,
    max_cue_seconds: transcribe.CueSeconds = None,
    max_characters_per_second: transcribe.CharactersPerSecond = None,
    force: transcribe.Force = False,
    png: transcribe.Png = False,
    strict: transcribe.Strict = False,
    quiet: transcribe.Quiet = False,
    speakers: transcribe.Speakers = None,
    model: terminal.Model = None,
    adapter: terminal.Adapter = None,
    device: terminal.Device = "auto",
    dtype: terminal.DType = "auto",
    quantize: terminal.Quantize = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line, one for each sound.")] = False,
) -> int:
    return run_options(locals())
