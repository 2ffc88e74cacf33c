"""Where our time goes between the waveform and the answer, and how near each stage is to what the machine can do."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..model.cache import KVCache
from .ours import Ours

Stage = dict[str, Any]  # stage, ms, share of the total it belongs to, rate, unit of the rate
_REPEATS = 3
_PARTS = {"self_attn": "attention", "mlp": "mlp", "lm_head": "head"}


def profile(ours: Ours, clip: npt.NDArray[np.float32], ids: torch.Tensor, new_tokens: int) -> list[Stage]:
    """Stages of the first token and of one decode step, after one warm-up each.

    clip: float32 [S]; ids: int64 [1, T], expanded; new_tokens: decode steps to average over.
    """
    model, features = ours.model, ours.log_mel(clip)
    frames = [int(features.mask.sum())]
    mel = _median(lambda: ours.log_mel(clip))
    encoder = _median(lambda: model.audio_tower.encode(features.log_mel, frames))
    embedded = _median(lambda: model.embed_prompt(ids, features.log_mel, None, features.mask))
    embeds = model.embed_prompt(ids, features.log_mel, None, features.mask).inputs_embeds
    prefill, prefill_parts = _steps(model, lambda: _prefill(model, embeds, new_tokens)[1], 1)
    logits, cache = _prefill(model, embeds, new_tokens)[0]
    step, step_parts = _steps(model, lambda: _decode(model, logits, cache, new_tokens), new_tokens)
    first = mel + max(encoder, embedded) + prefill
    positions = embeds.shape[1]
    return [
        *_machine(),
        _stage("first token", first, first),
        _stage("  log-mel", mel, first),
        _stage("  encoder", encoder, first, _gflops(model.audio_tower.layers, frames[0] // 2), "GFLOP/s"),
        _stage("  projector, embedding, merge", max(embedded - encoder, 0.0), first),
        _stage("  prefill", prefill, first, _gflops(model.language_model.model.layers, positions), "GFLOP/s"),
        *(_stage(f"    {name}", seconds, first) for name, seconds in prefill_parts.items()),
        _stage("decode, a token", step, step, _gigabytes(model.language_model), "GB/s"),
        *(_stage(f"  {name}", seconds, step) for name, seconds in step_parts.items()),
    ]


def _stage(name: str, seconds: float, total: float, work: float | None = None, unit: str = "") -> Stage:
    rate = None if work is None or not seconds else work / seconds
    return {"stage": name, "ms": 1000 * seconds, "share": seconds / total, "rate": rate, "unit": unit}


def _median(run: Callable[[], object], repeats: int = _REPEATS) -> float:
    """Seconds, after one warm-up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _steps(model: nn.Module, run: Callable[[], float], count: int) -> tuple[float, dict[str, float]]:
    """Seconds of one of `count` steps, and those of its parts; `run` returns the seconds of all."""
    run()
    with _stopwatches(model) as spent:
        total = run() / count
    parts = {name: spent[name] / count for name in _PARTS.values()}
    parts["the rest (norms, RoPE, additions)"] = total - sum(parts.values())
    return total, parts


@contextmanager
def _stopwatches(model: nn.Module) -> Iterator[dict[str, float]]:
    """Seconds spent in each kind of part of the language model, while inside."""
    spent: dict[str, float] = defaultdict(float)
    started: dict[str, float] = {}
    hooks = []
    for path, module in model.named_modules():
        kind = _PARTS.get(path.rpartition(".")[2])
        if kind is None or not path.startswith("language_model."):
            continue

        def start(module: nn.Module, arguments: Any, kind: str = kind) -> None:
            started[kind] = time.perf_counter()

        def stop(module: nn.Module, arguments: Any, output: Any, kind: str = kind) -> None:
            spent[kind] += time.perf_counter() - started[kind]

        hooks += [module.register_forward_pre_hook(start), module.register_forward_hook(stop)]
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()


def _prefill(model: Any, embeds: torch.Tensor, new_tokens: int) -> tuple[tuple[torch.Tensor, KVCache], float]:
    cache = model.new_cache(1, embeds.shape[1] + new_tokens)
    start = time.perf_counter()
    out = model.language_model(inputs_embeds=embeds, past_key_values=cache, logits_to_keep=1)
    return (out.logits, cache), time.perf_counter() - start


def _decode(model: Any, logits: torch.Tensor, cache: KVCache, new_tokens: int) -> float:
    """Seconds of `new_tokens` greedy steps; the cache is as before afterwards."""
    length = cache.length
    start = time.perf_counter()
    for _ in range(new_tokens):
        token = logits[:, -1].argmax(-1, keepdim=True)
        logits = model.language_model(token, past_key_values=cache, logits_to_keep=1).logits
    seconds = time.perf_counter() - start
    cache.crop(length)
    return seconds


def _gflops(layers: nn.Module, positions: int) -> float:
    """Of the matrix products with weights: the larger part by far at these lengths."""
    return sum(2 * p.numel() * positions for p in layers.parameters() if p.dim() == 2) / 1e9


def _gigabytes(language_model: Any) -> float:
    """Weights that one decode step reads: all but the embedding, of which it takes one row."""
    read = [*language_model.model.layers.parameters(), language_model.lm_head.weight]
    return float(sum(p.numel() * p.element_size() for p in read)) / 1e9


def _machine() -> list[Stage]:
    """What the machine does in fp32 at its best: one large product, and one pass over memory."""
    square, wide, vector = torch.ones(1024, 1024), torch.ones(8192, 8192), torch.ones(8192)
    product = _median(lambda: square @ square, 5)
    reading = _median(lambda: wide @ vector, 5)
    return [
        _stage("this machine: matrix product, 1024 cubed", product, product, 2 * 1024**3 / 1e9, "GFLOP/s"),
        _stage("this machine: matrix times vector, 268 MB", reading, reading, wide.numel() * 4 / 1e9, "GB/s"),
    ]
