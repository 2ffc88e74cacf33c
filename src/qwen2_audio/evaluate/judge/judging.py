"""Asking a judge about a run's answers; every reply is kept in judgements.jsonl, and never asked for twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ...datasets.line_log import LineLog, json_line, parse_lines
from ...errors import EvaluationError, Qwen2AudioError
from ...types import SamplingParams
from ..example import Prediction
from ..in_flight import Submit, answers
from ..question import Model, Question
from ..score.judgement import Judgement
from ..task import Task
from .forms import FORMS, JudgeForm

JUDGEMENTS = "judgements.jsonl"
PARAMS = SamplingParams(temperature=0, max_tokens=1024, repetition_penalty=1.0)
SHOWN = 120  # characters of a reply in a message


@dataclass(frozen=True)
class Kept:
    """A line of judgements.jsonl."""

    key: str  # sha1 of the judge's weights and of what it was asked
    judgement: Judgement

    def line(self) -> bytes:
        return json_line({"key": self.key, **asdict(self.judgement)})


def _from_line(line: bytes) -> Kept:
    data = json.loads(line)
    return Kept(data.pop("key"), Judgement(**data))


@dataclass
class JudgeRun:
    """How a judge fared."""

    judge: str
    asked: int = 0
    kept: int = 0  # replies that were there
    unparsed: list[Judgement] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # sentences

    @property
    def total(self) -> int:
        return self.asked + self.kept


@dataclass(frozen=True)
class _Item:
    """One question to the judge."""

    form: JudgeForm
    prediction: Prediction
    swapped: bool
    key: str
    question: Question


def judge_name(judge: Model) -> str:
    """The judge as it stands in a metric's name: with its weights' fingerprint where that is known."""
    return judge.name if judge.fingerprint.startswith("endpoint:") else f"{judge.name}@{judge.fingerprint}"


def items_of(judge: str, tasks: Sequence[Task], predictions: Sequence[Prediction]) -> Iterator[_Item]:
    """What `judge` is to be asked. Rows without an answer are not judged."""
    forms = {task.id: FORMS[task.scorer] for task in tasks if task.scorer in FORMS}
    for prediction in predictions:
        form = forms.get(prediction.task)
        if form is None or prediction.error is not None or not prediction.text.strip():
            continue
        for swapped in (False, True) if form.both_orders else (False,):
            text = form.text(prediction, swapped=swapped)
            key = hashlib.sha1(json.dumps([judge, form.system, text]).encode()).hexdigest()
            yield _Item(form, prediction, swapped, key, Question(None, text, PARAMS, "chat", form.system))


def judge_answers(
    folder: Path,
    judge: Model,
    tasks: Sequence[Task],
    predictions: Sequence[Prediction],
    advance: Callable[[int], None] = lambda total: None,
) -> JudgeRun:
    """Ask `judge` about every answer that it has not judged yet. At each reply `advance` is called with their number.

    Raises EvaluationError where no task's answers are for a judge, the judge is down, none of its replies holds a
    score, or the disk is full; all replies so far are kept.
    """
    run = JudgeRun(judge_name(judge))
    items = list(items_of(run.judge, tasks, predictions))
    if not items:
        names = ", ".join(task.id for task in tasks) or "no task"
        raise EvaluationError(
            f"Nothing in {folder} is for a judge: {names}, whose answers have one right answer or failed."
        )
    log = LineLog(folder / JUDGEMENTS)
    try:
        kept = list(parse_lines(log.lines, log.path, _from_line, "judgement"))
        replies = {one.key: one.judgement.reply for one in kept}
        placed = {(one.key, one.judgement.task, one.judgement.id) for one in kept}

        def record(item: _Item, reply: str) -> None:
            about = item.prediction
            one = Kept(item.key, Judgement(about.task, about.id, run.judge, reply, swapped=item.swapped))
            if (item.key, about.task, about.id) not in placed:
                log.add(one.line())
                placed.add((item.key, about.task, about.id))
            replies[item.key] = reply
            if item.form.parse(reply) is None:
                run.unparsed.append(one.judgement)
            advance(len(items))

        _ask(judge, items, replies, record, run)
    finally:
        log.close()
    if run.unparsed and len(run.unparsed) == run.total:
        raise EvaluationError(
            f"{run.judge} gave no score in any of {run.total} replies; the first is {run.unparsed[0].reply[:SHOWN]!r}. "
            "They are kept; take another judge."
        )
    return run


def _ask(
    judge: Model,
    items: Sequence[_Item],
    replies: Mapping[str, str],
    record: Callable[[_Item, str], None],
    run: JudgeRun,
) -> None:
    def questions() -> Iterator[tuple[_Item, Submit]]:
        for item in items:
            if item.key in replies:
                run.kept += 1
                record(item, replies[item.key])
            else:
                yield item, partial(judge.submit, item.question)

    for item, answer in answers(questions(), judge.in_flight):
        if isinstance(answer, Qwen2AudioError):
            run.failed.append(f"{item.prediction.task} {item.prediction.id}: {answer}")
        else:
            record(item, answer.text)
            run.asked += 1


def read_judgements(
    folder: Path, tasks: Sequence[Task], predictions: Sequence[Prediction]
) -> dict[str, list[Judgement]]:
    """The judgements of the answers as they are now, by judge; those of earlier answers are left out."""
    path = folder / JUDGEMENTS
    if not path.exists():
        return {}
    kept = list(parse_lines(path.read_bytes(), path, _from_line, "judgement"))
    found: dict[str, list[Judgement]] = {}
    for judge in dict.fromkeys(one.judgement.judge for one in kept):
        by_row = {(one.key, one.judgement.task, one.judgement.id): one.judgement for one in kept}
        rows = [(item.key, item.prediction.task, item.prediction.id) for item in items_of(judge, tasks, predictions)]
        found[judge] = [by_row[row] for row in rows if row in by_row]
    return {judge: judgements for judge, judgements in found.items() if judgements}


def summary(run: JudgeRun) -> list[str]:
    """What to tell of a judge's work, a sentence a line."""
    told: list[Any] = [f"{run.judge}: {run.total} replies, {run.kept} of them from before."]
    if run.unparsed:
        told.append(
            f"{len(run.unparsed)} of them hold no score and are left out, such as {run.unparsed[0].reply[:SHOWN]!r} "
            f"on {run.unparsed[0].id}."
        )
    if run.failed:
        told.append(f"{len(run.failed)} questions failed, the first of them {run.failed[0]}")
    return told
