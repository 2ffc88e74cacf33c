"""Small copies of every benchmark in every layout, eight rows a part: `FORMS` lists them, `Form.build` writes one.

Row i of a part has the clip `damaged_clips.clip_bytes(i)` and the text `TEXTS[...][i]`; with `healthy=True` all clips
are good, so that all rows can be asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kit import corpora_official, corpora_questions, corpora_speech, corpora_tables

ROWS = 8
Build = Callable[[Path, bool], Path]


@dataclass(frozen=True)
class Form:
    """A benchmark in one layout."""

    task: str  # an id of the registry
    layout: str  # the name under which evaluate/layouts finds it
    build: Build  # writes it below a folder, and returns what to give as --data
    sources: tuple[str, ...]  # that the task's rows have, eight each
    needs_pyarrow: bool = False

    @property
    def name(self) -> str:
        return f"{self.task}-{self.layout}-{self.build.__name__}"


def _forms() -> list[Form]:
    forms = [
        *((task, "official_jsonl", build, sources, False) for task, build, sources in corpora_official.FORMS),
        *((task, layout, build, sources, False) for task, layout, build, sources in corpora_speech.FORMS),
        *((task, layout, build, sources, False) for task, layout, build, sources in corpora_questions.FORMS),
        *((task, "parquet", build, sources, True) for task, build, sources in corpora_tables.FORMS),
    ]
    return [Form(*form) for form in forms]


FORMS = _forms()
