"""Render a checkpoint's own chat template (Jinja) in a sandbox, with the globals that the reference gives it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, meta
from jinja2.ext import Extension
from jinja2.nodes import Node, Output, TemplateData
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..errors import PromptError

# Stand around what `{% generation %}...{% endgeneration %}` renders, in a rendering that asks where it stands.
MARKS = ("\ue5a2", "\ue5a3")


class _Generation(Extension):
    """Renders `{% generation %}...{% endgeneration %}`, which marks trained text in some templates, as its content."""

    tags = {"generation"}  # noqa: RUF012  (as the base class declares it)

    def parse(self, parser: Parser) -> Node | list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _MarkedGeneration(_Generation):
    """The same between MARKS."""

    def parse(self, parser: Parser) -> list[Node]:
        content = super().parse(parser)
        assert isinstance(content, list)
        start, end = (Output([TemplateData(mark)]) for mark in MARKS)
        return [start, *content, end]


def render_jinja(template: str, variables: Mapping[str, Any], *, marked: bool = False) -> str:
    """Render the Jinja source `template`, whose code can access nothing but plain copies of `variables`.

    `marked`: MARKS stand around each `{% generation %}` block.
    Raises PromptError when the template fails.
    """
    try:
        return _compiled(template, marked).render({name: plain(value) for name, value in variables.items()})
    except _FAULTS as error:
        raise _cannot_render(error) from None


def variables_of(template: str) -> frozenset[str]:
    """The variables that the Jinja source `template` reads and does not set itself. PromptError if it is no Jinja."""
    try:
        return _variables_of(template)
    except _FAULTS as error:
        raise _cannot_render(error) from None


def plain(value: Any) -> Any:
    """A copy of `value` made of JSON's types; anything else becomes its type's name, such as "<ndarray>".

    Templates come from the hub, and the methods of richer objects would let their code out of the sandbox. They ask
    of a clip only whether it is there.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    for base in (str, int, float):  # of a subclass, such as an enum, the plain value
        if isinstance(value, base):
            return base.__str__(value) if base is str else base(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else [plain(item) for item in value]
    if hasattr(value, "dtype") and getattr(value, "shape", None) == ():
        return plain(value.item())
    return f"<{type(value).__name__}>"


def _cannot_render(error: Exception) -> PromptError:
    return PromptError(
        f"The chat template cannot render these messages ({error}); check them against the template, "
        "or pass another one as chat_template=."
    )


_FAULTS = (TemplateError, TypeError, ValueError, KeyError, OverflowError)


@lru_cache(maxsize=16)
def _compiled(template: str, marked: bool) -> Template:
    return _environment(marked).from_string(template)


@lru_cache(maxsize=16)
def _variables_of(template: str) -> frozenset[str]:
    environment = _environment(False)
    return frozenset(meta.find_undeclared_variables(environment.parse(template)))


@lru_cache(maxsize=2)
def _environment(marked: bool) -> ImmutableSandboxedEnvironment:
    extensions: Sequence[str | type[Extension]] = [
        "jinja2.ext.loopcontrols",
        _MarkedGeneration if marked else _Generation,
    ]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _strftime_now}
    environment.filters["tojson"] = _tojson
    return environment


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML; a prompt is not HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
