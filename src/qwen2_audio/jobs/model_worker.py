"""The worker that holds a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..api.loading import load
from ..checkpoint.fingerprint import weights_fingerprint
from ..checkpoint.hub import resolve
from ..checkpoint.weights import PATTERNS
from ..quantize.scheme import KEY as QUANTIZED
from .operations import operation_of
from .reading import AHEAD, answered
from .runner import About, JobRow, Outcome, Work

ENCODER_CACHE_BYTES = 50_000_000  # reached within the first minutes, so that memory is flat from there on


class ModelWorker:
    """See `runner.Worker`."""

    def __init__(self, work: Work, number: int) -> None:
        """Load the checkpoint. On a machine with several GPUs, worker `number` takes one of them by turns."""
        config = work.config
        self._in_flight = config.in_flight
        self._chat = load(
            config.model,
            device=_device(config.device, number),
            dtype=config.dtype,
            quantize=config.quantize or None,
            adapter=config.adapter or None,
        )
        # A corpus asks about a clip once; what is being answered stays, whatever the limit.
        self._chat.settings = replace(self._chat.settings, encoder_cache_bytes=ENCODER_CACHE_BYTES)
        self._name, kind = operation_of(config)
        self._operation = kind.make(self._chat, config)
        self.about = self._describe(config.adapter)

    def _describe(self, adapter: str) -> About:
        chat = self._chat
        settings = {"dtype": str(chat.dtype).removeprefix("torch.")}
        quantized: dict[str, Any] | None = getattr(chat.model.config, QUANTIZED, None)
        if quantized:
            settings["quantize"] = str(quantized.get("scheme"))
        folders = [resolve(chat.name, PATTERNS, local_files_only=True), *([Path(adapter)] if adapter else [])]
        name = Path(chat.name).name if Path(chat.name).is_dir() else chat.name
        fingerprint = weights_fingerprint(folders, settings)
        return About(fingerprint, name, settings, (chat.about, *chat.notes), self._in_flight + AHEAD)

    def answer(self, rows: Iterable[JobRow | None]) -> Iterator[Outcome]:
        fingerprint = self.about.fingerprint
        for outcome in answered(self._operation, rows, self._in_flight):
            if outcome.result is None:
                yield outcome
            else:
                yield Outcome(outcome.number, {**outcome.result, "model": fingerprint})

    def close(self) -> None:
        self._operation.close()
        self._chat.service().close()


def _device(device: str, number: int) -> str:
    if device not in ("auto", "cuda"):
        return device
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{number % count}" if count else device
