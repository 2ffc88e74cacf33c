"""`qwen2-audio eval judge`: a language model judges the answers of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from .eval_run import ApiKey
from .eval_score import show_scores
from .terminal import Device, DType, Quantize, load_model, note

if TYPE_CHECKING:
    from ..evaluate.judge.judging import JudgeRun
    from ..evaluate.question import Model
    from ..evaluate.results import Results

SOME_FAILED = 1
Folder = Annotated[Path, typer.Argument(help="A run's folder.")]
JudgeName = Annotated[
    str | None,
    typer.Option(
        "--judge", help="A chat checkpoint's folder or hub name; with --base-url the judge's name at the server.",
        show_default=False,
    ),
]  # fmt: skip
BaseUrl = Annotated[str | None, typer.Option(help="The judge's server, with OpenAI's chat completions.")]


def command(
    folder: Folder,
    judge: JudgeName = None,
    base_url: BaseUrl = None,
    api_key: ApiKey = None,
    device: Device = "auto",
    dtype: DType = "auto",
    quantize: Quantize = None,
) -> int:
    if judge is None and base_url is None:
        raise ConfigError("Nobody is named to judge: give --judge, a chat checkpoint, or --base-url, a server.")
    from ..evaluate.judge.judging import summary
    from ..evaluate.results import read_results

    results = read_results(folder)
    if base_url is not None:
        from ..evaluate.endpoint import Endpoint

        model: Model = Endpoint(base_url, judge, api_key)
    else:
        options: dict[str, Any] = {"device": device, "dtype": dtype, "quantize": quantize}
        chat = load_model(judge, **options)
        from ..evaluate.local_model import LocalModel

        model = LocalModel(chat, options)
    try:
        run = _judge(results, model)
    finally:
        model.close()
    for line in summary(run):
        note(line)
    show_scores(folder)
    return SOME_FAILED if run.failed else 0


def _judge(results: Results, model: Model) -> JudgeRun:
    """With a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import Progress

    from ..evaluate.judge.judging import judge_answers

    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("judging", total=None)
        return judge_answers(
            results.folder, model, results.tasks, results.predictions,
            advance=lambda total: progress.update(bar, total=total, advance=1),
        )  # fmt: skip
