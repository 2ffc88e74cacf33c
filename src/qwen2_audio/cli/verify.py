"""`qwen2-audio verify`: a checkpoint's files and this machine's fast paths, checked in minutes."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from ..errors import ConfigError, did_you_mean
from .exit_codes import DONE, OUT_OF_BOUNDS
from .terminal import Device, Json, as_json, exit_on_sigterm, note, waiting

Target = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="Folder or hub name; default $QWEN2_AUDIO_MODEL, else the bundled nano.",
        show_default=False,
    ),
]
Only = Annotated[
    str,
    typer.Option(help="Parts of the table, separated by commas: checkpoint, machine, reference.", show_default=False),
]


def command(model: Target = None, device: Device = "auto", only: Only = "", json: Json = False) -> int:
    with waiting("Starting"):
        from ..checkpoint.locate import find
        from ..evaluate.verify import run
        from ..evaluate.verify.table import Report
        from ..pretrained.options import parse_device
    parts = [part for part in only.split(",") if part] or list(run.PARTS)
    for part in parts:
        if part not in run.PARTS:
            raise ConfigError(f"--only has {part!r}; expected {', '.join(run.PARTS)}.{did_you_mean(part, run.PARTS)}")
    where, on = find(model), parse_device(device, "device")
    started = time.monotonic()
    rows = []

    def tell(line: str) -> None:
        note(f"{time.monotonic() - started:4.0f} s  {line}")

    with exit_on_sigterm():
        for row in run.rows(where, on, parts, progress=tell):
            rows.append(row)
            if row.state == "OUT OF BOUNDS":
                note(f"OUT OF BOUNDS: {row.check}, {row.subject}: {row.figure} (bound {row.bound:g}) {row.note}")
    report = Report({"checkpoint": str(where), **_about(on)}, rows)
    print(as_json(report.to_dict()) if json else report.text())
    if not json:
        note("To report a problem, paste all of the table.")
    return DONE if report.passed else OUT_OF_BOUNDS


def _about(device: Any) -> dict[str, str]:
    """What the table was made by and on."""
    import torch

    from .. import __version__
    from ..bench import machine
    from ..native import library

    found = machine.describe(torch.get_num_threads())
    gpu = f", {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}" if device.type == "cuda" else ""
    return {
        "qwen2-audio": f"{__version__}, torch {torch.__version__}, Python {found['python']}",
        "device": f"{device}{gpu}",
        "machine": f"{found['cpu']}, {found['threads']} threads, {found['memory_gib']} GiB, {found['system']}",
        "kernels": library.load().reason,
        "date": found["date"],
    }
