"""How well nano hears: clips made again from their seeds, asked about through the package, judged by its words.

python -m recipes.nano.evaluate --model src/qwen2_audio/nano --out runs/nano/report
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .conversations import CAPTION_PROMPT, WHAT, WHAT_HELD_OUT, is_it, level, user, what
from .mix import LOUD_DB, QUIET_DB, Clip, render_clip
from .sounds.kinds import NAMED, NAMES
from .words import kinds_named

BAR = 0.90  # of the named kinds, over all clips
MARGIN_DB = 2.0  # clips this near to a limit are neither asked nor judged on loudness


@dataclass
class Score:
    """Rights and totals, by row name."""

    rows: dict[str, list[int]] = field(default_factory=dict)
    wrong: list[dict[str, Any]] = field(default_factory=list)  # what failed, word for word

    def add(self, row: str, right: bool, **about: Any) -> None:
        tally = self.rows.setdefault(row, [0, 0])
        tally[0] += right
        tally[1] += 1
        if not right:
            self.wrong.append({"row": row, **about})

    def share(self, *rows: str) -> float:
        """Right answers over all clips of `rows`."""
        total = sum(self.rows[row][1] for row in rows)
        return sum(self.rows[row][0] for row in rows) / total if total else 0.0


class Listener:
    """A checkpoint that answers, greedily."""

    def __init__(self, folder: Path) -> None:
        from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
        from qwen2_audio.processor import Qwen2AudioProcessor

        self.model = Qwen2AudioForConditionalGeneration.from_pretrained(folder)
        self.processor = Qwen2AudioProcessor.from_pretrained(folder)

    def answer(self, messages: list[dict[str, Any]], clips: list[np.ndarray]) -> str:
        """The next thing it says in a conversation."""
        prompt = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return self.go_on(prompt, clips)

    def go_on(self, prompt: str, clips: list[np.ndarray]) -> str:
        """What it continues `prompt` with."""
        inputs = self.processor(text=prompt, audio=clips or None, return_tensors="pt")
        ids = self.model.generate(**inputs, max_new_tokens=48)
        return str(self.processor.batch_decode(ids[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)[0])


def hear_kinds(listener: Listener, per_kind: int, score: Score, show: Callable[[str], None]) -> np.ndarray:
    """Ask what every test clip is, in four ways; returns the confusion matrix [kinds, kinds + 1] of the first."""
    confusion = np.zeros((len(NAMES), len(NAMES) + 1), int)
    for number in range(per_kind):
        for row in range(len(NAMES)):
            index = number * len(NAMES) + row
            wave, clip = render_clip("test", index)
            rng = np.random.default_rng((7, index))
            said = _ask_all_ways(listener, wave, clip, rng, score)
            found = kinds_named(said)
            confusion[row, NAMES.index(next(iter(found))) if len(found) == 1 else -1] += 1
        show(f"{number + 1} of {per_kind} clips of every kind: {score.share(*_kind_rows(score, NAMED)):.1%} right")
    return confusion


def _kind_rows(score: Score, kinds: tuple[str, ...]) -> list[str]:
    return [f"kind.{name}" for name in kinds if f"kind.{name}" in score.rows]


def _ask_all_ways(listener: Listener, wave: np.ndarray, clip: Clip, rng: np.random.Generator, score: Score) -> str:
    """The answer to a known wording, which counts for the kind; the other ways have rows of their own."""

    def judge(row: str, said: str) -> None:
        score.add(row, kinds_named(said) == {clip.kind}, kind=clip.kind, seconds=round(clip.seconds, 2), said=said)

    question, _ = what(clip, rng, WHAT)
    said = listener.answer([user(0, question)], [wave])
    judge(f"kind.{clip.kind}", said)
    judge("wording.known" if clip.kind in NAMED else "abstain.recall", said)
    if clip.kind in NAMED:
        score.add("abstain.not_false", not kinds_named(said) - set(NAMED), kind=clip.kind, said=said)
    way = int(rng.integers(3))
    if way == 0:
        judge("wording.held_out", listener.answer([user(0, what(clip, rng, WHAT_HELD_OUT)[0])], [wave]))
    elif way == 1:
        judge("voice_chat.sound_only", listener.answer([user(0)], [wave]))
    else:
        judge("caption.base", listener.go_on(CAPTION_PROMPT, [wave]))
    return said


def hear_more(listener: Listener, count: int, score: Score) -> None:
    """Yes or no, loudness, two clips in one turn, a second clip in a second turn, sounds of sorts never trained on."""
    for number in range(count):
        index = 100_000 + number
        (wave, clip), rng = render_clip("test", index), np.random.default_rng((8, index))
        question, truth = is_it(clip, rng)
        said = listener.answer([user(0, question)], [wave])
        if clip.kind in NAMED:
            score.add("yes_no", said[:2] == truth[:2], kind=clip.kind, asked=question, said=said)
        if min(abs(clip.level_db - LOUD_DB), abs(clip.level_db - QUIET_DB)) > MARGIN_DB:
            question, truth = level(clip, rng)
            said = listener.answer([user(0, question)], [wave])
            score.add("loudness", said == truth, kind=clip.kind, level_db=round(clip.level_db, 1), said=said)
        _two_clips(listener, (wave, clip), render_clip("test", 200_000 + 7 * number + 3), score)
        strange, _ = render_clip("test", number, "unheard")
        said = listener.answer([user(0, "What is this sound?")], [strange])
        score.add("unheard_sorts.abstains", not kinds_named(said) & set(NAMED), said=said)


def _two_clips(listener: Listener, one: tuple[np.ndarray, Clip], two: tuple[np.ndarray, Clip], score: Score) -> None:
    (first, a), (second, b) = one, two
    said = listener.answer([user(0, 1, "What are these two sounds?")], [first, second])
    halves = said.split(", the second")
    right = len(halves) == 2 and kinds_named(halves[0]) == {a.kind} and kinds_named(halves[1]) == {b.kind}
    score.add("two_clips.both_right", right, kinds=[a.kind, b.kind], said=said)
    question = user(0, "What is this sound?")
    before = {"role": "assistant", "content": listener.answer([question], [first])}
    said = listener.answer([question, before, user(1, "How about this one?")], [first, second])
    score.add("second_turn", kinds_named(said) == {b.kind}, kind=b.kind, said=said)


def report(score: Score, confusion: np.ndarray, folder: Path, seconds: float) -> float:
    """Print the table, write report.json and confusion.png into `folder`; returns the accuracy over the named kinds."""
    folder.mkdir(parents=True, exist_ok=True)
    overall = score.share(*_kind_rows(score, NAMED))
    for row, (right, total) in score.rows.items():
        print(f"{row:28s} {right:4d} / {total:4d}  {right / total:7.1%}")
    clips = sum(score.rows[row][1] for row in _kind_rows(score, NAMED))
    print(f"{'named kinds, overall':28s} {clips:11d}  {overall:7.1%}   (bar {BAR:.0%}; {seconds:.0f} s)")
    rows = {name: {"right": r, "n": n, "value": round(r / n, 4)} for name, (r, n) in score.rows.items()}
    data = {"sound.accuracy": round(overall, 4), "n": clips, "rows": rows, "wrong": score.wrong}
    (folder / "report.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    plot_confusion(confusion, folder / "confusion.png")
    return overall


def plot_confusion(confusion: np.ndarray, path: Path) -> None:
    """Rows: what it was. Columns: what nano said."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panel = plt.subplots(figsize=(8, 7.5))
    panel.imshow(confusion, cmap="Blues")
    panel.set_xticks(range(len(NAMES) + 1), [*NAMES, "(unclear)"], rotation=90)
    panel.set_yticks(range(len(NAMES)), NAMES)
    for (i, j), count in np.ndenumerate(confusion):
        if count:
            panel.text(j, i, str(count), ha="center", va="center", fontsize=7, color="white" if i == j else "black")
    panel.set(xlabel="nano said", ylabel="it was")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def evaluate(folder: Path, out: Path, per_kind: int, more: int) -> float:
    """The whole test of the checkpoint in `folder`."""
    started, score = time.monotonic(), Score()
    listener = Listener(folder)
    confusion = hear_kinds(listener, per_kind, score, lambda line: print(line, file=sys.stderr))
    hear_more(listener, more, score)
    return report(score, confusion, out, time.monotonic() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description="Test nano on sounds that training never had.")
    parser.add_argument("--model", type=Path, default=Path("src/qwen2_audio/nano"), help="checkpoint folder")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/nano/report"), help="folder of report.json and confusion.png"
    )
    parser.add_argument("--per-kind", type=int, default=20, help="clips of every kind")
    parser.add_argument(
        "--more", type=int, default=100, help="clips for yes/no, loudness, two clips, two turns, strange sounds"
    )
    given = parser.parse_args()
    return 0 if evaluate(given.model, given.out, given.per_kind, given.more) >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
