"""Search the scales with the least squared error of a weight, one per output and group of inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..errors import WeightsError
from .packing import LIMITS, PANEL, Format, pack, pack_half, pack_scales, pad

SLICE = 2**18  # weights processed at a time, so that they stay in the CPU's cache while the candidates are tried
# Candidate scales, relative to the scale that just reaches a group's largest weight. With 4 bits, a smaller scale,
# which clips the largest weights, often has the smaller error.
FACTORS = {4: tuple(0.7 + 0.035 * i for i in range(13)), 8: (0.97, 0.98, 0.99, 1.0, 1.005)}
# Additional candidates for weights whose inputs have different importance.
BEYOND = {4: (0.4, 0.5, 0.6, 1.2, 1.3), 8: (0.8, 0.9)}
LARGEST_SCALE = 65504.0  # of float16


@dataclass
class Loss:
    """Sums of squared errors and of squared weights."""

    error: float = 0.0
    total: float = 0.0

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.error + other.error, self.total + other.total)

    @property
    def relative(self) -> float:
        """Relative L2 error; 0 for a weight of zeros."""
        return math.sqrt(self.error / self.total) if self.total else 0.0


@dataclass
class Quantized:
    """A quantised weight: codes and scales as `packing` describes them, and the error."""

    codes: torch.Tensor
    scales: torch.Tensor | None  # None for 16 bits
    loss: Loss


def quantize_linear(
    weight: torch.Tensor, form: Format, name: str = "the weight", importance: torch.Tensor | None = None
) -> Quantized:
    """Quantise a Linear's weight [N, K] of any float dtype, slice by slice to save memory.

    `importance` is as in `search`; `name` is for messages. Raises WeightsError for a weight that is not finite, or too
    large for float16.
    """
    out_features, in_features = weight.shape
    shape, dtype = form.codes(out_features, in_features)
    codes = torch.empty(shape, dtype=dtype)
    scales_shape = form.scales(out_features, in_features)
    scales = None if scales_shape is None else torch.empty(scales_shape, dtype=torch.float16)
    loss = Loss()
    for start, part in _slices(weight, PANEL):
        check_finite(part, name)
        panels = slice(start // PANEL, start // PANEL - (-part.shape[0] // PANEL))
        if scales is None:
            codes[panels] = half = pack_half(part)
            if not bool(half.isfinite().all()):
                raise WeightsError(f"{name} holds {float(part.abs().max()):.3g}, too large for float16.")
            stored = half.transpose(1, 2).reshape(-1, in_features)[: part.shape[0]].float()
            loss += Loss(float((stored - part).square().sum()), float(part.square().sum()))
            continue
        q, scale, part_loss = search(part, form, importance)
        codes[panels], scales[panels] = pack(q, form.bits, form.group), pack_scales(scale)
        loss += part_loss
    return Quantized(codes, scales, loss)


def quantize_rows(weight: torch.Tensor, form: Format, name: str = "the embedding") -> Quantized:
    """Quantise an embedding [V, H] to int8 [V, H] with float16 scales [V, ceil(H / group)].

    Raises WeightsError for a weight that is not finite.
    """
    codes = torch.empty(weight.shape, dtype=torch.int8)
    scales = torch.empty((weight.shape[0], form.groups(weight.shape[1])), dtype=torch.float16)
    loss = Loss()
    for start, part in _slices(weight, 1):
        check_finite(part, name)
        q, scale, part_loss = search(part, form)
        codes[start : start + len(part)], scales[start : start + len(part)] = q, scale
        loss += part_loss
    return Quantized(codes, scales, loss)


def search(
    weight: torch.Tensor, form: Format, importance: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, Loss]:
    """Find the scale of each group: try FACTORS, then the least-squares scale for the best codes, rounded to float16.

    Args:
        weight: float32 [N, K].
        importance: float32 [K], the weight of each input's squared error; None: all are equal.

    Returns:
        q int8 [N, K]; scales float16 [N, G]; the loss, without importance. With 4 bits the scale's sign is chosen so
        that the largest weight gets the code -8, because there is no code 8.
    """
    groups = pad(weight, form.group)[: weight.shape[0]].view(-1, form.group)
    scales = _ScaleSearch(groups, LIMITS[form.bits], _roots(importance, form, weight.shape[0]))
    smallest, largest = groups.aminmax(dim=1, keepdim=True)
    if form.bits == 4:
        reach = torch.where(largest > -smallest, -largest, -smallest) / -scales.limits[0]
    else:
        reach = torch.maximum(largest, -smallest) / scales.limits[1]
    factors = FACTORS[form.bits] if importance is None else (*FACTORS[form.bits], *BEYOND[form.bits])
    for factor in factors:
        scales.try_scale(reach * factor)
    for _ in range(1 if importance is None else 2):
        scales.try_scale(scales.fitted())
    q = scales.rounded(scales.best)
    loss = Loss(float((q * scales.best).sub_(groups).square().sum()), float(groups.square().sum()))
    unpadded = q.view(weight.shape[0], -1)[:, : weight.shape[1]]
    return unpadded.to(torch.int8), scales.best.view(weight.shape[0], -1).to(torch.float16), loss


class _ScaleSearch:
    """The best scale found so far, `best` [groups, 1], for each of `groups` [groups of all outputs, group]."""

    def __init__(self, groups: torch.Tensor, limits: tuple[int, int], roots: torch.Tensor | None) -> None:
        """`limits`: least and greatest code; `roots`: square roots of the importance, in the shape of `groups`."""
        self.groups, self.limits, self.roots = groups, limits, roots
        self.error = torch.full((len(groups), 1), math.inf)
        self.best = torch.zeros((len(groups), 1))
        self._buffer = torch.empty_like(groups)

    def try_scale(self, candidate: torch.Tensor) -> None:
        """Keep the candidate [groups, 1] for the groups in which its error is smaller than the best so far."""
        candidate = candidate.clamp(-LARGEST_SCALE, LARGEST_SCALE).to(torch.float16).float()
        difference = self.rounded(candidate).mul_(candidate).sub_(self.groups)
        if self.roots is not None:
            difference.mul_(self.roots)
        error = torch.linalg.vector_norm(difference, dim=1, keepdim=True)
        better = error < self.error
        self.error = torch.where(better, error, self.error)
        self.best = torch.where(better, candidate, self.best)

    def rounded(self, scale: torch.Tensor) -> torch.Tensor:
        """The codes of the groups for `scale`, in a buffer that the next call overwrites."""
        torch.mul(self.groups, torch.where(scale == 0, 0.0, 1 / scale), out=self._buffer)
        return self._buffer.round_().clamp_(*self.limits)

    def fitted(self) -> torch.Tensor:
        """The least-squares scale for the codes of the best scale."""
        q = self.rounded(self.best)
        weighted = q if self.roots is None else q * self.roots.square()
        power = (q * weighted).sum(1, keepdim=True)
        return torch.where(power == 0, 0.0, (self.groups * weighted).sum(1, keepdim=True) / power)


def _roots(importance: torch.Tensor | None, form: Format, outputs: int) -> torch.Tensor | None:
    """Square roots of the importance [K] for every group of every output; 0 for padded inputs."""
    if importance is None:
        return None
    padded = torch.nn.functional.pad(importance.sqrt(), (0, -len(importance) % form.group))
    return padded.view(1, -1, form.group).expand(outputs, -1, -1).reshape(-1, form.group)


def rounded(weight: torch.Tensor, form: Format, importance: torch.Tensor | None = None) -> torch.Tensor:
    """A weight [N, K] quantised to 4 or 8 bits and dequantised: float32 [N, K]."""
    out = torch.empty(weight.shape)
    for start, part in _slices(weight, PANEL):
        q, scale, _ = search(part, form, importance)
        scales = scale.float().repeat_interleave(form.group, dim=1)[:, : part.shape[1]]
        torch.mul(q, scales, out=out[start : start + len(part)])
    return out


def _slices(weight: torch.Tensor, step: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (first row, float32 rows); the number of rows is a multiple of `step`, except in the last slice."""
    rows = max(1, SLICE // (step * weight.shape[1])) * step
    for start in range(0, weight.shape[0], rows):
        yield start, weight[start : start + rows].float()


def check_finite(weight: torch.Tensor, name: str) -> None:
    """Raise WeightsError if a weight is NaN or infinite."""
    if not bool(weight.isfinite().all()):
        raise WeightsError(f"{name} holds NaN or infinite numbers; the checkpoint is damaged.")
