"""`qwen2-audio quantize`: write a checkpoint in 4 or 8 bits, for CPUs and small memories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import terminal

if TYPE_CHECKING:
    from ..inputs.processor import Qwen2AudioProcessor
    from ..quantize.calibrate import Calibration
    from ..quantize.convert import Job, Part

QUESTION = "Describe what you hear."  # the question about a calibration clip without a conversation

Model = Annotated[str, typer.Argument(help="The checkpoint: folder, hub name, or nano.")]
To = Annotated[Path, typer.Option(help="Folder for the quantised checkpoint; new, or empty.")]
SchemeName = Annotated[str, typer.Option("--scheme", help="int4 or int8.")]
Group = Annotated[
    int | None,
    typer.Option(help="Weights that share a scale, 32 or 64; default 64 for int4, 32 for int8.", show_default=False),
]
Calibrate = Annotated[
    list[str] | None,
    typer.Option(
        help="A clip, or a .jsonl of conversations, to calibrate on; repeatable.",
        show_default=False,
    ),
]


def command(
    model: Model,
    to: To,
    scheme: SchemeName = "int4",
    group: Group = None,
    calibrate: Calibrate = None,
    json: terminal.Json = False,
) -> None:
    with terminal.waiting("Starting"):
        from ..checkpoint.locate import find
        from ..quantize.convert import Job, check_target, convert
    job = Job(find(model), to, scheme, group)
    check_target(to)
    calibration = _calibrated(job, calibrate) if calibrate else None
    about = {"calibrated_on": [Path(name).name for name in calibrate]} if calibrate else None
    parts = convert(job, calibration, about)
    if json:
        print(terminal.as_json([_row(part) for part in parts]))
        return
    for line in _table([_row(part) for part in parts]):
        terminal.note(line)
    print(to)


def _calibrated(job: Job, names: list[str]) -> Calibration:
    """Load the plain model in float32 and calibrate on the clips and .jsonl files `names`."""
    import torch

    from ..api.placement import sizes_of
    from ..checkpoint.config import Qwen2AudioConfig
    from ..checkpoint.memory import require_memory
    from ..inputs.processor import Qwen2AudioProcessor
    from ..pretrained import Qwen2AudioForConditionalGeneration
    from ..quantize.calibrate import calibrate
    from ..quantize.convert import refuse_quantized
    from ..quantize.scheme import Scheme, check_name

    check_name(job.scheme)
    config = Qwen2AudioConfig.from_pretrained(job.source)
    refuse_quantized(Path(job.source), config)
    float32_bytes = sizes_of(config).parameters * torch.float32.itemsize
    require_memory(float32_bytes, "Calibrating runs the model in float32, which")
    prompts = list(_prompts(names, Qwen2AudioProcessor.from_pretrained(job.source)))
    plain = Qwen2AudioForConditionalGeneration.from_pretrained(job.source, dtype=torch.float32)
    scheme = Scheme.for_model(plain, job.scheme, job.group)
    tokens = sum(prompt["input_ids"].numel() for prompt in prompts)
    terminal.note(f"Calibrating on {len(prompts)} conversations of {tokens} tokens.")
    with terminal.waiting("Calibrating"):
        return calibrate(plain, prompts, scheme)


def _prompts(names: list[str], processor: Qwen2AudioProcessor) -> Iterator[dict[str, Any]]:
    from ..inputs import messages
    from ..inputs.collate import to_tensors
    from ..inputs.prompt import Prompt, build_prompt, custom_template
    from ..train.data import Dataset

    for name in names:
        if name.endswith(".jsonl"):
            data = Dataset(name, processor)
            for index in range(len(data)):
                row = data.example(index)
                yield to_tensors([Prompt(row.ids, row.mels, row.frames, ())], 0)
        else:
            conversation = [messages.user(QUESTION, audio=name)]
            yield to_tensors([build_prompt(conversation, processor, custom_template(processor))], 0)


def _row(part: Part) -> dict[str, Any]:
    return {
        "part": part.name,
        "stored_as": part.stored_as,
        "parameters": part.parameters,
        "bytes": part.bytes,
        "relative_error": part.loss.relative,
    }


def _table(rows: list[dict[str, Any]]) -> list[str]:
    from ..checkpoint.memory import format_bytes, format_count

    total = sum(row["bytes"] for row in rows)
    lines = [("part", "stored as", "parameters", "bytes", "relative error")]
    for row in rows:
        error = f"{row['relative_error']:.4f}" if row["relative_error"] else "none"
        lines.append(
            (row["part"], row["stored_as"], format_count(row["parameters"]), format_bytes(row["bytes"]), error)
        )
    lines.append(("all", "", format_count(sum(row["parameters"] for row in rows)), format_bytes(total), ""))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
