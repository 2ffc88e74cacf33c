"""The linear kernels: every instruction set of this CPU against each other, bit for bit, and against float64."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
import torch

from qwen2_audio.native import library, ops
from qwen2_audio.native.self_test import quantized

LOADED = library.load()
pytestmark = pytest.mark.skipif(LOADED.library is None, reason=LOADED.reason)
FORMS = [(4, 64), (4, 32), (8, 64), (8, 32), (16, 0)]
SHAPES = [(64, 128), (50, 200), (33, 1000), (16, 2112), (1, 7), (176, 64)]  # outputs, inputs
ISAS = [isa for isa in library.ISAS if LOADED.library is not None and LOADED.library.qwa_supported(isa.encode())]


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    select(LOADED.isa)


def select(isa: str) -> None:
    assert LOADED.library is not None
    assert LOADED.library.qwa_select(isa.encode()) == 0


def handle(bits: int, group: int, outputs: int, inputs: int, *, seed: int = 0, code: int | None = None) -> ops.Handle:
    """Random weights, or with every byte `code` and scales of one."""
    generator = torch.Generator().manual_seed(seed)
    panels = -(-outputs // 16)
    if bits == 16:
        codes, scales = torch.randn(panels, inputs, 16, generator=generator).half(), None
    else:
        groups = -(-inputs // group)
        codes = torch.randint(1, 256, (panels, groups, group * 2 * bits), dtype=torch.uint8, generator=generator)
        scales = torch.rand(panels, groups, 16, generator=generator).half()
        if code is not None:
            codes.fill_(code)
            scales.fill_(1)
    bias = torch.randn(outputs, generator=generator) if code is None else None
    return ops.Handle(codes, scales, bias, in_features=inputs, out_features=outputs, bits=bits, group=group)


def product(of: ops.Handle, x: torch.Tensor) -> torch.Tensor:
    return ops.linears([of], x)[0]


def rows(count: int, inputs: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize(("bits", "group"), FORMS)
def test_every_isa_and_any_number_of_rows_give_the_same_bits(bits: int, group: int, outputs: int, inputs: int) -> None:
    layer, x = handle(bits, group, outputs, inputs), rows(37, inputs)
    select("portable")
    expected = product(layer, x)
    assert expected.isfinite().all()
    for isa in ISAS:
        select(isa)
        for count in (1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 37):
            assert torch.equal(product(layer, x[:count]), expected[:count]), (isa, count)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_the_result(isa: str, threads: int) -> None:
    select(isa)
    layer = handle(4, 64, 100, 320)
    torch.set_num_threads(1)
    alone = [product(layer, rows(count, 320)) for count in (1, 40)]
    torch.set_num_threads(threads)
    together = [product(layer, rows(count, 320)) for count in (1, 40)]
    assert all(map(torch.equal, together, alone))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("count", [1, 8, 20])
@pytest.mark.parametrize(("bits", "group", "code", "value"), [
    (4, 64, 0x00, -8), (4, 64, 0xFF, 7), (4, 32, 0x00, -8), (8, 64, 1, -127), (8, 64, 255, 127), (8, 32, 255, 127),
])  # fmt: skip
def test_extremes_do_not_overflow(isa: str, count: int, bits: int, group: int, code: int, value: int) -> None:
    select(isa)
    inputs = 2 * group
    layer = handle(bits, group, 32, inputs, code=code)
    for sign in (1.0, -1.0):
        x = torch.full((count, inputs), sign)
        assert torch.allclose(product(layer, x), torch.full((count, 32), sign * value * inputs), rtol=1e-6)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("count", [1, 20])
def test_what_is_not_finite_is_not_hidden(isa: str, bad: float, count: int) -> None:
    select(isa)
    layer, x = handle(4, 64, 32, 200), rows(count, 200)
    x[0, 130] = bad
    y = product(layer, x)
    assert not y[0].isfinite().any()
    assert y[1:].isfinite().all()


@pytest.mark.parametrize("isa", ISAS)
def test_zeros_and_the_smallest_numbers(isa: str) -> None:
    select(isa)
    layer = handle(8, 32, 32, 96)
    bias = product(layer, torch.zeros(1, 96))
    for tiny in (1e-31, 1e-38, 1e-45):
        assert torch.equal(product(layer, torch.full((1, 96), tiny)), bias)
    assert product(layer, torch.full((1, 96), 1e33)).isfinite().all()


@pytest.mark.parametrize("isa", ISAS)
def test_linears_of_several_kinds_share_an_input(isa: str) -> None:
    select(isa)
    layers = [handle(bits, group, 40, 160, seed=i) for i, (bits, group) in enumerate(FORMS)]
    for count in (2, 30):
        x = rows(count, 160)
        for got, layer in zip(ops.linears(layers, x), layers, strict=True):
            assert torch.equal(got, product(layer, x))


def test_shapes_strides_and_no_rows() -> None:
    layer = handle(4, 64, 40, 160)
    x = rows(12, 160)
    assert torch.equal(product(layer, x.view(3, 4, 160)), product(layer, x).view(3, 4, 40))
    wide = torch.cat((x, x), dim=1)
    assert torch.equal(product(layer, wide[:, :160]), product(layer, x))
    assert torch.equal(product(layer, x.T.contiguous().T), product(layer, x))
    assert product(layer, x[:0]).shape == (0, 40)


@pytest.mark.parametrize(("bits", "group", "weights_only"), [(4, 64, 7.5e-3), (8, 32, 6.5e-3)])
def test_what_8_bit_activations_cost(bits: int, group: int, weights_only: float) -> None:
    """Relative L2 error against the same weights with exact activations, on Gaussian numbers."""
    layer, x = handle(bits, group, 64, 2048), rows(16, 2048)
    codes, scales, _ = layer._tensors
    exact = handle_weight(codes, scales, bits)
    y = product(layer, x).double() - product(layer, torch.zeros(1, 2048)).double()
    expected = x.double() @ exact.T
    error = float((y - expected).norm() / expected.norm())
    assert 1e-4 < error < weights_only
    emulated = quantized(x, group) @ exact.T
    assert float((y - emulated).norm() / emulated.norm()) < 1e-6


def handle_weight(codes: torch.Tensor, scales: torch.Tensor | None, bits: int) -> torch.Tensor:
    """The float64 weight [N, K] of codes and scales, for shapes without padding."""
    assert scales is not None
    panels, groups, _ = codes.shape
    chunks = codes.view(panels, groups, -1, 16, 4).double()
    split = torch.stack((chunks % 16, chunks // 16), dim=3).flatten(2, 3)  # [P, G, K4, 16, 4]
    chunks = split - 8 if bits == 4 else chunks - 128
    weight = chunks.permute(0, 3, 1, 2, 4).flatten(3)  # [P, 16, G, group]
    return (weight * scales.double().transpose(1, 2)[..., None]).flatten(2).flatten(0, 1)


def test_a_wrong_kernel_is_refused(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """`choose` goes on to the next one, and without any to torch."""
    assert LOADED.library is not None
    told: dict[str, str | None] = {"portable": None}
    monkeypatch.setattr(
        "qwen2_audio.native.self_test.self_test",
        lambda lib: told.get(lib.qwa_selected().decode(), "4 bits, group 64, 1 rows"),
    )
    found = library.choose(LOADED.library, ISAS)
    assert found.isa == "portable"
    if len(ISAS) > 1:
        assert f"The native {ISAS[0]} kernels are refused: 4 bits, group 64, 1 rows differs from torch." in caplog.text
    told["portable"] = "8 bits"
    none = library.choose(LOADED.library, ISAS)
    assert none.library is None and none.isa == "torch"
    assert none.reason == "No native kernels: their results differ from torch's on this machine."


def test_a_broken_kernel_fails_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    from qwen2_audio.native.self_test import self_test

    assert LOADED.library is not None
    assert self_test(LOADED.library) is None

    class Broken:
        def qwa_linears(self, structs: ctypes.Array, *rest: object) -> None:
            assert LOADED.library is not None
            LOADED.library.qwa_linears(structs, *rest)
            y = (ctypes.c_float * 1).from_address(rest[4][0])  # type: ignore[index]
            y[0] += 0.1

    assert self_test(Broken()) == "4 bits, group 64, 1 rows"  # type: ignore[arg-type]
