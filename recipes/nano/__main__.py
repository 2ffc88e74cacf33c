"""From nothing to a checkpoint and its report: `python -m recipes.nano --out runs/nano/checkpoint`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .evaluate import BAR, evaluate
from .train import Plan, train_nano


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.nano", description="Make nano's sounds, train it, test it."
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/nano/checkpoint"), help="folder of the finished checkpoint"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/nano"), help="clips, unfinished stages, logs, report")
    parser.add_argument("--clips", type=int, default=Plan.clips, help="training clips, kinds in turn")
    parser.add_argument("--steps", type=float, default=1.0, metavar="SCALE", help="times the usual number of steps")
    parser.add_argument("--threads", type=int, default=1, help="of the training; two pay off only on an idle machine")
    parser.add_argument("--workers", type=int, default=2, help="processes that synthesise")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started = time.monotonic()
    plan = Plan(given.work, given.out, given.clips, given.steps, given.threads, given.workers, given.seed)
    train_nano(plan)
    print(f"{given.out}: trained in {(time.monotonic() - started) / 60:.0f} minutes", file=sys.stderr)
    return 0 if evaluate(given.out, given.work / "report", per_kind=20, more=100) >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
