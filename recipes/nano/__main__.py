"""From nothing to a checkpoint: `python -m recipes.nano`; or one stage of it: `python -m recipes.nano encoder`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from ctypes.util import find_library
from pathlib import Path

from qwen2_audio.errors import Qwen2AudioError

from .continuing import (
    find_people_mistakes,
    fine_tune_people,
    hear,
    make_aligner,
    make_people,
    prefer_people,
    say_lines,
    settle,
    write_people_data,
)
from .stages import (
    Plan,
    find_mistakes,
    fine_tune,
    join_both,
    make_clips,
    prefer,
    pretrain,
    timed,
    train_encoder,
    train_language,
    widen,
    write_data,
)

STAGES = {
    "clips": make_clips,
    "encoder": train_encoder,
    "language": train_language,
    "join": join_both,
    "data": write_data,
    "joint": pretrain,
    "sft": fine_tune,
    "voices": widen,
    "mistakes": find_mistakes,
    "dpo": prefer,
    "kokoro": say_lines,
    "people-clips": make_people,
    "hear": hear,
    "people-data": write_people_data,
    "people": fine_tune_people,
    "people-mistakes": find_people_mistakes,
    "people-dpo": prefer_people,
    "aligner": make_aligner,
    "settle": settle,
}
# Those from "kokoro" on go on from a finished checkpoint: `python -m recipes.nano continue`.
CONTINUING = tuple(STAGES)[tuple(STAGES).index("kokoro") :]
# Each process takes its part of every batch.
SHARED = ("encoder", "language", "joint", "sft", "voices", "hear", "people", "people-dpo")
STAGES_HELP = "what to do; nothing: all, in this order; continue: all from kokoro on"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.nano", description="Make nano's sounds and speech, and train it."
    )
    parser.add_argument("stages", nargs="*", choices=[*STAGES, "continue", []], help=STAGES_HELP)
    parser.add_argument("--work", type=Path, default=Path("runs/nano"), help="clips, stages, logs, report")
    parser.add_argument(
        "--from", type=Path, dest="start", metavar="FOLDER", help="checkpoint that `continue` goes on from"
    )
    parser.add_argument("--clips", type=_positive(int), default=Plan.clips, help="training clips")
    parser.add_argument("--people", type=_positive(int), default=Plan.people, help="training clips of people")
    parser.add_argument("--lines", type=_positive(int), help="Kokoro says so many of its lines; not given: all")
    parser.add_argument(
        "--steps", type=_positive(float), default=1.0, metavar="SCALE", help="times the usual number of steps"
    )
    parser.add_argument("--threads", type=_positive(int), default=1, help="of the training")
    cores = os.cpu_count() or 1
    parser.add_argument(
        "--processes", type=_positive(int), default=min(2, cores), help=f"that share {', '.join(SHARED)}"
    )
    parser.add_argument("--workers", type=_positive(int), default=2, help="processes that synthesise")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    plan = Plan(
        given.work,
        clips=given.clips,
        people=given.people,
        lines=given.lines,
        scale=given.steps,
        threads=given.threads,
        workers=given.workers,
        seed=given.seed,
        start=given.start,
    )
    wanted = [one for name in given.stages or STAGES for one in (CONTINUING if name == "continue" else (name,))]
    for name in wanted:
        if given.processes > 1 and name in SHARED and "RANK" not in os.environ:
            if failed := subprocess.run(_torchrun(name, given.processes, plan), env=_environment()).returncode:
                return failed
        else:
            try:
                timed(name, STAGES[name], plan)
            except Qwen2AudioError as error:
                print(error, file=sys.stderr)
                return 2
    return 0


def _positive(number: Callable[[str], float]) -> Callable[[str], float]:
    """A kind of number for argparse, above 0."""

    def positive(text: str) -> float:
        if not (value := number(text)) > 0:
            raise argparse.ArgumentTypeError(f"found {text}, expected a number above 0")
        return value

    positive.__name__ = number.__name__
    return positive


def _environment() -> dict[str, str]:
    """With jemalloc, where that is installed: batches of many lengths leave glibc's heap in pieces, and after 700 steps
    of fine-tuning a step took half as long again."""
    library = find_library("jemalloc")
    return {**os.environ, **({"LD_PRELOAD": library} if library and "LD_PRELOAD" not in os.environ else {})}


def _torchrun(name: str, processes: int, plan: Plan) -> list[str]:
    """The command of a stage that several processes share."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    options = {"work": plan.work, "clips": plan.clips, "steps": plan.scale, "threads": plan.threads}
    options |= {"workers": plan.workers, "seed": plan.seed, "people": plan.people}
    options |= {} if plan.lines is None else {"lines": plan.lines}
    options |= {} if plan.start is None else {"from": plan.start}
    given = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    return [sys.executable, *launcher, "-m", "recipes.nano", name, *given]


if __name__ == "__main__":
    sys.exit(main())
