"""A run: every row of some tasks is asked once, by any model, and whatever happens the answers so far are kept."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ConfigError, EvaluationError, Qwen2AudioError
from .deaf import check_hearing, refuse_deaf
from .example import Example, Prediction
from .folder import (
    CHECKS,
    MANIFEST,
    OVER_LONG,
    PREDICTIONS,
    SPEED,
    Identity,
    enter,
    order_of,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)
from .in_flight import Submit, answers
from .predictions import PredictionLog
from .question import Answer, Model, Question, decoding_of, question_of
from .registry.warnings import warnings_for
from .rows import AHEAD, ReadRow, Selection, key_maker, read_row, read_rows
from .task import Task

WHOLE_CLIPS = 4  # that are read ahead, and that the model works on, where clips of any length are heard whole
Tell = Callable[[str], None]
Advance = Callable[[Prediction], None]


@dataclass
class TaskRun:
    """How one task went."""

    task: str
    rows: int = 0
    asked: int = 0  # now; the others' answers were there
    failed: list[Prediction] = field(default_factory=list)
    cut: int = 0  # clips of more than 30 s
    damaged: list[str] = field(default_factory=list)  # sentences on what of clips was lost
    seconds: float = 0.0  # of asking, from the first question to the last answer
    audio_seconds: float = 0.0  # that the model heard meanwhile
    tokens: int = 0  # that it said meanwhile

    def speed(self) -> dict[str, Any]:
        """For speed.json; rates where something was asked."""
        rates = {}
        if self.seconds > 0 and self.asked:
            rates = {
                "audio_seconds_per_second": round(self.audio_seconds / self.seconds, 3),
                "tokens_per_second": round(self.tokens / self.seconds, 3),
                "rows_per_second": round(self.asked / self.seconds, 3),
            }
        whole = {"task": self.task, "rows_asked": self.asked, "seconds": round(self.seconds, 3)}
        heard = {"audio_seconds": round(self.audio_seconds, 3), "tokens": self.tokens}
        return {**whole, **heard, **rates, "peak_memory_bytes": peak_memory()}


@dataclass
class Run:
    """A run into a folder. `tell` gets a sentence for people at a time, `advance` every answer as it is there."""

    folder: Path
    model: Model
    selection: Selection = field(default_factory=Selection)
    hearing_check: bool = True
    long: str = "refuse"  # how clips over 30 s are heard whole; "refuse": as officially, their first 30 s are heard
    data: str = ""  # where the rows are, for the report's players
    tell: Tell = lambda _: None
    advance: Advance = lambda _: None

    def ask(self, tasks: Sequence[tuple[Task, Sequence[Example]]]) -> list[TaskRun]:
        """Ask every selected row that has no answer yet. Rows that fail are recorded, and the run goes on.

        Raises EvaluationError for a folder of another run, a model that does not hear, a server that is down, and a
        full disk; ConfigError for what no row could be asked with. All answers so far are kept.
        """
        for task, _ in tasks:
            if self.long != "refuse" and self.model.form(task) == "base":
                raise ConfigError(
                    f"{task.id} is asked in bare prompts, about one window; --long is for questions to chat "
                    "checkpoints. Leave it out."
                )
        identity = Identity(
            self.model.name, self.model.fingerprint, self.model.settings,
            {task.id: self._about(task, examples) for task, examples in tasks}, self.selection.shard,
            {task.id: self.data for task, _ in tasks},
        )  # fmt: skip
        identity = enter(self.folder, identity)
        manifest = read_manifest(self.folder)
        done: list[TaskRun] = []
        with PredictionLog(self.folder / PREDICTIONS) as log:
            if self.selection.shard is not None:
                (self.folder / MANIFEST).unlink(missing_ok=True)  # a shard that has one is finished
            for task, examples in tasks:
                self._warn(task)
                rows = self.selection.rows(examples)
                if task.deaf is not None and self.hearing_check:
                    self._check_hearing(task, rows)
                done.append(_ask_rows(self, task, rows, log, manifest))
                self._tell_dropped(task)
            order = order_of(identity.tasks, manifest)
            log.sort(order)
            write_manifest(self.folder, identity.tasks, manifest)
        speeds = [run.speed() for run in done if run.asked]
        write_json(self.folder / SPEED, [*read_json(self.folder / SPEED, []), *speeds])
        return done

    def _about(self, task: Task, examples: Sequence[Example]) -> dict[str, Any]:
        return {
            "language": task.language,
            "form": self.model.form(task),
            "system": task.system,
            "decoding": decoding_of(task.decoding),
            "over_long": OVER_LONG if self.long == "refuse" else f"whole, by {self.long}",
            "list": list_fingerprint(examples),
        }

    def _warn(self, task: Task) -> None:
        sentences = warnings_for(task, self.model.facts(task))
        if task.checkpoint == "base" and self.model.form(task) != "base":
            sentences.append(
                f"{task.id} is asked in bare prompts officially, and a server takes chat messages only: figures are "
                "comparable among servers, not with the published ones."
            )
        if self.long != "refuse":
            sentences.append(
                f"{task.id} is asked with --long {self.long}: clips over 30 s are heard whole, where the official run "
                "hears the first 30 s. This is another protocol: figures are not comparable with the published ones."
            )
        for sentence in sentences:
            self.tell(sentence)
        self._keep_check(task, "warnings", sentences)

    def _tell_dropped(self, task: Task) -> None:
        if self.model.dropped:
            names = ", ".join(self.model.dropped)
            sentence = f"{self.model.name} was asked without {names}, which its server does not take."
            self.tell(sentence)
            self._keep_check(task, "dropped", sentence)

    def _keep_check(self, task: Task, name: str, value: Any) -> None:
        found = read_json(self.folder / CHECKS, {})
        write_json(self.folder / CHECKS, {**found, task.id: {**found.get(task.id, {}), name: value}})

    def _check_hearing(self, task: Task, rows: Sequence[tuple[int, Example]]) -> None:
        """On rows evenly spread; not again where this folder's model was found to hear. Raises EvaluationError."""
        assert task.deaf is not None
        if read_json(self.folder / CHECKS, {}).get(task.id, {}).get("hearing", {}).get("hears"):
            return
        form, key_of = self.model.form(task), self._key_of(task)
        questions: list[Question] = []
        for index, example in rows[:: max(1, len(rows) // max(1, task.deaf.rows))]:
            row = read_row(index, example, _Unanswered(), key_of)
            if row.clip is not None and len(questions) < task.deaf.rows:
                questions.append(question_of(task, example, row.clip.waveform, form, row.key))
        if not questions:
            return  # every row's error is told later
        try:
            hearing = check_hearing(self.model, questions, task.deaf)
        except (EvaluationError, ConfigError):
            raise
        except Qwen2AudioError as error:
            self.tell(f"Whether {self.model.name} hears could not be checked on {task.id}: {error}")
            return
        self._keep_check(task, "hearing", hearing.to_json())
        refuse_deaf(self.model.name, task.id, hearing)

    def _key_of(self, task: Task) -> Callable[[Example, str], str]:
        decides = {**decoding_of(task.decoding), "system": task.system}
        if self.long != "refuse":
            decides["long"] = self.long
        return key_maker(task.id, decides, self.model.fingerprint)


class _Unanswered:
    """A log without answers, so that clips are decoded."""

    latest: Mapping[tuple[str, str], Prediction] = {}


def _ask_rows(
    run: Run, task: Task, rows: Sequence[tuple[int, Example]], log: PredictionLog, manifest: dict[Any, dict[str, Any]]
) -> TaskRun:
    """A bounded number of rows is with the model at a time, while the clips of the next ones are read."""
    done, form, model = TaskRun(task.id, len(rows)), run.model.form(task), run.model
    started: float | None = None

    def record(row: ReadRow, answer: Answer | str) -> None:
        prediction = _prediction(row, answer)
        log.add(prediction)
        run.advance(prediction)
        done.asked += 1
        done.audio_seconds += prediction.heard
        done.tokens += prediction.tokens
        if prediction.error is not None:
            done.failed.append(prediction)

    whole = run.long != "refuse"
    read = partial(read_row, log=log, key_of=run._key_of(task), whole=whole)

    def questions() -> Iterator[tuple[ReadRow, Submit]]:
        nonlocal started
        for row in read_rows(rows, read, WHOLE_CLIPS if whole else AHEAD):
            manifest[task.id, row.example.id] = _manifest_row(row)
            done.cut += row.known.heard < row.known.seconds if row.known else bool(row.clip and row.clip.is_cut)
            done.damaged += row.clip.notes if row.clip else ()
            if row.known is not None:
                run.advance(row.known)
            elif row.clip is None:
                record(row, row.error or "")
            else:
                started = time.monotonic() if started is None else started
                question = question_of(task, row.example, row.clip.waveform, form, row.key, run.long)
                yield row, partial(model.submit, question)

    for row, answer in answers(questions(), min(model.in_flight, WHOLE_CLIPS) if whole else model.in_flight):
        record(row, _sentence(answer) if isinstance(answer, Qwen2AudioError) else answer)
    done.seconds = 0.0 if started is None else time.monotonic() - started
    return done


def _sentence(error: Qwen2AudioError) -> str:
    return getattr(error, "sentence", "") or str(error)


def _prediction(row: ReadRow, answer: Answer | str) -> Prediction:
    example, clip = row.example, row.clip
    given = Answer("", 0, "error") if isinstance(answer, str) else answer
    return Prediction(
        key=row.key, task=example.task, id=example.id, source=example.source, audio=example.sound.name,
        text=given.text, reference=example.reference, prompt=example.prompt, choices=example.choices,
        group=example.group, seconds=round(clip.seconds, 6) if clip else 0.0,
        heard=round(clip.heard, 6) if clip else 0.0, tokens=given.tokens, finish_reason=given.finish_reason,
        error=answer if isinstance(answer, str) else None, columns=example.columns,
    )  # fmt: skip


def _manifest_row(row: ReadRow) -> dict[str, Any]:
    example = row.example
    seconds = row.clip.seconds if row.clip else row.known.seconds if row.known else 0.0
    return {
        "task": example.task, "id": example.id, "index": row.index, "source": example.source,
        "audio": example.sound.name, "offset": example.sound.offset, "duration": example.sound.duration,
        "sha1": row.sha1, "seconds": round(seconds, 6), "prompt": example.prompt, "reference": example.reference,
        "group": example.group,
    }  # fmt: skip


def list_fingerprint(examples: Sequence[Example]) -> str:
    """8 hex digits of a task's rows: ids, prompts, references."""
    digest = hashlib.sha1()
    for example in examples:
        parts = [example.id, example.source, example.prompt, example.reference, list(example.choices)]
        digest.update(json.dumps(parts).encode())
    return digest.hexdigest()[:8]


def peak_memory() -> int:
    """Bytes that this process had at most, on the GPU where it computed there."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
