"""`qwen2-audio ask`: one question about one or several clips."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from ..longform.questions.policy import Policy, parse_policy
from ..types import Chunk, Part, SamplingParams
from . import long_clips, terminal
from .terminal import note

if TYPE_CHECKING:
    from ..longform.questions.recordings import Conversation


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
    long: long_clips.Long = "parts",
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
        choice=tuple(choice) if choice else None,
        grammar=_text_of(grammar),
    )
    if params.constraint is not None:  # before the model is loaded, which may take minutes
        from ..engine.structured import grammar as grammars

        grammars.check(params.constraint)
    if not terminal.is_first():
        terminal.load_model(model, device, dtype, adapter, quantize)  # exits when the first process ends
    policy = parse_policy(long)
    parts = list[Part]()
    # Clips are read first, because loading the model may take minutes.
    with closing(_read(audio, prompt, system, policy)) as conversation:
        chat = terminal.load_model(model, device, dtype, adapter, quantize)
        started = time.perf_counter()
        if conversation.recordings:
            if policy.kind == "transcript":
                long_clips.keep_transcripts(chat, adapter, quantize)
            chunks = chat.stream(conversation.messages, params, long=long)
            text, last = _print_answer(long_clips.without_parts(chunks, conversation, policy, parts), quiet=json)
            long_clips.tell_heard(last)
        else:
            text, last = _print_answer(chat.stream(conversation.messages, params), quiet=json, spinner=True)
        seconds = time.perf_counter() - started
    if json:
        print(terminal.as_json(_report(chat.name, audio, text, last, seconds, parts)))
    if last.finish_reason in ("length", "context"):
        note(f"The answer was stopped ({last.finish_reason}) after {_new_tokens(last)} tokens; see --max-tokens.")


def _text_of(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}.") from error


def _read(names: Sequence[str], prompt: str | None, system: str | None, policy: Policy) -> Conversation:
    """The conversation with its clips loaded. Raises AudioError and PromptError for what cannot be asked."""
    from ..inputs import messages
    from ..inputs.clip import load_clip
    from ..longform.questions.recordings import read_conversation
    from ..longform.questions.submit import check
    from ..longform.transcribe import LIMITS

    sources = [sys.stdin.buffer.read() if name == "-" else name for name in names]
    system_messages = [] if system is None else [messages.system(system)]
    with terminal.waiting("Reading"):
        conversation = read_conversation([*system_messages, messages.user(prompt, audio=sources)], LIMITS, load=True)
        assert conversation is not None
        if conversation.recordings and policy.kind == "refuse":
            recording = conversation.recordings[0]
            load_clip(recording.source, recording.number)  # says so
        if conversation.recordings:
            check(conversation, policy)
    long_clips.announce(conversation, ["stdin" if name == "-" else name for name in names], policy)
    return conversation


def _print_answer(chunks: Iterator[Chunk], *, quiet: bool, spinner: bool = False) -> tuple[str, Chunk]:
    """Print the text as it arrives, unless `quiet`; returns the complete text and the last chunk."""
    with terminal.waiting("Listening") if spinner else nullcontext():
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


def _report(
    model: str, names: list[str], text: str, last: Chunk, seconds: float, parts: Sequence[Part]
) -> dict[str, Any]:
    assert last.usage is not None
    report = {
        "text": text,
        "finish_reason": last.finish_reason,
        "usage": {**asdict(last.usage), "total_tokens": last.usage.total_tokens},
        "heard": [{"source": name, **heard.to_dict()} for name, heard in zip(names, last.heard, strict=True)],
        "seconds": round(seconds, 3),
        "model": model,
    }
    return {**report, "parts": [part.to_dict() for part in parts]} if parts else report
