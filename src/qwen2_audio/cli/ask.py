"""`qwen2-audio ask`: one question about one or several clips."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from ..types import Chunk, Message, SamplingParams
from . import terminal
from .terminal import heard_line, note

if TYPE_CHECKING:
    from ..inputs.clip import AudioClip


def command(
    audio: Annotated[list[str], typer.Argument(help="Clips: files, URLs, or - for stdin.", show_default=False)],
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="The question; without one, the model answers the clip (voice chat)."),
    ] = None,
    model: terminal.Model = None,
    adapter: terminal.Adapter = None,
    max_tokens: terminal.MaxTokens = None,
    temperature: terminal.Temperature = None,
    top_p: terminal.TopP = None,
    top_k: terminal.TopK = None,
    seed: terminal.Seed = None,
    system: terminal.System = None,
    device: terminal.Device = "auto",
    dtype: terminal.DType = "auto",
    quantize: terminal.Quantize = None,
    json_schema: Annotated[
        Path | None, typer.Option(help="Hold the answer to the JSON schema in this file.", show_default=False)
    ] = None,
    regex: Annotated[
        str | None, typer.Option(help="Hold the answer to this regular expression.", show_default=False)
    ] = None,
    choice: Annotated[
        list[str] | None, typer.Option(help="The answer is one of these; repeatable.", show_default=False)
    ] = None,
    grammar: Annotated[
        Path | None, typer.Option(help="Hold the answer to the Lark or GBNF grammar in this file.", show_default=False)
    ] = None,
    json: terminal.Json = False,
) -> None:
    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        json_schema=_text_of(json_schema),
        regex=regex,
        choice=tuple(choice or ()),
        grammar=_text_of(grammar),
    )
    if params.constraint is not None:  # before the model is loaded, which may take minutes
        from ..engine.structured import grammar as grammars

        grammars.check(params.constraint)
    if not terminal.is_first():
        terminal.load_model(model, device, dtype, adapter, quantize)  # exits when the first process ends
    clips = _load_clips(audio)  # first, because loading the model may take minutes
    messages = _conversation(clips, prompt, system)
    chat = terminal.load_model(model, device, dtype, adapter, quantize)
    started = time.perf_counter()
    text, last = _print_answer(chat.stream(messages, params), quiet=json)
    seconds = time.perf_counter() - started
    if json:
        print(terminal.as_json(_report(chat.name, audio, text, last, seconds)))
    if last.finish_reason in ("length", "context"):
        note(f"The answer was stopped ({last.finish_reason}) after {_new_tokens(last)} tokens; see --max-tokens.")


def _text_of(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}.") from error


def _load_clips(names: list[str]) -> list[AudioClip]:
    from ..inputs.clip import load_clip

    clips = []
    with terminal.waiting("Reading"):
        for number, name in enumerate(names, 1):
            clips.append(load_clip(sys.stdin.buffer.read() if name == "-" else name, number))
    for name, clip in zip(names, clips, strict=True):
        note(heard_line("stdin" if name == "-" else name, clip.heard.seconds, clip.heard.tokens))
    return clips


def _conversation(clips: list[AudioClip], prompt: str | None, system: str | None) -> list[Message]:
    from ..audio import SAMPLE_RATE
    from ..inputs import messages

    system_messages = [] if system is None else [messages.system(system)]
    return [*system_messages, messages.user(prompt, audio=[(clip.waveform, SAMPLE_RATE) for clip in clips])]


def _print_answer(chunks: Iterator[Chunk], *, quiet: bool) -> tuple[str, Chunk]:
    """Print the text as it arrives, unless `quiet`; returns the complete text and the last chunk."""
    with terminal.waiting("Listening"):
        chunk = next(chunks)  # the first one takes longest, because clips are encoded and the prompt is computed
    texts = [chunk.text]
    while True:
        if not quiet:
            print(chunk.text, end="", flush=True)
        if chunk.finish_reason is not None:
            break
        chunk = next(chunks)
        texts.append(chunk.text)
    if not quiet:
        print()
    return "".join(texts), chunk


def _new_tokens(last: Chunk) -> int:
    return last.usage.completion_tokens if last.usage else 0


def _report(model: str, names: list[str], text: str, last: Chunk, seconds: float) -> dict[str, Any]:
    assert last.usage is not None
    return {
        "text": text,
        "finish_reason": last.finish_reason,
        "usage": {**asdict(last.usage), "total_tokens": last.usage.total_tokens},
        "heard": [{"source": name, **heard.to_dict()} for name, heard in zip(names, last.heard, strict=True)],
        "seconds": round(seconds, 3),
        "model": model,
    }
