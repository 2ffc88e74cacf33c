"""`qwen2-audio eval run`: ask every row of some benchmarks, score the answers, write a report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, DatasetError
from ..longform.questions.policy import parse_policy
from .exit_codes import OUT_OF_BOUNDS, SOME_FAILED
from .terminal import Adapter, Device, DType, Quantize, exit_on_sigterm, is_first, load_model, note, waiting

if TYPE_CHECKING:
    from ..evaluate.example import Example
    from ..evaluate.question import Model
    from ..evaluate.run import TaskRun
    from ..evaluate.task import Task

NANO = "nano"
NANO_ROWS = 300  # questions a row of nano's table

Tasks = Annotated[
    str, typer.Argument(metavar="TASK[,TASK]|paper|instruct|nano", help="Ids of `eval list`, or a group of them.")
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Folder or hub name; default $QWEN2_AUDIO_MODEL, else the bundled nano. With --base-url: the model's "
        "name at the server, default the first that it lists.",
        show_default=False,
    ),
]
BaseUrl = Annotated[
    str | None, typer.Option(help="A server with OpenAI's chat completions, instead of a checkpoint here.")
]
ApiKey = Annotated[str | None, typer.Option(help="The server's key; also $QWEN2_AUDIO_API_KEY.", show_default=False)]
Data = Annotated[
    Path | None, typer.Option(help="The task's list, or the folder of its data, in any layout of `eval list`.")
]
Out = Annotated[Path, typer.Option(help="The run's folder. The same command again goes on where it stopped.")]
Limit = Annotated[int | None, typer.Option(help="The first N rows of each task; of nano N a row of its table.", min=1)]
Sample = Annotated[int | None, typer.Option(help="N rows of each task, drawn by --seed.", min=1)]
Seed = Annotated[int, typer.Option(help="Of --sample: the same seed draws the same rows.")]
Shard = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Every N-th row, from the I-th on; `eval score` puts the shards together."),
]
Language = Annotated[
    str | None, typer.Option("--lang", help="The language that is spoken, for the task asr: en, zh, ...")
]
Before = Annotated[str | None, typer.Option(help="nano only: another checkpoint for a second column, say before DPO.")]
InFlight = Annotated[
    int | None,
    typer.Option(help="Questions at a time; default 64 here, 16 to a server. 1: one after another.", min=1),
]
DeafCheckOption = Annotated[
    bool,
    typer.Option("--deaf-check/--no-deaf-check", help="Stop where exchanging clips hardly changes the answers."),
]
Long = Annotated[
    str,
    typer.Option(
        "--long",
        help="Hear clips over 30 s whole: parts, native, native:9, transcript. Another protocol than the official "
        "one, refuse, which hears their first 30 s.",
    ),
]
Real = Annotated[
    Path | None,
    typer.Option(
        help="nano only: the folder of `python -m recipes.nano.real_world`; default runs/nano/real.", show_default=False
    ),
]
Bars = Annotated[bool, typer.Option("--bars", help="nano only: exit with 3 where a bar of its table is missed.")]


def command(
    tasks: Tasks,
    model: Checkpoint = None,
    adapter: Adapter = None,
    quantize: Quantize = None,
    device: Device = "auto",
    dtype: DType = "auto",
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    data: Data = None,
    out: Out = Path("runs/eval"),
    limit: Limit = None,
    sample: Sample = None,
    seed: Seed = 0,
    shard: Shard = None,
    lang: Language = None,
    before: Before = None,
    real: Real = None,
    in_flight: InFlight = None,
    long: Long = "refuse",
    deaf_check: DeafCheckOption = True,
    bars: Bars = False,
) -> int:
    if tasks.strip() == NANO:
        if data or base_url or sample or shard or adapter or quantize or long != "refuse":
            raise ConfigError(
                "The task nano renders its own clips and loads a checkpoint's folder; --data, --base-url, --sample, "
                "--shard, --adapter, --quantize and --long are for the other tasks."
            )
        return examine_nano(model, before, limit or NANO_ROWS, out, bars=bars, real=real)
    if before is not None or bars or real is not None:
        raise ConfigError(
            "--before, --real and --bars are of the task nano; compare two runs with `qwen2-audio eval compare`."
        )
    from ..evaluate.question import fitted
    from ..evaluate.results import try_scoring
    from ..evaluate.rows import Selection, parse_shard

    parse_policy(long)
    selection = Selection(limit, sample, seed, parse_shard(shard))
    found = find_rows(tasks, data, lang)
    for task, examples in found:
        try_scoring(task, examples[0])
    if base_url is not None:
        if adapter or quantize:
            raise ConfigError("--adapter and --quantize change a checkpoint here; leave them out with --base-url.")
        from ..evaluate.endpoint import IN_FLIGHT, Endpoint

        asked: Model = Endpoint(base_url, model, api_key, in_flight=in_flight or IN_FLIGHT)
    else:
        options: dict[str, Any] = {"device": device, "dtype": dtype, "adapter": adapter, "quantize": quantize}
        chat = load_model(model, **options)
        from ..evaluate.local_model import LocalModel

        asked = LocalModel(chat, options)
    asked.in_flight = in_flight or asked.in_flight
    try:
        found = [fitted(asked, *pair) for pair in found]
        runs = ask(asked, found, selection, data or Path(), out, deaf_check=deaf_check, long=long)
    finally:
        asked.close()
    for run in runs:
        note(summary(run))
    if selection.shard is not None:
        note(f"Shard {shard} is done. When all are, put them together: qwen2-audio eval score {out}")
    elif is_first():
        from .eval_score import show_scores

        show_scores(out)
    return SOME_FAILED if any(run.failed for run in runs) else 0


def find_rows(tasks: str, data: Path | None, language: str | None) -> list[tuple[Task, Sequence[Example]]]:
    """Each task of the list with its rows in `data`. Of a group, tasks without data are left out, with a
    note. Raises ConfigError for nano among others, and without data, DatasetError for data that cannot be read.
    """
    from ..evaluate.layouts.find import find_examples
    from ..evaluate.registry.tasks import GROUPS, find_tasks

    found = find_tasks(tasks, language=language)
    if any(task.id == NANO for task in found):
        raise ConfigError("The task nano is run by itself: qwen2-audio eval run nano.")
    if data is None:
        raise ConfigError(f"--data is missing: where the rows of {found[0].id} are. {found[0].where}".rstrip())
    is_group = not GROUPS.keys().isdisjoint(name.strip() for name in tasks.split(","))
    rows, missing = list[tuple["Task", "Sequence[Example]"]](), list[DatasetError]()
    with waiting("Looking for the rows"):
        for task in found:
            try:
                rows.append((task, list(find_examples(task, data))))
            except DatasetError as error:
                if not is_group:
                    raise
                note(f"{task.id} is left out: {error}")
                missing.append(error)
    if not rows:
        raise missing[0]
    return rows


def ask(
    model: Model,
    tasks: Sequence[tuple[Task, Sequence[Example]]],
    selection: Any,
    data: Path,
    out: Path,
    *,
    deaf_check: bool,
    long: str = "refuse",
) -> list[TaskRun]:
    """Run with a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from ..evaluate.folder import shard_folder
    from ..evaluate.run import Run

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars = {task.id: progress.add_task(task.id, total=len(selection.rows(examples))) for task, examples in tasks}
        run = Run(
            shard_folder(out, selection.shard), model, selection, deaf_check, long, str(data.resolve()),
            tell=lambda sentence: progress.console.print(sentence, markup=False, highlight=False, soft_wrap=True),
            advance=lambda prediction: progress.advance(bars[prediction.task]),
        )  # fmt: skip
        return run.ask(tasks)


def summary(run: TaskRun) -> str:
    """One line on a task: rows, what failed, what was cut, how fast."""
    parts = [f"{run.task}: {run.rows} rows"]
    if run.rows > run.asked:
        parts.append(f"{run.rows - run.asked} were there already")
    if run.cut:
        parts.append(f"{run.cut} clips last over 30 s, of which the first 30 s are heard, as in the official run")
    if run.damaged:
        parts.append(f"{len(run.damaged)} clips are damaged, the first of them: {run.damaged[0].rstrip('.')}")
    if run.seconds and run.asked:
        parts.append(f"{run.audio_seconds / run.seconds:.1f} s of sound a second")
    line = "; ".join(parts) + "."
    if run.failed:
        first = run.failed[0]
        line += f" {len(run.failed)} failed, the first of them {first.id}: {first.error}"
    return line


def examine_nano(
    model: str | None, before: str | None, count: int, out: Path, *, bars: bool, real: Path | None = None
) -> int:
    """Nano's table, as docs/nano.md has it."""
    from ..checkpoint.locate import find

    folders = [Path(find(name)) for name in (model, *([before] if before else []))]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder; the nano task tests a checkpoint's folder.")
    from ..evaluate.nano.examination import examine
    from ..evaluate.nano.real_world import FOLDER, missing
    from ..evaluate.nano.report import write_report

    if real is not None and (reason := missing(real)):
        raise ConfigError(reason)
    started = time.monotonic()
    with exit_on_sigterm():
        tally, *others = examine(folders, count, real or FOLDER, note)
    seconds = time.monotonic() - started
    report = write_report(tally, others[0] if others else None, out)
    for line in report.lines():
        print(line)
    print(f"{seconds:.0f} s")
    if report.plot is None:
        note("confusion.png is not drawn, as matplotlib is not installed: pip install 'qwen2-audio[plot]'.")
    return OUT_OF_BOUNDS if bars and not report.met else 0
