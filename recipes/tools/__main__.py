"""Spoken commands to calls of tools: `python -m recipes.tools` makes the rows, trains the LoRA and measures it."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

import qwen2_audio as qa
from qwen2_audio.errors import Qwen2AudioError
from qwen2_audio.evaluate.nano.speech.engines import check_engines
from qwen2_audio.train import sft
from qwen2_audio.train.config import TrainConfig

from .evaluation import Score, evaluate
from .rows import write_rows

BAR = 0.9  # of right calls, in each row of commands by voices of engines that training had
HEAD = "| held-out, greedy | right | parsed | n |\n|---|---|---|---|"


def train(work: Path, rows: int, workers: int) -> Path:
    """The folder of the adapter, trained once over `rows` rows, or gone on with from its newest checkpoint."""
    config = TrainConfig.from_file(Path(__file__).parent / "train.toml")
    data = replace(config.data, train=str(write_rows(rows, work / "data", workers)))
    return sft.run(replace(config, output=str(work / "adapter"), data=data, steps=rows))


def measure(adapter: Path, count: int) -> list[Score]:
    """Prints the table, a row as soon as it is known."""
    print(HEAD, flush=True)
    model = qa.load("nano", adapter=adapter, dtype="float32")
    return evaluate(model, count, lambda row: print(row, flush=True))


def met(scores: list[Score]) -> bool:
    """Every row of commands by voices of known engines reaches the bar."""
    return all(row.right >= BAR * row.asked for row in scores if "commands" in row.name and "voices" not in row.name)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m recipes.tools", description=__doc__)
    parser.add_argument("stages", nargs="*", choices=["train", "eval", []], help="nothing: both")
    parser.add_argument("--work", type=Path, default=Path("runs/tools"), help="clips, rows, adapter")
    parser.add_argument("--rows", type=int, default=500, help="of training, of 8 spoken turns each; a row is a step")
    parser.add_argument("--count", type=int, default=150, help="clips in each row of the table")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that synthesise")
    parser.add_argument("--bar", action="store_true", help=f"exit 3 where fewer than {BAR:.0%} of calls are right")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    stages = given.stages or ["train", "eval"]
    try:
        check_engines()
        started, busy = time.monotonic(), time.process_time()
        if "train" in stages:
            train(given.work, given.rows, given.workers)
            minutes, of_core = (time.monotonic() - started) / 60, (time.process_time() - busy) / 60
            print(f"training: {minutes:.1f} minutes, {of_core:.1f} of one core without the synthesis", flush=True)
        if "eval" in stages:
            scores = measure(given.work / "adapter" / "final", given.count)
            if given.bar and not met(scores):
                return 3
    except Qwen2AudioError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
