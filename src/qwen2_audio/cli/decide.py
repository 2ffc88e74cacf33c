"""`qwen2-audio decide`: how likely each of the given answers is, without writing one."""

from __future__ import annotations

import json as json_values
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from . import terminal
from .terminal import heard_line, note

_BAR = 30  # characters of a probability of 1


def command(
    audio: Annotated[list[str], typer.Argument(help="Clips: files, URLs, or - for stdin.", show_default=False)],
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The question; without --choice, of yes or no.")
    ] = None,
    choice: Annotated[
        list[str] | None, typer.Option("--choice", "-c", help="An answer; repeatable. NAME=DESCRIPTION explains it.")
    ] = None,
    level: Annotated[list[str] | None, typer.Option(help="A level of a scale, lowest first; repeatable.")] = None,
    words: Annotated[
        bool, typer.Option("--words", help="Score the answers' own words, not letters in the prompt.")
    ] = False,
    questions: Annotated[
        Path | None, typer.Option(help="A JSON file with a list of questions, as m.decide takes them.")
    ] = None,
    model: terminal.Model = None,
    adapter: terminal.Adapter = None,
    device: terminal.Device = "auto",
    dtype: terminal.DType = "auto",
    quantize: terminal.Quantize = None,
    json: terminal.Json = False,
) -> None:
    from ..api.decisions import Question

    if (prompt is None) == (questions is None):
        raise ConfigError("Give one question with --prompt, or several with --questions FILE.")
    if questions is not None and (choice or level or words):
        raise ConfigError("--choice, --level and --words belong to --prompt; write them into the file's questions.")
    asked = [_of_options(prompt, choice, level, words)] if questions is None else _read(questions)
    parsed = [Question.of(question) for question in asked]
    if not terminal.is_first():
        terminal.load_model(model, device, dtype, adapter, quantize)  # exits when the first process ends
    clips: list[Any] = [sys.stdin.buffer.read() if name == "-" else name for name in audio]
    chat = terminal.load_model(model, device, dtype, adapter, quantize)
    with terminal.waiting("Deciding"):
        decisions = chat.decide(clips, parsed)
    for name, heard in zip(audio, decisions[0].heard, strict=True):
        note(heard_line("stdin" if name == "-" else name, heard.seconds, heard.tokens))
    if json:
        print(terminal.as_json([decision.to_dict() for decision in decisions]))
        return
    for decision in decisions:
        values = decision.to_dict()
        print(values["question"])
        for name, probability in values["probabilities"].items():
            print(f"  {probability:6.1%} {'#' * round(_BAR * probability):<{_BAR}} {name}")
        if decision.question.kind == "score":
            print(f"  score {decision.score:.2f} of {len(decision.question.options) - 1}")
        note(f"label mass {decision.label_mass:.3g}: the share of all that could be said which these answers have.")


def _of_options(prompt: str | None, choice: list[str] | None, level: list[str] | None, words: bool) -> dict[str, Any]:
    if choice and level:
        raise ConfigError("--choice and --level exclude each other; give one of them.")
    question: dict[str, Any] = {"question": prompt, "labels": "words" if words else "letters"}
    if choice:
        question["choices"] = {name: text for name, _, text in (one.partition("=") for one in choice)}
        if len(question["choices"]) < len(choice):
            raise ConfigError("--choice is given twice with the same name; leave one out.")
    if level:
        question["levels"] = level
    return question


def _read(path: Path) -> list[Any]:
    try:
        questions = json_values.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(questions, list) or not questions:
        raise ConfigError(f"{path} holds no list of questions; expected [{{'question': ..., 'choices': [...]}}, ...].")
    return questions
