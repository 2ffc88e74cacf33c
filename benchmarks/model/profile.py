"""Where our time goes between the waveform and the answer, and what share of it the matrix products take.

A stage's products are measured by running its Linears alone, one after the other, with as many rows as the stage has:
every weight comes from memory as it does in the stage. What is left of the stage's time is everything else: norms,
RoPE, attention, activations, additions, and what calling it all costs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .ours import Ours

Stage = dict[str, Any]  # stage, ms, share of the total it belongs to, rate, unit of the rate
_REPEATS = 3
_LANGUAGE_MODEL = {
    "attention's products": (("q_proj", "k_proj", "v_proj"), ("o_proj",)),
    "MLP's products": (("gate_proj", "up_proj"), ("down_proj",)),
}
_ENCODER = {"products": (("q_proj", "k_proj", "v_proj"), ("out_proj",), ("fc1",), ("fc2",))}


@dataclass
class Profile:
    """Stages, points of a roofline, and how much longer a decode step takes than its products alone."""

    stages: list[Stage] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)
    overhead: float = 0.0

    def add(self, name: str, seconds: float, total: float, work: float | None = None, unit: str = "") -> None:
        rate = None if work is None or not seconds else work / seconds
        self.stages.append({"stage": name, "ms": 1000 * seconds, "share": seconds / total, "rate": rate, "unit": unit})

    def point(self, name: str, products: Products, seconds: float) -> None:
        operations = products.operations
        self.points.append(
            {"name": name, "intensity": operations / products.nbytes, "gops": operations / seconds / 1e9}
        )


class Products:
    """Linears that run one after the other with random rows; those of one tuple share their input."""

    def __init__(self, groups: Iterable[list[Any]], rows: int) -> None:
        self.rows = rows
        self._groups = [(linears, torch.randn(rows, linears[0].in_features)) for linears in groups]
        linears = [linear for linears, _ in self._groups for linear in linears]
        self.operations = sum(2 * rows * linear.in_features * linear.out_features for linear in linears)
        self.nbytes = sum(t.nbytes for linear in linears for t in (*linear.parameters(), *linear.buffers()))
        self._calls = [_call(*group) for group in self._groups]

    def run(self) -> None:
        for call in self._calls:
            call()


def _call(linears: list[Any], x: torch.Tensor) -> Callable[[], object]:
    """The products as the model's own path runs them."""
    if not all(hasattr(linear, "weight_codes") for linear in linears):
        return lambda: [linear(x) for linear in linears]
    from qwen2_audio.native import ops

    if not ops.available():
        return lambda: [linear(x) for linear in linears]
    handles = [
        ops.Handle(
            linear.weight_codes,
            linear.weight_scales,
            linear.bias,
            in_features=linear.in_features,
            out_features=linear.out_features,
            bits=linear.bits,
            group=linear.group,
        )
        for linear in linears
    ]
    return lambda: ops.linears(handles, x)


def of_layers(layers: Iterable[nn.Module], names: tuple[tuple[str, ...], ...], rows: int) -> Products:
    """The Linears called `names` of every layer, in the order they run in."""
    groups = []
    for layer in layers:
        modules = {path.rpartition(".")[2]: module for path, module in layer.named_modules()}
        groups += [[modules[name] for name in group] for group in names]
    return Products(groups, rows)


def profile(
    ours: Ours,
    clips: dict[float, npt.NDArray[np.float32]],
    prompts: dict[float, torch.Tensor],
    contexts: list[int],
    new_tokens: int,
) -> Profile:
    """Stages of the first token, by the clip's seconds, and of one decode step, by the positions before it.

    clips: float32 [S]; prompts: int64 [1, T], expanded; new_tokens: decode steps to average over.
    """
    out = Profile()
    for seconds, sound in clips.items():
        _first_token(out, ours, f"{seconds:g} s clip", sound, prompts[seconds])
    for context in contexts:
        _decode(out, ours, context, new_tokens)
    return out


def _first_token(out: Profile, ours: Ours, name: str, clip: npt.NDArray[np.float32], ids: torch.Tensor) -> None:
    model, features = ours.model, ours.log_mel(clip)
    frames = [int(features.mask.sum())]
    text = model.language_model
    positions = ids.shape[1]
    repeats = _REPEATS if positions < 200 else 1  # what takes long needs no median
    mel = _median(lambda: ours.log_mel(clip))
    encoder = _median(lambda: model.audio_tower.encode(features.log_mel, frames), repeats)
    embedded = _median(lambda: model.embed_prompt(ids, features.log_mel, None, features.mask), repeats)
    embeds = model.embed_prompt(ids, features.log_mel, None, features.mask).inputs_embeds
    prefill = _median(
        lambda: text(inputs_embeds=embeds, past_key_values=model.new_cache(1, positions), logits_to_keep=1), repeats
    )
    first = mel + max(encoder, embedded) + prefill
    out.add(f"first token, {name}", first, first)
    out.add("  log-mel", mel, first)
    encoded = of_layers(model.audio_tower.layers, _ENCODER["products"], (frames[0] - 1) // 2 + 1)
    out.add("  encoder", encoder, first, encoded.operations / 1e9, "GOP/s")
    out.point(f"encoder.{name}", encoded, encoder)
    _parts(out, encoder, first, {"products": encoded}, repeats)
    out.add("  projector, embedding, merge", max(embedded - encoder, 0.0), first)
    products = _language_products(text, positions)
    whole = sum(part.operations for part in products.values())
    out.add("  prefill", prefill, first, whole / 1e9, "GOP/s")
    out.point(f"prefill.{name}", _joined(products), prefill)
    _parts(out, prefill, first, products, repeats)


def _decode(out: Profile, ours: Ours, context: int, new_tokens: int) -> None:
    model = ours.model
    cache = ours.past_cache(context, new_tokens)
    token = torch.zeros((1, 1), dtype=torch.long)

    def steps() -> None:
        nonlocal token
        for _ in range(new_tokens):
            logits = model.language_model(token, past_key_values=cache, logits_to_keep=1).logits
            token = logits[:, -1].argmax(-1, keepdim=True)
        cache.crop(context)

    step = _median(steps) / new_tokens
    products = _language_products(model.language_model, 1)
    joined = _joined(products)
    out.add(f"decode, a token at context {context}", step, step, joined.nbytes / 1e9, "GB/s")
    out.point(f"decode.{context}", joined, step)
    spent = _parts(out, step, step, products, _REPEATS)
    out.overhead = out.overhead or step / spent


def _parts(out: Profile, whole: float, total: float, products: dict[str, Products], repeats: int) -> float:
    """Add each part's products and what is left of `whole`; the seconds of all products."""
    spent = 0.0
    for name, part in products.items():
        seconds = _median(part.run, repeats)
        spent += seconds
        work, unit = (part.nbytes, "GB/s") if part.rows == 1 else (part.operations, "GOP/s")
        out.add(f"    {name}", seconds, total, work / 1e9, unit)
    out.add("    everything else", whole - spent, total)
    return spent


def _language_products(text: Any, rows: int) -> dict[str, Products]:
    """The language model's; the head has one row whatever the others have."""
    parts = {name: of_layers(text.model.layers, names, rows) for name, names in _LANGUAGE_MODEL.items()}
    return {**parts, "head's product": Products([[text.lm_head]], 1)}


def _joined(parts: dict[str, Products]) -> Products:
    joined = Products([], 1)
    joined.operations = sum(part.operations for part in parts.values())
    joined.nbytes = sum(part.nbytes for part in parts.values())
    return joined


def _median(run: Callable[[], object], repeats: int = _REPEATS) -> float:
    """Seconds, after one warm-up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
