"""The prompts of prompts.toml, and how a row's question and choices are set into them."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from ...errors import ConfigError, did_you_mean

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Prompt:
    """A text with {names} in braces, and whose it is."""

    text: str
    source: str  # repository and file
    licence: str  # "" where the source states none: a short sentence, quoted


@functools.cache
def prompts() -> Mapping[str, Prompt]:
    """All prompts by key."""
    tables = tomllib.loads(files(__package__).joinpath("prompts.toml").read_text(encoding="utf-8"))
    return {key: Prompt(table["text"], table["source"], table.get("licence", "")) for key, table in tables.items()}


def find_prompt(key: str) -> Prompt:
    """Raises ConfigError for a key that is none."""
    if key not in prompts():
        raise ConfigError(f"There is no prompt {key!r}.{did_you_mean(key, prompts())}")
    return prompts()[key]


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with each {name} of `values` replaced, in one pass: braces in a value stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), text)


def question_prompt(key: str, question: str = "", choices: Sequence[str] = ()) -> str:
    """What follows the clip: the prompt `key` with a row's question and choices, or `key` itself where it is a text.

    {question} and {choices} stand for them: choices as the key's authors print them, one a line, or as a list (MMAU).
    {choice_a} to {choice_d} are single ones, "None" where there is none, as AIR-Bench prints it.
    """
    if key not in prompts():
        return key
    text = prompts()[key].text
    if key == "question":
        return question + "".join(f"\n{LETTERS[number]}. {choice}" for number, choice in enumerate(choices))
    listed = str(list(choices)) if key == "mmau_authors" else "\n".join(choices)
    single = {
        f"choice_{letter.lower()}": choices[number] if number < len(choices) else "None"
        for number, letter in enumerate("ABCD")
    }
    return fill(text, {"question": question, "choices": listed, **single})
