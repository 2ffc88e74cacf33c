"""`qwen2-audio eval calibrate`: whether the probabilities of decisions mean what they say."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from . import terminal


def command(
    limit: Annotated[int, typer.Option(help="Clips to decide about.", min=1)] = 308,
    model: terminal.Model = None,
    adapter: terminal.Adapter = None,
    device: terminal.Device = "auto",
    dtype: terminal.DType = "auto",
    quantize: terminal.Quantize = None,
    json: terminal.Json = False,
) -> None:
    if not terminal.is_first():
        terminal.load_model(model, device, dtype, adapter, quantize)  # exits when the first process ends
    from ..evaluate.nano.decisions import decide_kinds

    chat = terminal.load_model(model, device, dtype, adapter, quantize)
    with terminal.counting("Deciding", limit) as advance:
        found = decide_kinds(chat, limit, advance)
    print(terminal.as_json(asdict(found)) if json else "\n".join(found.lines()))
