"""The scales that keep a weight's squared error smallest, one for each output and group of inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..errors import WeightsError
from .packing import LIMITS, PANEL, Format, pack, pack_half, pack_scales, pad

SLICE = 2**18  # weights worked on at a time: they stay in the cache while the candidates are tried
# Candidates, as parts of the scale that just reaches a group's largest weight. With 4 bits clipping it pays.
FACTORS = {4: tuple(0.7 + 0.035 * i for i in range(13)), 8: (0.97, 0.98, 0.99, 1.0, 1.005)}
# More of them where some inputs count more than others, and the rest may be coarser.
BEYOND = {4: (0.4, 0.5, 0.6, 1.2, 1.3), 8: (0.8, 0.9)}
LARGEST_SCALE = 65504.0  # of float16


@dataclass
class Loss:
    """Squared error and squared weights, summed; several can be added."""

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
    """A weight as it is stored, and what that lost."""

    codes: torch.Tensor
    scales: torch.Tensor | None
    loss: Loss


def quantize_linear(
    weight: torch.Tensor, form: Format, name: str = "the weight", importance: torch.Tensor | None = None
) -> Quantized:
    """A Linear's weight [N, K] of any float dtype, in slices of panels, so that little more than the result is held.

    `importance` is as in `search`. Raises WeightsError: a weight is not finite, or too large for 16 bits; the message
    calls the weight `name`.
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
        q, scale, lost = search(part, form, importance)
        codes[panels], scales[panels] = pack(q, form.bits, form.group), pack_scales(scale)
        loss += lost
    return Quantized(codes, scales, loss)


def quantize_rows(weight: torch.Tensor, form: Format, name: str = "the embedding") -> Quantized:
    """An embedding [V, H] to int8 [V, H] with float16 scales [V, ceil(H / group)]. Raises as `quantize_linear`."""
    codes = torch.empty(weight.shape, dtype=torch.int8)
    scales = torch.empty((weight.shape[0], form.groups(weight.shape[1])), dtype=torch.float16)
    loss = Loss()
    for start, part in _slices(weight, 1):
        check_finite(part, name)
        q, scale, lost = search(part, form)
        codes[start : start + len(part)], scales[start : start + len(part)] = q, scale
        loss += lost
    return Quantized(codes, scales, loss)


def search(
    weight: torch.Tensor, form: Format, importance: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, Loss]:
    """Try FACTORS and, from the best, the scale that least squares gives; each as float16 will hold it.

    weight: float32 [N, K]. importance: float32 [K], how much a squared error counts for each input; None is the same
    for all. Returns q int8 [N, K], scales float16 [N, G], and the loss, in which all count the same. With 4 bits a
    scale has the sign that gives the largest weight the code -8, which has no positive twin.
    """
    groups = pad(weight, form.group)[: weight.shape[0]].view(-1, form.group)
    trial = _Trial(groups, LIMITS[form.bits], _roots(importance, form, weight.shape[0]))
    smallest, largest = groups.aminmax(dim=1, keepdim=True)
    if form.bits == 4:
        reach = torch.where(largest > -smallest, -largest, -smallest) / -trial.limits[0]
    else:
        reach = torch.maximum(largest, -smallest) / trial.limits[1]
    factors = FACTORS[form.bits] if importance is None else (*FACTORS[form.bits], *BEYOND[form.bits])
    for factor in factors:
        trial.take(reach * factor)
    for _ in range(1 if importance is None else 2):
        trial.take(trial.fitted())
    q = trial.rounded(trial.scale)
    loss = Loss(float((q * trial.scale).sub_(groups).square().sum()), float(groups.square().sum()))
    whole = q.view(weight.shape[0], -1)[:, : weight.shape[1]]
    return whole.to(torch.int8), trial.scale.view(weight.shape[0], -1).to(torch.float16), loss


class _Trial:
    """Candidates for the scales of `groups` [groups of all outputs, group]: the best so far is kept."""

    def __init__(self, groups: torch.Tensor, limits: tuple[int, int], roots: torch.Tensor | None) -> None:
        """`roots`: of the importance, in the shape of `groups`."""
        self.groups, self.limits, self.roots = groups, limits, roots
        self.error = torch.full((len(groups), 1), math.inf)
        self.scale = torch.zeros((len(groups), 1))
        self._room = torch.empty_like(groups)

    def take(self, candidate: torch.Tensor) -> None:
        """Keep each group's candidate where it is better than what there was."""
        candidate = candidate.clamp(-LARGEST_SCALE, LARGEST_SCALE).to(torch.float16).float()
        lost = self.rounded(candidate).mul_(candidate).sub_(self.groups)
        if self.roots is not None:
            lost.mul_(self.roots)
        error = torch.linalg.vector_norm(lost, dim=1, keepdim=True)
        wins = error < self.error
        self.error = torch.where(wins, error, self.error)
        self.scale = torch.where(wins, candidate, self.scale)

    def rounded(self, scale: torch.Tensor) -> torch.Tensor:
        """The groups in steps of `scale`; the tensor is used again by the next call."""
        torch.mul(self.groups, torch.where(scale == 0, 0.0, 1 / scale), out=self._room)
        return self._room.round_().clamp_(*self.limits)

    def fitted(self) -> torch.Tensor:
        """The scale that suits the best candidate's codes best, by least squares."""
        q = self.rounded(self.scale)
        weighted = q if self.roots is None else q * self.roots.square()
        power = (q * weighted).sum(1, keepdim=True)
        return torch.where(power == 0, 0.0, (self.groups * weighted).sum(1, keepdim=True) / power)


def _roots(importance: torch.Tensor | None, form: Format, outputs: int) -> torch.Tensor | None:
    """Square roots of the importance [K], for every group of every output; 0 where inputs are padded."""
    if importance is None:
        return None
    padded = torch.nn.functional.pad(importance.sqrt(), (0, -len(importance) % form.group))
    return padded.view(1, -1, form.group).expand(outputs, -1, -1).reshape(-1, form.group)


def rounded(weight: torch.Tensor, form: Format, importance: torch.Tensor | None = None) -> torch.Tensor:
    """What a weight [N, K] becomes in 4 or 8 bits, as float32 [N, K]."""
    out = torch.empty(weight.shape)
    for start, part in _slices(weight, PANEL):
        q, scale, _ = search(part, form, importance)
        wide = scale.float().repeat_interleave(form.group, dim=1)[:, : part.shape[1]]
        torch.mul(q, wide, out=out[start : start + len(part)])
    return out


def _slices(weight: torch.Tensor, step: int) -> Iterator[tuple[int, torch.Tensor]]:
    """(first row, float32 rows), whole multiples of `step` rows but for the end."""
    rows = max(1, SLICE // (step * weight.shape[1])) * step
    for start in range(0, weight.shape[0], rows):
        yield start, weight[start : start + rows].float()


def check_finite(weight: torch.Tensor, name: str) -> None:
    """Raise WeightsError if a number is infinite or none."""
    if not bool(weight.isfinite().all()):
        raise WeightsError(f"{name} holds numbers that are infinite or no numbers; the checkpoint is damaged.")
