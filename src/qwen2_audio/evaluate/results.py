"""From a run's folder, or somebody else's file of answers, to scores.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EvaluationError
from .example import Example, Prediction
from .folder import OVER_LONG, PREDICTIONS, Identity, merge_shards, read_identity, write_json
from .judge.judging import read_judgements
from .predictions import read_predictions
from .registry.tasks import TASKS, find_task
from .score.judgement import Judgement
from .score.score import measure, score
from .task import Task

SCORES = "scores.json"


@dataclass(frozen=True)
class Results:
    """What a folder holds."""

    folder: Path
    identity: Identity
    tasks: tuple[Task, ...]
    predictions: tuple[Prediction, ...]
    judgements: Mapping[str, Sequence[Judgement]]

    def of(self, task: Task) -> list[Prediction]:
        return [prediction for prediction in self.predictions if prediction.task == task.id]


def read_results(folder: Path) -> Results:
    """A run's answers, after its shards, where there are some, were put together. Raises EvaluationError."""
    merge_shards(folder)
    identity = read_identity(folder)
    if not (folder / PREDICTIONS).exists():
        raise EvaluationError(
            f"{folder} has no {PREDICTIONS}: the run that began here has no answer yet; run it again."
        )
    predictions = read_predictions(folder / PREDICTIONS)
    answered = {prediction.task for prediction in predictions}
    tasks = tuple(_task(name, about) for name, about in identity.tasks.items() if name in answered)
    return Results(folder, identity, tasks, tuple(predictions), read_judgements(folder, tasks, predictions))


def _task(name: str, about: Mapping[str, Any]) -> Task:
    if name not in TASKS:
        raise EvaluationError(
            f"The run has answers to {name}, which this version does not know; score them with its own."
        )
    return find_task(name, language=about.get("language"))


def try_scoring(task: Task, example: Example) -> None:
    """Score one row whose answer is its reference, so that a missing package is told before anything is asked.

    Raises ConfigError.
    """
    answer = Prediction(
        "", task.id, example.id, example.source, example.sound.name, example.reference or "", example.reference,
        example.prompt, example.choices, columns=example.columns,
    )  # fmt: skip
    measure(task, [answer])


def score_results(results: Results) -> dict[str, Any]:
    """Score every task, and write scores.json. It holds no times, dates or paths: equal answers give equal bytes."""
    if not results.tasks:
        raise EvaluationError(f"{results.folder} holds no answer yet; run the same command again.")
    identity = results.identity
    scored = {
        task.id: score(task, results.of(task), results.judgements, about=_about(identity, task))
        for task in results.tasks
    }
    whole = {
        "model": identity.model,
        "fingerprint": identity.fingerprint,
        "settings": identity.settings,
        "tasks": scored,
    }
    write_json(results.folder / SCORES, whole)
    return whole


def _about(identity: Identity, task: Task) -> dict[str, str]:
    """For the signature: what decided the answers."""
    about = identity.tasks[task.id]
    named = {"list": about.get("list"), "form": about.get("form"), "ckpt": f"{identity.model}@{identity.fingerprint}"}
    if (over_long := about.get("over_long", OVER_LONG)) != OVER_LONG:
        named["over_long"] = over_long
    settings = {name: str(value) for name, value in identity.settings.items()}
    return {name: value for name, value in {**named, **settings}.items() if value}
