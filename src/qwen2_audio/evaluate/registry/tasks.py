"""Every task by its id, and groups of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ...errors import ConfigError, did_you_mean
from ..task import Task
from .instruct import INSTRUCT
from .own import OWN
from .paper import OFFICIAL_TOO, PAPER

TASKS: Mapping[str, Task] = {task.id: task for task in (*PAPER, *OFFICIAL_TOO, *INSTRUCT, *OWN)}
GROUPS: Mapping[str, tuple[str, ...]] = {
    "paper": tuple(task.id for task in PAPER),
    "instruct": tuple(task.id for task in INSTRUCT),
}
PROMPT_LANGUAGES = ("en", "zh", "yue", "fr")  # those of the official speech recognition prompts
RECOGNIZE = "Detect the language and recognize the speech:"
CHARACTER_LANGUAGES = ("zh", "yue", "ja", "th")  # written without spaces: errors are counted by character


def find_task(name: str, *, language: str | None = None) -> Task:
    """The task of this id, `asr` for `language`. Raises ConfigError for an unknown id, and for a language elsewhere."""
    if name not in TASKS:
        known = (*TASKS, *GROUPS)
        raise ConfigError(f"There is no task {name!r}.{did_you_mean(name, known)} `qwen2-audio eval list` shows all.")
    task = TASKS[name]
    if name == "asr":
        return _transcription(task, language or task.language)
    if language is not None and language != task.language:
        raise ConfigError(f"{name} is in {task.language!r}, not {language!r}; only the task asr takes a language.")
    return task


def find_tasks(names: str, *, language: str | None = None) -> tuple[Task, ...]:
    """The tasks of a list "meld,mmar", in which a group stands for its tasks; each once, in the order of the list."""
    ids = [id for name in names.split(",") if name.strip() for id in GROUPS.get(name.strip(), (name.strip(),))]
    if not ids:
        raise ConfigError(f"No task in {names!r}; expected ids separated by commas, or one of {', '.join(GROUPS)}.")
    return tuple(find_task(name, language=language if name == "asr" else None) for name in dict.fromkeys(ids))


def _transcription(task: Task, language: str) -> Task:
    official = f"asr_{language}" if language in PROMPT_LANGUAGES else f"{RECOGNIZE} <|{language}|>"
    scorer = "cer" if language in CHARACTER_LANGUAGES else "wer"
    return dataclasses.replace(task, language=language, prompt=official, scorer=scorer)
