"""`qwen2-audio train`: SFT, DPO, a preview of the training data, the check that training works, or an aligner."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import ConfigError, did_you_mean
from .terminal import exit_on_sigterm, note, waiting

KINDS = ("sft", "dpo", "preview", "overfit", "aligner")
NOT_LEARNT = 1  # exit status

Kind = Annotated[
    str,
    typer.Argument(
        help="sft, dpo, preview (which tokens would be trained on), overfit (learn 8 clips by heart), or aligner "
        "(times of words)."
    ),
]
Target = Annotated[
    str | None,
    typer.Argument(
        metavar="CONFIG|MODEL",
        help="The run, a TOML file, see docs/training.md; for overfit a model, default nano; for aligner one.",
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Argument(
        help="aligner: sounds with their texts, or without, in any form of docs/datasets.md.", show_default=False
    ),
]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", help="aligner: the file; default in the model's folder.", show_default=False),
]
Minutes = Annotated[float, typer.Option(help="aligner: how much of the data is used, at most.")]
MINUTES = 10.0


def command(
    what: Kind,
    on: Target = None,
    data: Data = None,
    output: Output = None,
    minutes: Minutes = MINUTES,
    force: Annotated[bool, typer.Option("--force", help="aligner: write a file that exists already.")] = False,
) -> int:
    if what not in KINDS:
        near = did_you_mean(what, list(KINDS))
        raise ConfigError(f"There is no training {what!r}; expected {', '.join(KINDS)}.{near}")
    if what == "aligner":
        if on is None or data is None:
            raise ConfigError("train aligner needs a model and sounds: qwen2-audio train aligner MODEL DATA.")
        from .train_aligner import run

        return run(on, data, output, minutes, force=force)
    if data is not None or output is not None or force or minutes != MINUTES:
        raise ConfigError(
            f"DATA, --output, --minutes and --force belong to train aligner; leave them out of train {what}."
        )
    if what == "overfit":
        return overfit(on or "nano")
    if on is None:
        raise ConfigError(f"train {what} needs a config, a TOML file: qwen2-audio train {what} run.toml.")
    from ..train.config import TrainConfig

    config = TrainConfig.from_file(on)
    if what == "preview":
        from ..train import preview

        preview.run(config)
        return 0
    with waiting("Starting"):
        from ..train import dpo, sft, start
    setup = start.set_up(config)
    task = (sft if what == "sft" else dpo).task_of(setup)
    from ..train import loop
    from ..train.quarantine import Quarantine

    result = loop.run(task)
    if setup.processes.first:
        report = Quarantine(setup.quarantine.path)  # read again, because other processes may have written to it
        if report:
            note(report.summary())
        print(result)
    return 0


def overfit(model: str) -> int:
    """Overfit eight clips; status 1 where that fails."""
    with waiting("Starting"):
        from ..train import overfit as check
    with exit_on_sigterm():
        outcome = check.run(model, tell=note)
    for clip, answer in outcome.wrong.items():
        note(f"{clip}: said {answer!r}, expected {check.ANSWERS[clip]!r}")
    print(outcome)
    return 0 if outcome.passed else NOT_LEARNT
