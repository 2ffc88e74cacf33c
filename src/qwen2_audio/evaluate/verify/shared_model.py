"""Tensor parallelism: two processes (on a CPU), or one a GPU, against the readable path.

Run as `python -m qwen2_audio.evaluate.verify.shared_model FOLDER DEVICE OUT PROMPTS` by each of them.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from .subject import Subject, Truth, distance, fast, full_precision, logits_of
from .table import Check, NotHere, Row

SECONDS = 300.0


def shared_model_row(subject: Subject, truth: Truth, device: torch.device) -> Row:
    """The logits of a model that processes share."""

    def measure() -> tuple[float, str]:
        processes = torch.cuda.device_count() if device.type == "cuda" else 2
        if processes < 2:
            raise NotHere("one GPU only")
        return distance(_logits(subject, device, processes), truth.logits), f"{processes} processes"

    return Check("machine", "tensor parallel", 1e-4).row(subject.name, measure)


def _logits(subject: Subject, device: torch.device, processes: int) -> list[torch.Tensor]:
    """What the processes of torchrun compute. Raises RuntimeError, with the end of what one said, where it fails."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    world = {**os.environ, "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "logits.pt"
        command = [
            sys.executable,
            "-m",
            __name__,
            str(subject.folder),
            device.type,
            str(out),
            str(len(subject.prompts)),
        ]
        started = [
            subprocess.Popen(
                command, env={**world, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE, text=True
            )
            for rank in range(processes)
        ]
        try:
            said = [process.communicate(timeout=SECONDS)[1] for process in started]
        finally:
            for process in started:
                process.kill()
        for process, text in zip(started, said, strict=True):
            if process.returncode:
                raise RuntimeError(f"a process failed: {' '.join(text.split())[-400:]}")
        logits: list[torch.Tensor] = torch.load(out, weights_only=True)
        return logits


def main(folder: str, device: str, out: str, prompts: str) -> None:
    """One of the processes; the first writes."""
    subject = Subject.of("", Path(folder), short=int(prompts) == 2)
    with full_precision():
        logits = logits_of(fast(subject, torch.device(device), tensor_parallel=True), subject.prompts)
    if os.environ["RANK"] == "0":
        torch.save(logits, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
