"""`qwen2-audio train`: SFT, DPO, or a look at what would be trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError, did_you_mean
from .terminal import note, waiting

KINDS = ("sft", "dpo", "preview")

What = Annotated[str, typer.Argument(help="sft, dpo, or preview: show which tokens would be trained on.")]
Config = Annotated[Path, typer.Argument(help="The run, a TOML file; see docs/training.md.")]


def command(what: What, config: Config) -> None:
    if what not in KINDS:
        near = did_you_mean(what, list(KINDS))
        raise ConfigError(f"There is no training {what!r}; expected {', '.join(KINDS)}.{near}")
    from ..train.config import TrainConfig

    settings = TrainConfig.from_file(config)
    if what == "preview":
        from ..train import preview

        preview.run(settings)
        return
    with waiting("Starting"):
        from ..train import dpo, sft, start
    setting = start.begin(settings)
    task = (sft if what == "sft" else dpo).task_of(setting)
    from ..train import loop

    result = loop.run(task)
    if setting.quarantine:
        note(setting.quarantine.summary())
    print(result)
