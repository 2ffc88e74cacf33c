"""The rows of a task that went worst, with their words aligned and their clips to listen to."""

from __future__ import annotations

from collections.abc import Sequence

from ..example import Prediction
from ..score.echoes import has_echo
from ..score.health import is_loop, is_other_language
from ..score.score import Scored, row_values
from ..score.scorers import SCORERS
from ..score.transcripts import transcript_tokens
from ..task import Task
from ..word_errors import align
from .figures import shown, unit
from .markup import tag, text
from .players import Players

MOST = 12  # rows of a task
MOST_FAILED = 20
LEGEND = tag(
    "div",
    "<span><i style='background:var(--changed)'>changed</i></span>"
    "<span><i style='background:var(--lost)'>lost</i></span>"
    "<span><i style='background:var(--added)'>added</i></span><span>above: the reference, below: the answer</span>",
    "legend",
)
CLASSES = {"equal": "same", "replace": "changed", "delete": "lost", "insert": "added"}


def worst_rows(task: Task, scored: Scored, players: Players) -> str:
    """Rows with errors, those with the most of them first; nothing where there are none."""
    values = row_values(scored)
    by_errors = _counts_errors(task)
    first = scored.scores.measures[0] if scored.rows else None
    ranked = []
    for number, value in enumerate(values):
        if first is None or value is None or not _is_wrong(value, lower_is_better=first.lower_is_better):
            continue
        errors = float(first.counts[number, :3].sum()) if by_errors else -value
        ranked.append((-errors, -value if first.lower_is_better else value, number))
    if not ranked or first is None:
        return ""
    cards = []
    for _, _, number in sorted(ranked)[:MOST]:
        row = scored.rows[number]
        value, read_as = values[number] or 0.0, scored.scores.read_as
        body = _aligned(task, row) if by_errors else _pair(row, read_as[number] if read_as else None)
        figure = f"{shown(first.name, value, 1)}{unit(first.name)}" if value else ""  # of what is simply wrong, nothing
        cards.append(_card(task, row, figure, body, players))
    shown_of = f"{min(len(ranked), MOST)} of {len(ranked)} with errors" if len(ranked) > MOST else f"{len(ranked)}"
    head = tag("h3", f"Rows that went worst ({shown_of})")
    return head + (LEGEND if by_errors else "") + "".join(cards)


def failed_rows(rows: Sequence[Prediction]) -> str:
    """Rows without an answer, and why."""
    failed = [row for row in rows if row.error is not None]
    if not failed:
        return ""
    lines = "".join(tag("p", f"{tag('b', text(row.id))} {text(row.error)}", "soft") for row in failed[:MOST_FAILED])
    more = f" of {len(failed)}" if len(failed) > MOST_FAILED else ""
    return tag("h3", f"Rows without an answer ({min(len(failed), MOST_FAILED)}{more})") + lines


def _counts_errors(task: Task) -> bool:
    return task.scorer in ("wer", "cer")


def _is_wrong(value: float, *, lower_is_better: bool) -> bool:
    return value > 0 if lower_is_better else value < 1


def _card(task: Task, row: Prediction, figure: str, body: str, players: Players) -> str:
    length = f"{row.seconds:.1f} s" if row.seconds else ""
    about = [tag("b", text(row.id)), text(row.source), length, figure, *map(text, _signs(task, row))]
    head = "".join(tag("span", part) for part in about if part)
    return tag("div", tag("header", head + players.player(task.id, row.id)) + body, "row")


def _signs(task: Task, row: Prediction) -> list[str]:
    found = {
        "stopped at the limit of tokens": row.finish_reason == "length",
        "empty": not row.text.strip(),
        "a loop": is_loop(row.text),
        "another language": is_other_language(row.text, task.language),
        "a phrase before the transcript": SCORERS[task.scorer].transcribes and has_echo(row.text),
        "cut at 30 s": 0 < row.heard < row.seconds - 0.05,
    }
    return [name for name, there in found.items() if there]


def _aligned(task: Task, row: Prediction) -> str:
    """Reference above, answer below, a column a word, as they are counted."""
    pairs = align(transcript_tokens(task, row.reference or ""), transcript_tokens(task, row.text))
    columns = [
        tag("span", tag("i", text(reference) or "&nbsp;") + tag("i", text(answer) or "&nbsp;"), CLASSES[kind])
        for kind, reference, answer in pairs
    ]
    return tag("div", "".join(columns), "words")


def _pair(row: Prediction, read_as: object) -> str:
    choices = "".join(
        tag("div", tag("span", text(choice), "right") if choice == row.reference else text(choice))
        for choice in row.choices
    )
    question = str(row.columns.get("question") or row.prompt or "")
    lines = [
        ("asked", text(question)),
        ("choices", choices),
        ("right", "" if row.choices else text(row.reference or "")),
    ]
    lines += [("answer", text(row.text) or "(nothing)"), ("read as", text(read_as) if isinstance(read_as, str) else "")]
    return tag("dl", "".join(tag("dt", name) + tag("dd", value) for name, value in lines if value), "pair")
