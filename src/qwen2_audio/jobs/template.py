"""The question of a job: text with {column} where a row's value goes, and {{ }} for braces."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, PromptError, did_you_mean

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def names_in(template: str) -> list[str]:
    """The columns that a template names, in order, each once. Raises ConfigError for a brace that stands alone."""
    names: list[str] = []
    for match in _PIECE.finditer(template):
        if match[0] in ("{", "}") or match[1] == "":
            raise ConfigError(
                f"The question {template!r} has {match[0]!r} at character {match.start() + 1}; expected {{column}}, or "
                f"{match[0][0] * 2!r} for the brace itself."
            )
        if match[1] is not None and match[1] not in names:
            names.append(match[1])
    return names


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The template with a row's values; lists and tables as JSON. Raises PromptError for one that the row lacks."""

    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        found = values.get(match[1])
        if found is None:
            raise PromptError(f"The question names {{{match[1]}}}, and the row has no such value.")
        return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)

    return _PIECE.sub(value, template)


def check_names(template: str, values: Mapping[str, Any]) -> None:
    """Raises ConfigError where the template names a column that the corpus's first row does not have at all."""
    for name in names_in(template):
        if name not in values:
            found = ", ".join(values)
            near = did_you_mean(name, list(values))
            raise ConfigError(f"The question names {{{name}}}; expected one of the corpus's columns: {found}.{near}")
