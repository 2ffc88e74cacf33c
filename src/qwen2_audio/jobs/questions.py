"""The questions of a job's `decide`, whose texts may name columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..api.decisions import Question
from ..errors import ConfigError, PromptError
from .config import JobConfig
from .template import fill, names_in


def questions_of(config: JobConfig) -> list[dict[str, Any]]:
    """As `Question.of` takes them, with columns still to be filled in. Raises ConfigError for what no row could be
    asked."""
    options = {"choices": config.choices, "levels": config.levels}
    own: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if config.labels != "letters":
        own["labels"] = config.labels
    if isinstance(config.decide, str):
        questions: list[Any] = [{"question": config.decide, **own}]
    elif own:
        raise ConfigError(f"{next(iter(own))!r} belongs to one question; write it into the tables of 'decide'.")
    else:
        questions = list(config.decide)
    try:
        for question in questions:
            Question.of(question)
    except PromptError as error:
        raise ConfigError(f"decide: {error}") from None
    for text in texts_of(questions):
        names_in(text)
    return questions


def texts_of(questions: list[dict[str, Any]]) -> Iterator[str]:
    """The texts of questions that may name columns."""
    for question in questions:
        yield question["question"]
        for name in ("choices", "levels"):
            options = question.get(name, ())
            yield from options
            yield from options.values() if isinstance(options, Mapping) else ()


def filled(question: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The question with a row's values. Raises PromptError for one that the row lacks, or where two choices become the
    same."""
    new = {**question, "question": fill(question["question"], values)}
    for name in ("choices", "levels"):
        options = question.get(name)
        if isinstance(options, Mapping):
            new[name] = _unlike([(fill(key, values), fill(text, values)) for key, text in options.items()])
        elif options is not None:
            new[name] = [fill(option, values) for option in options]
    return new


def _unlike(pairs: list[tuple[str, str]]) -> dict[str, str]:
    if len(named := dict(pairs)) < len(pairs):
        raise PromptError(f"The row makes two choices the same: {', '.join(key for key, _ in pairs)}.")
    return named
