"""report.html: every figure of a run with its interval, what went wrong, and the worst rows to read and hear."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...datasets.line_log import replace_file
from ...datasets.row import Sound
from ...errors import Qwen2AudioError
from ..folder import CHECKS, SPEED, Identity, read_json, read_manifest
from ..layouts.find import find_examples
from ..results import Results
from ..score.score import Scored, measure
from ..task import Task
from .figures import Figure, distance_text, figures_of, is_plain, scaled, shown, signs_of, unit
from .markup import bars, interval, matrix, page, table, tag, text
from .players import Players
from .rows import failed_rows, worst_rows

REPORT = "report.html"
LENGTHS = (0, 2, 5, 10, 15, 20, 30)  # seconds at which bins of clips begin
HEAD = (
    ("", ""), ("rows", "number"), ("value", "number"), ("95 % interval", "number"), ("", ""), ("published", ""),
)  # fmt: skip


def write_report(results: Results, scores: Mapping[str, Any]) -> Path:
    """Write the page beside scores.json. Raises EvaluationError where there is no room."""
    players = Players(_finder(results))
    checks, speeds = read_json(results.folder / CHECKS, {}), read_json(results.folder / SPEED, [])
    parts = [_head(results.identity, scores), _overview(scores)]
    for task in results.tasks:
        scored = measure(task, results.of(task), results.judgements)
        of_task = [one for one in speeds if one["task"] == task.id]
        parts.append(_task(task, scores["tasks"][task.id], scored, checks.get(task.id, {}), of_task, players))
        parts.append(failed_rows(results.of(task)))
    parts.append(_foot(players))
    path = results.folder / REPORT
    data = page(f"{results.identity.model}: evaluation", "\n".join(parts))
    replace_file(path, data.encode(), "the answers and scores are kept")
    return path


def _finder(results: Results) -> Callable[[str, str], Sound | None]:
    """Where a row's clip is: the file that the manifest names, else where the task's data were."""
    manifest, again = read_manifest(results.folder), dict[str, dict[str, Sound]]()
    tasks = {task.id: task for task in results.tasks}

    def find(task: str, row: str) -> Sound | None:
        about = manifest.get((task, row))
        if about is not None and Path(about["audio"]).is_file():
            return Sound(about["audio"], about["offset"], about["duration"])
        data = results.identity.data.get(task, "")
        if task not in again:
            try:
                rows = find_examples(tasks[task], data) if data and Path(data).exists() else ()
                again[task] = {example.id: example.sound for example in rows}
            except Qwen2AudioError:
                again[task] = {}
        sound = again[task].get(row)
        is_link = sound is not None and isinstance(sound.source, str) and "://" in sound.source
        return None if is_link else sound

    return find


def _head(identity: Identity, scores: Mapping[str, Any]) -> str:
    count = sum(scored["n"] for scored in scores["tasks"].values())
    settings = ", ".join(text(value) for value in identity.settings.values())
    names = len(scores["tasks"])
    return (
        tag("h1", text(identity.model))
        + tag(
            "p",
            f"{count} answers to {names} {'task' if names == 1 else 'tasks'}{', ' if settings else ''}{settings}",
            "soft",
        )
        + tag(
            "p",
            text(identity.fingerprint if ":" in identity.fingerprint else f"weights {identity.fingerprint}"),
            "mono",
        )
    )


def _overview(scores: Mapping[str, Any]) -> str:
    rows = []
    for scored in scores["tasks"].values():
        figures = list(figures_of(scored))
        scale = _scale([figure for figure in figures if not figure.minor])
        rows += [_figure_row(figure, scale, first=not figure.part and not figure.minor) for figure in figures]
    legend = (
        "The dot is this run, the band its 95 % interval (whole speakers or dialogues are resampled where they are "
        "known), strokes are published figures. Differences are given in half-widths of such a band: within one, "
        "chance alone explains it."
    )
    return tag("h2", "Results") + tag("p", legend, "soft") + table(HEAD, rows)


def _scale(figures: Sequence[Figure]) -> tuple[float, float]:
    """One for all parts of a task, so that they can be compared; published figures are on it."""
    values = [one for figure in figures for one in (figure.value, figure.low, figure.high) if one is not None]
    values += [one.value for figure in figures for one in figure.published]
    scaled_values = [scaled(figures[0].metric, value) for value in values] if figures else [0.0]
    return min(scaled_values), max(scaled_values)


def _figure_row(figure: Figure, scale: tuple[float, float], *, first: bool) -> str:
    name = text(figure.part or figure.task) if not figure.minor else ""
    label = f"{tag('b', name)} {text(figure.name)}" if first else name or text(figure.name)
    picture, between = "", ""
    if figure.low is not None and figure.high is not None:
        between = f"{shown(figure.metric, figure.low)} – {shown(figure.metric, figure.high)}"
        goldens = [(one.by, scaled(figure.metric, one.value)) for one in figure.published]
        values = [scaled(figure.metric, value) for value in (figure.value, figure.low, figure.high)]
        if not figure.minor:
            picture = interval((values[0], values[1], values[2]), goldens, scale)
    published = "<br>".join(
        f"{text(one.by)} {tag('b', shown(figure.metric, one.value))} ({distance_text(one, figure.metric)})"
        for one in figure.published
    )
    cells = [
        tag("td", label),
        tag("td", str(figure.n), "number"),
        tag("td", f"{shown(figure.metric, figure.value)}{unit(figure.metric)}", "value"),
        tag("td", between, "number"),
        tag("td", picture),
        tag("td", published, "published"),
    ]
    return tag("tr", "".join(cells), "first" if first else "minor")


def _task(
    task: Task,
    scored: Mapping[str, Any],
    rows: Scored,
    checks: Mapping[str, Any],
    speeds: Sequence[Mapping[str, Any]],
    players: Players,
) -> str:
    warnings = [*checks.get("warnings", []), *filter(None, [checks.get("dropped")]), *signs_of(scored)]
    parts = [tag("h2", text(task.title)), tag("p", text(scored["signature"]), "mono")]
    parts += [tag("p", text(warning), "warning") for warning in warnings]
    parts.append(_chips(scored, checks.get("hearing"), speeds))
    parts.append(_by_length(rows))
    if "confusion" in scored:
        confusion = scored["confusion"]
        parts.append(tag("h3", "What was said (columns) for what it was (rows)"))
        parts.append(matrix(confusion["labels"], [*confusion["labels"], "none of them"], confusion["matrix"]))
    parts.append(worst_rows(task, rows, players))
    return "\n".join(part for part in parts if part)


def _chips(scored: Mapping[str, Any], hearing: Mapping[str, Any] | None, speeds: Sequence[Mapping[str, Any]]) -> str:
    figure = scored["metrics"][scored["primary"]]
    counted = [
        (name.replace("_", " "), figure[name])
        for name in ("substitutions", "deletions", "insertions", "reference_tokens")
        if name in figure
    ]
    chips = [f"{name} {tag('b', f'{value:,}')}" for name, value in counted]
    if hearing:
        change = f"{hearing['change']:.3g}"
        what = "nats a token" if hearing["measure"] == "log-probability" else "of the answers"
        chips.append(f"hears: exchanging clips changed {tag('b', change)} {what}")
    if speeds and "audio_seconds_per_second" in speeds[-1]:
        last = speeds[-1]
        chips.append(f"{tag('b', format(last['audio_seconds_per_second'], '.1f'))} s of sound a second")
        chips.append(f"{tag('b', format(last['tokens_per_second'], '.1f'))} tokens a second")
        chips.append(f"{tag('b', format(last['peak_memory_bytes'] / 1e9, '.2f'))} GB of memory at most")
    return tag("div", "".join(tag("span", chip) for chip in chips), "chips") if chips else ""


def _by_length(scored: Scored) -> str:
    """The first measure by the length of clips; nothing where all fall into one bin."""
    if not scored.rows or not any(row.seconds for row in scored.rows):
        return ""
    first, lines = scored.scores.measures[0], []
    for start, end in zip(LENGTHS, (*LENGTHS[1:], float("inf")), strict=True):
        rows = [number for number, row in enumerate(scored.rows) if start <= row.seconds < end]
        if rows:
            value = float(first.value(first.counts[rows].sum(0)))
            label = f"{start} – {end:g} s" if end != float("inf") else f"{start} s and over"
            if value == value:
                behind = f"{shown(first.name, value)}{unit(first.name)}   {len(rows)} rows"
                lines.append((label, max(scaled(first.name, value), 0.0), behind))
    if len(lines) < 2:
        return ""
    what = "Score" if is_plain(first.name) else "Errors" if first.lower_is_better else "Right answers"
    return tag("h3", f"{what} by length of the clip") + bars(lines)


def _foot(players: Players) -> str:
    told = ["Made by qwen2-audio eval. The figures are in scores.json, every answer in predictions.jsonl."]
    if players.left_out:
        told.append(f"{players.left_out} clips are left out of this page, which would become too large.")
    if players.missing:
        told.append(f"{players.missing} clips are not where they were, or cannot be read.")
    return tag("footer", text(" ".join(told)))
