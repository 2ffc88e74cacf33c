"""How well nano hears: clips made again from their seeds, asked about through the package, judged by its words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...api.loading import load
from ...types import Message, SamplingParams
from ..word_errors import load_jiwer, word_error_rate
from .questions import Question, abstains, is_clear, no_wrong_fact, questions
from .sounds.kinds import NAMED
from .speech.engines import check_engines
from .words import kinds_named
from .world.utterance import plain

BATCH = 64
MAX_NEW_TOKENS = 40
QUESTIONS = 11  # for each of `count`, for the progress bar
# What the CPU recipe must reach: a rate of errors at most, an accuracy at least.
BARS = {
    "nano.asr.wer": 0.04,
    "nano.asr_unseen_variant.wer": 0.06,
    "nano.asr_unseen_voice.wer": 0.15,
    "nano.sound.accuracy": 0.95,
    "nano.voice_chat.accuracy": 0.80,
    "nano.voice_chat_unseen.accuracy": 0.75,
    "nano.commands.accuracy": 0.85,
    "nano.sex.accuracy": 0.93,
    "nano.sex_unseen.accuracy": 0.85,
    "nano.abstain.recall": 0.80,
    "nano.abstain.false_rate": 0.05,
}
LOWER_IS_BETTER = (".wer", "_rate")


@dataclass
class Tally:
    """What was said to every question, by row."""

    right: dict[str, list[bool]] = field(default_factory=dict)
    texts: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # truth and what was said, for word errors
    wrong: list[dict[str, Any]] = field(default_factory=list)
    confusion: np.ndarray = field(default_factory=lambda: np.zeros((len(NAMED), len(NAMED) + 1), int))

    def add(self, question: Question, said: str) -> None:
        clip, right = question.clip, question.judge(said, question.truth, question.clip)
        for row in question.rows:
            self.right.setdefault(row, []).append(right)
        row = question.rows[0]
        if row.endswith(".wer"):
            self.texts.setdefault(row, []).append((plain(question.truth), plain(said)))
        if row.startswith("nano.voice_chat"):
            wrong = not no_wrong_fact(said, question.truth, clip)
            self.right.setdefault(row.replace(".accuracy", ".wrong_fact_rate"), []).append(wrong)
        if row == "nano.sound.accuracy":
            found = kinds_named(said) & set(NAMED)
            self.confusion[NAMED.index(clip.kind), NAMED.index(found.pop()) if len(found) == 1 else -1] += 1
        if is_clear(clip) and row.count(".") == 2 and "beyond" not in row:
            self.right.setdefault("nano.abstain.false_rate", []).append(abstains(said))
        if not right:
            about = {"kind": clip.kind, "voice": clip.voice, "family": clip.family, "seconds": round(clip.seconds, 2)}
            self.wrong.append({"row": row, "said": said, "truth": question.truth, **about})

    def rows(self) -> list[dict[str, Any]]:
        """Name, value and n of every row; bars where there are any."""
        found = []
        for name, right in self.right.items():
            value = word_error_rate(self.texts[name]) if name in self.texts else sum(right) / len(right)
            row: dict[str, Any] = {"name": name, "value": round(value, 4), "n": len(right)}
            if name in BARS:
                lower = name.endswith(LOWER_IS_BETTER)
                row |= {"bar": BARS[name], "met": value <= BARS[name] if lower else value >= BARS[name]}
            found.append(row)
        return found


class Listener:
    """A checkpoint that answers, through the package's engine."""

    def __init__(self, folder: Path) -> None:
        self.chat = load(folder, dtype="float32")

    def answers(self, conversations: Sequence[list[Message]], seed: Sequence[int] | None = None) -> list[str]:
        """The next thing it says in each conversation: the likeliest, or with a `seed` one drawn from all there is."""
        params = [SamplingParams(max_tokens=MAX_NEW_TOKENS, temperature=0.0)] * len(conversations)
        if seed is not None:
            seeds = np.random.default_rng(seed).integers(1 << 31, size=len(conversations))
            params = [replace(one, temperature=1.0, top_k=0, seed=int(s)) for one, s in zip(params, seeds, strict=True)]
        return [answer.text for answer in self.chat.batch(conversations, params)]


def evaluate(folders: Sequence[Path], count: int) -> list[Tally]:
    """The whole test of each checkpoint, on the same clips, with a progress bar on stderr.

    Raises EvaluationError where a synthesiser is missing, ConfigError where jiwer is.
    """
    from rich.console import Console
    from rich.progress import track

    check_engines()
    load_jiwer()
    listeners, tallies = [Listener(folder) for folder in folders], [Tally() for _ in folders]
    batches, total = _batches(questions(count)), count * QUESTIONS // BATCH
    for batch in track(batches, f"asking {folders[0]}", total=total, console=Console(stderr=True)):
        for listener, tally in zip(listeners, tallies, strict=True):
            for question, said in zip(batch, listener.answers([q.messages for q in batch]), strict=True):
                tally.add(question, said)
    return tallies


def _batches(asked: Iterator[Question]) -> Iterator[list[Question]]:
    while batch := list(islice(asked, BATCH)):
        yield batch


@dataclass(frozen=True)
class Report:
    """What was written into a folder."""

    rows: list[dict[str, Any]]  # of the table: name, value, n; bar and met where there is a bar
    plot: Path | None  # confusion.png; None where matplotlib is not installed

    @property
    def met(self) -> bool:
        """Whether no bar is missed."""
        return all(row.get("met", True) for row in self.rows)

    def lines(self) -> Iterator[str]:
        """The table as text."""
        for row in self.rows:
            bar = f"bar {row['bar']:.0%}, {'met' if row['met'] else 'NOT met'}" if "bar" in row else ""
            old = f"before DPO {row['before_dpo']:.1%}" if "before_dpo" in row else ""
            yield f"{row['name']:38s} {row['value']:7.1%}  n={row['n']:<5d} {bar:22s} {old}"


def report(tally: Tally, before: Tally | None, folder: Path) -> Report:
    """Write report.json and, where matplotlib is installed, confusion.png into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, earlier = tally.rows(), {row["name"]: row["value"] for row in before.rows()} if before else {}
    for row in rows:
        if row["name"] in earlier:
            row["before_dpo"] = earlier[row["name"]]
    data = {"rows": rows, "wrong": tally.wrong}
    (folder / "report.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return Report(rows, plot_confusion(tally.confusion, folder / "confusion.png"))


def plot_confusion(confusion: np.ndarray, path: Path) -> Path | None:
    """Rows: what it was. Columns: what nano said. None where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None

    figure = Figure(figsize=(8, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.add_subplot()
    panel.imshow(confusion, cmap="Blues")
    panel.set_xticks(range(len(NAMED) + 1), [*NAMED, "(none, or several)"], rotation=90)
    panel.set_yticks(range(len(NAMED)), NAMED)
    for (i, j), count in np.ndenumerate(confusion):
        if count:
            panel.text(j, i, str(count), ha="center", va="center", fontsize=7, color="white" if i == j else "black")
    panel.set(xlabel="nano said", ylabel="it was")
    figure.savefig(path, dpi=90)
    return path
