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
            if isinstance(question, Question):
                raise PromptError("A question is a Question; expected a dict with 'question' and 'choices'.")
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
            texts = [*options, *options.values()] if isinstance(options, Mapping) else options
            yield from (text for text in texts if isinstance(text, str))  # the others are true, false, no description


def filled(question: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The question with a row's values. Raises PromptError for one that the row lacks, or where two choices become the
    same."""
    new = {**question, "question": fill(question["question"], values)}
    for name in ("choices", "levels"):
        options = question.get(name)
        if isinstance(options, Mapping):
            new[name] = _unlike([(_filled(key, values), _filled(text, values)) for key, text in options.items()])
        elif options is not None:
            new[name] = [_filled(option, values) for option in options]
    return new


def _filled(text: Any, values: Mapping[str, Any]) -> Any:
    return fill(text, values) if isinstance(text, str) else text


def _unlike(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    if len(named := dict(pairs)) < len(pairs):
        raise PromptError(f"The row makes two choices the same: {', '.join(str(key) for key, _ in pairs)}.")
    return named
