"""Chat templates on disk, and the choice among several: one Jinja source, or a dict of named ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint.json_file import read_json
from ..errors import ConfigError, PromptError, did_you_mean

CHAT_TEMPLATE_FILE = "chat_template.jinja"
LEGACY_CHAT_TEMPLATE_FILE = "chat_template.json"
NAMED_TEMPLATES = "additional_chat_templates"  # folder with a NAME.jinja for each template but the default one
TEMPLATE_FILES = (CHAT_TEMPLATE_FILE, LEGACY_CHAT_TEMPLATE_FILE, f"{NAMED_TEMPLATES}/*.jinja")

Templates = str | dict[str, str]
_FILE_NAME = re.compile(r"[\w-][\w.-]*")


def templates_in(value: Any) -> Templates | None:
    """The templates in a value of a JSON file: a Jinja source, an object of named ones, or a list of
    `{"name", "template"}`. None for none."""
    if isinstance(value, list):
        value = {entry["name"]: entry["template"] for entry in value}
    return value or None


def read_templates(folder: Path) -> Templates | None:
    """The templates of a folder's own files: chat_template.jinja and the named ones, else chat_template.json."""
    named = {path.stem: path.read_text(encoding="utf-8") for path in sorted((folder / NAMED_TEMPLATES).glob("*.jinja"))}
    path = folder / CHAT_TEMPLATE_FILE
    default = path.read_text(encoding="utf-8") if path.is_file() else None
    if named:
        return named if default is None else {"default": default, **named}
    return default or templates_in(read_json(folder / LEGACY_CHAT_TEMPLATE_FILE).get("chat_template"))


def write_templates(folder: Path, templates: Templates) -> list[Path]:
    """Write chat_template.jinja and a file for each other named template; returns their paths.

    Raises ConfigError for a name that is no file name.
    """
    named = {"default": templates} if isinstance(templates, str) else templates
    written = []
    for name, template in named.items():
        if not _FILE_NAME.fullmatch(name):
            raise ConfigError(f"A chat template is called {name!r}; expected letters, digits, '-', '_' and '.'.")
        path = folder / CHAT_TEMPLATE_FILE if name == "default" else folder / NAMED_TEMPLATES / f"{name}.jinja"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(template, encoding="utf-8")
        written.append(path)
    return written


def choose_template(templates: Templates | None, wanted: str | None = None, *, tools: bool = False) -> str | None:
    """The Jinja source to render: `wanted` by its name, or as a source itself; None: the default one.

    `tools`: there are tools, for which a template named "tool_use" is the default.
    Raises PromptError when there are several, and none is the default.
    """
    if not isinstance(templates, Mapping):
        return wanted or templates
    if wanted is not None:
        return templates.get(wanted) or _source(wanted, templates)
    if tools and "tool_use" in templates:
        return templates["tool_use"]
    if "default" not in templates:
        raise PromptError(
            f"There are several chat templates and none is the default; pass chat_template= one of {sorted(templates)}."
        )
    return templates["default"]


def _source(wanted: str, templates: Mapping[str, str]) -> str:
    if re.fullmatch(r"\w+", wanted) and (near := did_you_mean(wanted, templates)):
        raise PromptError(f"There is no chat template {wanted!r}.{near}")
    return wanted
