"""What this machine can do at best: reading memory, fp32 and 8-bit multiply-adds. Measured by csrc/ceilings.cpp.

Without the native library torch measures: one large matrix product, and one pass of a matrix over a vector.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from dataclasses import dataclass
from typing import Any, Self

import torch

from qwen2_audio.bench.report import Row

BUFFER = 340 * 2**20  # bytes read: more than any cache holds
REPEATS = 7
LOOP_SECONDS = 0.05  # of each measurement of arithmetic
_ALIGNMENT = 64


@dataclass(frozen=True)
class Shares:
    """Puts a rate next to what the machine can do, in words."""

    read: float  # bytes a second
    fma: float  # operations a second
    int8: float | None

    def of_read(self, rate: float) -> str:
        """`rate` in bytes a second."""
        return f"{rate / 1e9:.1f} GB/s, {rate / self.read:.0%} of memory"

    def of_arithmetic(self, rate: float, *, integers: bool) -> str:
        """`rate` in operations a second."""
        if integers and self.int8 is not None:
            return f"{rate / self.int8:.0%} of 8-bit products"
        return f"{rate / self.fma:.0%} of fp32 products"


@dataclass(frozen=True)
class Ceilings:
    """Samples of each measurement, by the threads that made it: bytes and operations a second."""

    isa: str
    read: dict[int, list[float]]
    fma: dict[int, list[float]]
    int8: dict[int, list[float]]  # empty where there is no instruction for it, or no library

    @classmethod
    def of_reply(cls, reply: dict[str, Any]) -> Self:
        """From a worker's reply, where the numbers of threads became text."""
        by_threads = ({int(n): samples for n, samples in reply[name].items()} for name in ("read", "fma", "int8"))
        return cls(reply["isa"], *by_threads)

    def rows(self) -> list[Row]:
        """`ceiling.read_2t` and so on, in GB/s, GFLOP/s and GOP/s."""
        parts = (("read", self.read, "GB/s"), ("fma", self.fma, "GFLOP/s"), ("int8", self.int8, "GOP/s"))
        return [
            Row(
                f"ceiling.{name}_{threads}t",
                statistics.median(samples) / 1e9,
                unit,
                spread=(min(samples) / 1e9, max(samples) / 1e9),
                note=self.isa if name != "read" else "",
            )
            for name, by_threads, unit in parts
            for threads, samples in by_threads.items()
        ]

    def shares(self) -> Shares:
        """By the medians with all threads."""
        medians = self.to_json()
        int8 = medians.get("int8")
        return Shares(medians["read"] * 1e9, medians["fma"] * 1e9, None if int8 is None else int8 * 1e9)

    def to_json(self) -> dict[str, Any]:
        """The medians with all threads, for a picture: GB/s and GOP/s."""
        return {
            name: statistics.median(by_threads[max(by_threads)]) / 1e9
            for name, by_threads in (("read", self.read), ("fma", self.fma), ("int8", self.int8))
            if by_threads
        }


def measure(threads: int, *, repeats: int = REPEATS, buffer: int = BUFFER) -> Ceilings:
    """With one thread and with `threads`. Takes a few seconds, during which nothing else should run."""
    from qwen2_audio.native import library

    kernels = library.load()
    if kernels.library is None or not hasattr(kernels.library, "qwa_bench_read"):
        return _by_torch(threads, repeats, buffer)
    lib, isa = kernels.library, kernels.isa.encode()
    for function in (lib.qwa_bench_read, lib.qwa_bench_fma, lib.qwa_bench_int8):
        function.restype = ctypes.c_double
    lib.qwa_bench_read.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
    lib.qwa_bench_fma.argtypes = lib.qwa_bench_int8.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int64]
    memory = torch.ones(buffer + _ALIGNMENT, dtype=torch.uint8)  # written to, so that its pages are there
    address = -(-memory.data_ptr() // _ALIGNMENT) * _ALIGNMENT
    teams = sorted({1, threads})
    read = {n: [lib.qwa_bench_read(address, buffer, n) for _ in range(repeats)] for n in teams}
    fma = {n: _loop(lambda rounds, n=n: lib.qwa_bench_fma(isa, n, rounds), repeats) for n in teams}
    int8 = {n: _loop(lambda rounds, n=n: lib.qwa_bench_int8(isa, n, rounds), repeats) for n in teams}
    return Ceilings(kernels.isa, read, fma, {n: samples for n, samples in int8.items() if max(samples) > 0})


def _loop(run: Any, repeats: int) -> list[float]:
    """`run(rounds)` gives operations a second; as many rounds as take LOOP_SECONDS."""
    rounds = 100_000
    start = time.perf_counter()
    run(rounds)
    rounds = max(rounds, int(rounds * LOOP_SECONDS / (time.perf_counter() - start)))
    return [run(rounds) for _ in range(repeats)]


def _by_torch(threads: int, repeats: int, buffer: int) -> Ceilings:
    square, wide = torch.ones(1024, 1024), torch.ones(buffer // 4 // 8192, 8192)
    vector = torch.ones(8192)
    product = _rates(lambda: square @ square, 2 * 1024**3, repeats)
    reading = _rates(lambda: wide @ vector, wide.nbytes, repeats)
    return Ceilings("torch", {threads: reading}, {threads: product}, {})


def _rates(run: Any, work: int, repeats: int) -> list[float]:
    run()
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        rates.append(work / (time.perf_counter() - start))
    return rates
