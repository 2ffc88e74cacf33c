"""Python programs in processes of their own that do not have to import torch first.

They are forked from a server that has imported it: `import torch` takes 1.4 s of a core and its optimisers 1.3 s more,
which a suite of a hundred such processes would spend over and over. Of this package the server has nothing, so that
each program imports what it uses itself. Standard input and output are files.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Mapping, Sequence
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "torch", "torch._dynamo", "torch.distributed.fsdp", "numpy", "av", "soxr", "tokenizers", "safetensors.torch",
        "jinja2.sandbox", "rich.console", "typer",
    ]
)  # fmt: skip


class Program:
    """`python ARGUMENTS` (-c CODE, -m MODULE or a file, then what it gets), running."""

    def __init__(
        self,
        arguments: Sequence[object],
        *,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> None:
        self.arguments = [str(argument) for argument in arguments]
        self._streams = tempfile.TemporaryDirectory(prefix="program-")
        streams = Path(self._streams.name)
        (streams / "0").write_text(stdin)
        given = dict(os.environ if environment is None else environment)
        self.process = _CONTEXT.Process(target=_become, args=(self.arguments, folder or Path.cwd(), given, streams))
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def read(self, stream: int) -> str:
        """What it has written to standard output (1) or error (2) so far."""
        file = Path(self._streams.name, str(stream))
        return file.read_text(errors="replace") if file.exists() else ""

    def wait(self, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Its end; one that does not come is forced after `timeout` seconds, and an error."""
        self.process.join(timeout)
        late = self.process.exitcode is None
        if late:
            self.process.kill()
            self.process.join()
        assert self.process.exitcode is not None
        done = subprocess.CompletedProcess(self.arguments, self.process.exitcode, self.read(1), self.read(2))
        self._streams.cleanup()
        if late:
            raise subprocess.TimeoutExpired(self.arguments, timeout, done.stdout, done.stderr)
        return done


def run(
    arguments: Sequence[object],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` to its end, as `subprocess.run` with captured text gives it."""
    return Program(arguments, folder=folder, environment=environment, stdin=stdin).wait(timeout)


def run_together(
    arguments: Sequence[object],
    *,
    processes: int = 2,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 240,
) -> list[subprocess.CompletedProcess[str]]:
    """As many processes as torchrun would start, with what it would add to their environment, to the end of all."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    world = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    given = {**(os.environ if environment is None else environment), **world}
    programs = [
        Program(arguments, folder=folder, environment={**given, "RANK": rank, "LOCAL_RANK": rank})
        for rank in map(str, range(processes))
    ]
    return [program.wait(timeout) for program in programs]


def _become(arguments: list[str], folder: Path, environment: dict[str, str], streams: Path) -> None:
    """In the new process: what a fresh interpreter would be, and then the program."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    for number in range(3):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND if number else os.O_RDONLY
        os.dup2(os.open(streams / str(number), flags, 0o600), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    try:
        _execute(arguments)
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()


def _execute(arguments: list[str]) -> None:
    first, *rest = arguments
    if first == "-c":
        sys.path.insert(0, "")
        code, sys.argv = rest[0], ["-c", *rest[1:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)
    elif first == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")
