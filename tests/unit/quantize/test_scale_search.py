import pytest
import torch

from qwen2_audio.errors import WeightsError
from qwen2_audio.quantize import search as searching
from qwen2_audio.quantize.packing import Format, dequantize
from qwen2_audio.quantize.search import FACTORS, quantize_linear, quantize_rows, rounded, search


def gaussian(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.02


@pytest.mark.parametrize(
    ("form", "expected"),
    [(Format(4, 64), 0.0899), (Format(4, 32), 0.0813), (Format(8, 32), 0.0051), (Format(8, 64), 0.0058)],
)
def test_the_error_on_gaussian_weights(form, expected):
    assert quantize_linear(gaussian(256, 512), form).loss.relative == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("form", [Format(4, 64), Format(4, 32), Format(8, 32), Format(16)])
def test_the_loss_is_that_of_what_is_stored(form):
    weight = gaussian(40, 100)
    stored = quantize_linear(weight.bfloat16(), form)
    back = dequantize(stored.codes, stored.scales, form.bits, form.group)[:40, :100]
    error = (back - weight.bfloat16().float()).norm() / weight.bfloat16().float().norm()
    assert stored.loss.relative == pytest.approx(float(error), rel=1e-4, abs=1e-9)
    if form.bits != 16:
        assert torch.equal(rounded(weight.bfloat16().float(), form), back)


@pytest.mark.parametrize("form", [Format(4, 64), Format(8, 32)])
def test_no_candidate_is_better_than_what_was_found(form):
    weight = gaussian(3, form.group)
    low, high = searching.LIMITS[form.bits]
    _, scales, _ = search(weight, form)
    for row, scale in zip(weight, scales[:, 0], strict=True):

        def error(s, row=row):
            return float(((row / s).round().clamp(low, high) * s - row).square().sum())

        extreme = float(row[row.abs().argmax()]) / (-8 if form.bits == 4 else 127)
        candidates = [
            float(torch.tensor(abs(extreme) * f).half()) * (-1 if extreme < 0 else 1) for f in FACTORS[form.bits]
        ]
        assert error(float(scale)) <= min(error(s) for s in candidates) * (1 + 1e-5)


def test_least_squares_finds_what_is_between_the_candidates(monkeypatch):
    weight = gaussian(64, 256)
    with_it = quantize_linear(weight, Format(4, 64)).loss.relative
    monkeypatch.setattr(searching._ScaleSearch, "fitted", lambda self: torch.zeros_like(self.best))
    assert quantize_linear(weight, Format(4, 64)).loss.relative > 1.001 * with_it


def test_the_largest_weight_of_either_sign_gets_the_code_without_a_twin():
    weight = torch.full((2, 64), 0.01)
    weight[0, 5], weight[1, 5] = 0.8, -0.8
    q, scales, _ = search(weight, Format(4, 64))
    assert q[:, 5].tolist() == [-8, -8]
    assert (scales[0, 0] < 0) and (scales[1, 0] > 0)


def test_zeros_stay_zeros_and_numbers_beyond_float16_do_not_become_infinite():
    weight = torch.zeros(2, 64)
    for form, large in ((Format(4, 64), 6e5), (Format(8, 32), 9e6)):
        weight[1] = large  # more than the largest scale reaches
        q, scales, loss = search(weight, form)
        assert not q[0].any()
        assert scales.isfinite().all()
        assert 0 < loss.relative < 0.2
    assert quantize_linear(torch.zeros(5, 7), Format(4, 64)).loss.relative == 0


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_weights_that_are_no_numbers_are_refused(bad):
    weight = gaussian(20, 64)
    weight[18, 3] = bad
    for form in (Format(4, 64), Format(16)):
        with pytest.raises(WeightsError, match=r"^layer holds NaN or infinite numbers; the checkpoint"):
            quantize_linear(weight, form, "layer")
    with pytest.raises(WeightsError, match=r"^layer holds NaN or infinite numbers"):
        quantize_rows(weight, Format(8, 64), "layer")


def test_what_float16_cannot_hold_is_refused():
    with pytest.raises(WeightsError, match=r"^projector holds 1e\+05, too large for float16\.$"):
        quantize_linear(torch.full((3, 3), 1e5), Format(16), "projector")


def test_slices_change_nothing(monkeypatch):
    weight = gaussian(70, 40)
    whole = quantize_linear(weight, Format(4, 32))
    rows = quantize_rows(weight, Format(8, 64))
    monkeypatch.setattr(searching, "SLICE", 100)
    sliced = quantize_linear(weight, Format(4, 32))
    assert torch.equal(sliced.codes, whole.codes) and torch.equal(sliced.scales, whole.scales)
    assert sliced.loss.relative == pytest.approx(whole.loss.relative)
    again = quantize_rows(weight, Format(8, 64))
    assert torch.equal(again.codes, rows.codes) and torch.equal(again.scales, rows.scales)


@pytest.mark.parametrize("form", [Format(4, 64), Format(8, 32)])
def test_errors_count_as_much_as_their_inputs_matter(form):
    weight, importance = gaussian(40, 100), torch.ones(100)
    importance[[3, 70, 99]] = 1000.0

    def error(of):
        return float(((of - weight).square() * importance).sum())

    assert error(rounded(weight, form, importance)) < 0.5 * error(rounded(weight, form))
    assert torch.equal(rounded(weight, form, torch.zeros(100)).isfinite(), torch.ones(40, 100, dtype=torch.bool))
