"""All checks, one after the other, so that memory holds one model at a time."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from ..random_checkpoint import Shape
from .checkpoint_files import Files, checkpoint_rows
from .fast_paths import engine_rows, kv_rows, quantized_rows
from .readable_path import golden_row, half_precision_rows, log_mel_row, readable_rows
from .reference import reference_rows
from .shared_model import shared_model_row
from .subject import Subject, Truth, full_precision, nano, random_official, readable
from .table import Row

PARTS = ("checkpoint", "machine", "reference")


def rows(
    where: str | Path,
    device: torch.device,
    parts: Sequence[str] = PARTS,
    *,
    shape: Shape | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Iterator[Row]:
    """The rows of `parts` for the checkpoint `where`, as they come.

    shape: of the random checkpoint; None: the official widths. Raises WeightsError and ConfigError for a checkpoint
    that is not there, CapacityError where the disk has no room for the random one.
    """
    files = Files.find(where)
    if "checkpoint" in parts:
        progress(f"the files of {where}")
        yield from checkpoint_rows(files)
    if "machine" in parts:
        with full_precision():
            yield golden_row(device)
            yield log_mel_row(device)
            yield from subject_rows(nano(), device, progress)
            with tempfile.TemporaryDirectory(prefix="qwen2-audio-verify-") as scratch:
                progress("a random checkpoint of the official widths")
                yield from subject_rows(random_official(Path(scratch), shape), device, progress)
    if "reference" in parts:
        progress("transformers beside it")
        dtype = torch.bfloat16 if device.type == "cuda" or files.official else torch.float32
        yield from reference_rows(files.label, files.folder, device, dtype)


def subject_rows(subject: Subject, device: torch.device, progress: Callable[[str], None]) -> Iterator[Row]:
    """The rows of one model on this machine."""
    progress(f"{subject.name}: the readable path")
    model = readable(subject, torch.device("cpu"))
    truth = Truth.of(model, subject)
    if device.type != "cpu":
        model = readable(subject, device)
    yield from readable_rows(subject, model, truth)
    yield from half_precision_rows(subject, model, truth)
    del model
    gc.collect()
    progress(f"{subject.name}: the engine")
    yield from engine_rows(subject, truth, device)
    gc.collect()
    progress(f"{subject.name}: the caches of fewer bits")
    yield from kv_rows(subject, truth, device)
    gc.collect()
    progress(f"{subject.name}: quantised weights")
    yield from quantized_rows(subject, device)
    gc.collect()
    progress(f"{subject.name}: several processes")
    yield shared_model_row(subject, truth, device)
