"""A worker without a model, which answers at once, and does what a row's column "do" says: crash, be killed, raise."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Iterable, Iterator

from qwen2_audio.errors import AudioError
from qwen2_audio.jobs.runner import About, JobRow, Outcome, Work

FACTORY = "benchmarks.jobs.stub_worker:StubWorker"


class StubWorker:
    """See `qwen2_audio.jobs.runner.Worker`.

    Options: seconds a row, window, faults (chance that a row finds the worker crashing, whichever row it is),
    fingerprint.
    """

    def __init__(self, work: Work, number: int) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        options = work.options
        self._seconds, self._faults = options.get("seconds", 0.0), options.get("faults", 0.0)
        self.about = About(options.get("fingerprint", "stub"), "stub", {"dtype": "none"}, (), options.get("window", 16))

    def answer(self, rows: Iterable[JobRow | None]) -> Iterator[Outcome]:
        for item in rows:
            if item is None:
                time.sleep(0.0005)
                continue
            time.sleep(self._seconds)
            if random.random() < self._faults:
                os.kill(os.getpid(), random.choice((signal.SIGSEGV, signal.SIGKILL)))
            yield _outcome(item)

    def close(self) -> None: ...


def _outcome(item: JobRow) -> Outcome:
    do = item.row.columns.get("do")
    if do == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if do == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "wait":
        time.sleep(0.05)
    if do == "exit":
        os._exit(3)
    if do == "fail":
        return Outcome(item.number, error=f"{item.row.id} is no sound.", kind=AudioError.__name__)
    text = f"This is {item.row.id}."
    usage = {"prompt_tokens": item.number, "audio_tokens": 25, "completion_tokens": 3}
    result = {"text": text, "heard": 1.0, "finish_reason": "stop", "usage": usage, "notes": []}
    return Outcome(item.number, {**result, "model": "stub"})
