"""The driver's end of a worker process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from qwen2_audio.errors import CapacityError, Qwen2AudioError

REPOSITORY = Path(__file__).parents[2]  # on the path of every worker, so that it finds this package


class Worker:
    """A side running in its own process; a context manager, since the process must not outlive the run."""

    def __init__(
        self,
        side: str,
        threads: int,
        *,
        module: str,
        python: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Run `python -m benchmarks.<module> THREADS` with this interpreter, or with `python`, which then needs only
        that module's own imports. `side`: what errors call it."""
        self.side = side
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed on exit
        variables = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        variables |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **(environment or {})}
        inherited = [] if python is not None else [os.environ.get("PYTHONPATH", "")]
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), *inherited]))
        self._process = subprocess.Popen(
            [str(python or sys.executable), "-m", f"benchmarks.{module}", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **variables},
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe is not None:
                pipe.close()

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Give one order and wait for its reply.

        Raises:
            Qwen2AudioError: the order failed there.
            CapacityError: the process was killed, most likely for its memory.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail(op)
        line = self._process.stdout.readline()
        if not line:
            self._fail(op)
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise Qwen2AudioError(f"The bench's {self.side} side failed at {op!r}: {reply['error']}")
        return reply

    def _fail(self, op: str) -> NoReturn:
        code = self._process.wait()
        if code == -9:
            raise CapacityError(
                f"The bench's {self.side} side was killed at {op!r}, most likely because memory ran out; "
                "free some memory, or use a smaller checkpoint."
            )
        self._log.seek(0)
        lines = self._log.read().strip().splitlines() or ["it wrote nothing"]
        raise Qwen2AudioError(f"The bench's {self.side} side ended with exit status {code} at {op!r}: {lines[-1]}")
