"""Render a checkpoint's own chat template (Jinja) in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..errors import PromptError
from ..types import Message


class _Generation(Extension):
    """Renders `{% generation %}...{% endgeneration %}`, which marks trained text in some templates, as its content."""

    tags = {"generation"}  # noqa: RUF012  (as the base class declares it)

    def parse(self, parser: Parser) -> Node | list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render_jinja(template: str, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    """Render `messages` in the Jinja source `template`, whose code can access nothing but them.

    Raises PromptError when the template fails.
    """
    try:
        return _compiled(template).render(messages=messages, add_generation_prompt=add_generation_prompt)
    except (TemplateError, TypeError, ValueError, KeyError, OverflowError) as error:
        raise PromptError(
            f"The chat template cannot render these messages ({error}); check them against the template, "
            "or pass another one as chat_template=."
        ) from None


@lru_cache(maxsize=8)
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.globals["raise_exception"] = _refuse
    environment.filters["tojson"] = _tojson
    return environment.from_string(template)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _tojson(value: Any, indent: int | None = None) -> str:
    # Jinja's own filter escapes for HTML; a prompt is not HTML.
    return json.dumps(value, ensure_ascii=False, indent=indent)
