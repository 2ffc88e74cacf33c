"""The command in this process: cli("ask", "dog.wav") -> (status, stdout, stderr)."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qwen2_audio.cli.main import run

Cli = Callable[..., tuple[int, str, str]]


class Pipe(io.TextIOWrapper):
    """What stdin is when lines, or a sound, are piped in."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")


@pytest.fixture
def cli(tiny_checkpoint: Path, tmp_path: Path, monkeypatch, capsys, recwarn) -> Cli:
    """Runs in an empty folder, with the tiny checkpoint as the default model."""
    monkeypatch.setenv("QWEN2_AUDIO_MODEL", str(tiny_checkpoint))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("warnings.showwarning", lambda *_, **__: None)  # put back after the test

    def call(*arguments: object, stdin: bytes | str = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", Pipe(stdin.encode() if isinstance(stdin, str) else stdin))
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return call
