"""The answers to the questions of nano's examination, counted by row of its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..word_errors import word_error_rate
from .questions import Question, abstains, claims_no_wrong_fact, is_clear
from .sounds.kinds import NAMED
from .words import kinds_named
from .world.utterance import plain

Row = dict[str, Any]  # name, value, n; bar and met where there is a bar
# What the CPU recipe must reach: a rate of errors at most, an accuracy at least.
BARS: Mapping[str, float] = {
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
# What the rows of real and lifelike recordings must reach. They are no part of `nano.abstain.false_rate`.
LIFELIKE_BARS: Mapping[str, float] = {
    "nano.joined.wer": 0.15,
    "nano.neural_voice.wer": 0.05,
    "nano.real_speech.wer": 0.60,
    "nano.real_speech.exact": 0.45,
    "nano.real_speech.numbers": 0.80,
    "nano.real_speech.words": 0.35,
    "nano.real_speech.declines": 0.50,
    "nano.real_speech.declines_known": 0.15,
    "nano.real_sound.accuracy": 0.50,
}
LIFELIKE = ("nano.real_", "nano.neural_voice", "nano.joined", "nano.sound_field")  # beginnings of such rows
REAL_SPEECH = "nano.real_speech.wer"
LOWER_IS_BETTER = (".wer", "_rate", "declines_known")


def _empty_confusion() -> npt.NDArray[np.int64]:
    return np.zeros((len(NAMED), len(NAMED) + 1), np.int64)


@dataclass
class Tally:
    """All answers of one checkpoint, by row of the table."""

    right: dict[str, list[bool]] = field(default_factory=dict)
    texts: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # (truth, answer), for word errors
    wrong: list[dict[str, Any]] = field(default_factory=list)
    # Rows: the kind that was played. Columns: the kind that was named; the last: none, or several.
    confusion: npt.NDArray[np.int64] = field(default_factory=_empty_confusion)

    def add(self, question: Question, answer: str) -> None:
        """Count an answer in every row that it belongs to."""
        clip, right = question.clip, question.judge(answer, question.truth)
        for row in question.rows:
            self.right.setdefault(row, []).append(right)
        row = question.rows[0]
        if row.endswith(".wer"):
            # Of a single real word, the words of an abstention would count tenfold; there it is nothing written.
            said = "" if row == REAL_SPEECH and abstains(answer) else plain(answer)
            self.texts.setdefault(row, []).append((plain(question.truth), said))
        if row.startswith("nano.voice_chat"):
            wrong_fact = not claims_no_wrong_fact(answer, question.truth)
            self.right.setdefault(row.replace(".accuracy", ".wrong_fact_rate"), []).append(wrong_fact)
        if row == "nano.sound.accuracy":
            named = kinds_named(answer) & set(NAMED)
            self.confusion[NAMED.index(clip.kind), NAMED.index(named.pop()) if len(named) == 1 else -1] += 1
        if row == REAL_SPEECH:
            self.right.setdefault("nano.real_speech.declines_known", []).append(abstains(answer))
        if is_clear(clip) and row.count(".") == 2 and "beyond" not in row and not row.startswith(LIFELIKE):
            self.right.setdefault("nano.abstain.false_rate", []).append(abstains(answer))
        if not right:
            about = {"kind": clip.kind, "voice": clip.voice, "family": clip.family, "seconds": round(clip.seconds, 2)}
            self.wrong.append({"row": row, "said": answer, "truth": question.truth, **about})

    def rows(self) -> list[Row]:
        """Name, value and n of every row; the bar, and whether it is met, where there is one."""
        rows, bars = [], {**BARS, **LIFELIKE_BARS}
        for name, right in self.right.items():
            value = word_error_rate(self.texts[name]) if name in self.texts else sum(right) / len(right)
            row: Row = {"name": name, "value": round(value, 4), "n": len(right)}
            if name in bars:
                lower = name.endswith(LOWER_IS_BETTER)
                row |= {"bar": bars[name], "met": value <= bars[name] if lower else value >= bars[name]}
            rows.append(row)
        return rows
