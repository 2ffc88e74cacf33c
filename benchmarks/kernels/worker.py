"""The native kernels in a process of their own, whose $QWEN2_AUDIO_ISA says which of them.

Run as `python -m benchmarks.kernels.worker THREADS`.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict
from typing import Any

import torch

from qwen2_audio.errors import ConfigError
from qwen2_audio.native import library, ops
from qwen2_audio.quantize.packing import Format, dequantize
from qwen2_audio.quantize.search import quantize_linear

from ..harness import ceilings
from ..harness.torch_worker import run_torch_worker
from ..harness.worker_loop import settle

MEASURED_OUTPUTS = 1024  # of a weight, for its errors: the outputs are alike
MEASURED_ROWS = 64

Measured = dict[str, Any]


class Session:
    """The orders this worker knows."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._layers: list[ops.Handle] = []  # one weight at several places in memory
        self._next = 0

    def about(self) -> Measured:
        """Which kernels these are."""
        kernels = library.load()
        if kernels.library is None:
            raise ConfigError(f"bench kernels has nothing to measure. {kernels.reason}")
        runs = [isa for isa in library.ISAS if kernels.library.qwa_supported(isa.encode())]
        return {"isa": kernels.isa, "runs": runs, "reason": kernels.reason}

    def ceilings(self, repeats: int, buffer: int) -> Measured:
        """What the machine can do with these kernels' instruction set."""
        return asdict(ceilings.measure(self._threads, repeats=repeats, buffer=buffer))

    def prepare(self, bits: int, group: int, inputs: int, outputs: int, working_set: int) -> Measured:
        """A weight of random codes, often enough in memory that `working_set` bytes lie between two uses of one.

        Returns the bytes of one.
        """
        storage = Format(bits, group)
        shape, dtype = storage.codes(outputs, inputs)
        scales_shape = storage.scales(outputs, inputs)
        codes = torch.randn(shape).half() if bits == 16 else torch.randint(0, 256, shape, dtype=dtype)
        scales = None if scales_shape is None else torch.full(scales_shape, 0.01, dtype=torch.float16)
        nbytes = codes.nbytes + (0 if scales is None else scales.nbytes)
        self._layers = [
            ops.Handle(
                codes.clone(),
                None if scales is None else scales.clone(),
                None,
                in_features=inputs,
                out_features=outputs,
                bits=bits,
                group=group,
            )
            for _ in range(max(1, -(-working_set // nbytes)))
        ]
        return {"nbytes": nbytes}

    def time(self, rows: int, calls: int) -> Measured:
        """Seconds of a call with `rows` rows: the median of `calls` (0: one a copy), each with another copy."""
        x = torch.randn(rows, self._layers[0].in_features)
        seconds = []
        settle()
        for _ in range(calls or len(self._layers)):
            layer = self._layers[self._next % len(self._layers)]
            self._next += 1
            seconds.append(_seconds(layer, x))
        return {"value": statistics.median(seconds)}

    def errors(self, bits: int, group: int, inputs: int, outputs: int) -> Measured:
        """Relative L2 errors against float64, Gaussian weights and inputs.

        `total`: of the result; `weights`: of an exact product with the stored weights; `activations`: of the result
        against that product.
        """
        generator = torch.Generator().manual_seed(1)
        weight = torch.randn(min(outputs, MEASURED_OUTPUTS), inputs, generator=generator) / inputs**0.5
        x = torch.randn(MEASURED_ROWS, inputs, generator=generator)
        stored = quantize_linear(weight, Format(bits, group))
        computed = ops.linear(
            x,
            stored.codes,
            stored.scales,
            None,
            in_features=inputs,
            out_features=len(weight),
            bits=bits,
            group=group,
        ).double()
        stored_weight = dequantize(stored.codes, stored.scales, bits, group)[: len(weight), :inputs]
        exact, exact_of_stored = x.double() @ weight.double().T, x.double() @ stored_weight.double().T
        size = float(exact.norm())
        return {
            "total": float((computed - exact).norm()) / size,
            "weights": float((exact_of_stored - exact).norm()) / size,
            "activations": float((computed - exact_of_stored).norm()) / size,
        }


def _seconds(layer: ops.Handle, x: torch.Tensor) -> float:
    start = time.perf_counter()
    ops.linears([layer], x)
    return time.perf_counter() - start


if __name__ == "__main__":
    run_torch_worker(Session)
