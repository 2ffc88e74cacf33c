"""The OpenMP runtime that torch computes with. It keeps a team of threads for each thread that has ever computed.

In GNU's runtime the threads of a team spin while they wait for their next piece of work. If all teams together have
more threads than there are cores, they go to sleep at once instead, even if only one team has work. Waking them takes
longer than many matrix products of a decode step (a step of 16 answers on nano took 6.3 ms instead of 3.4).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import torch

SOFT = 1  # omp_pause_soft: threads go, settings stay


@cache
def runtime() -> ctypes.CDLL | None:
    """The runtime in torch's own folder; None if torch uses another one."""
    folder = Path(torch.__file__).parent
    for path in (*folder.glob("lib/libgomp*.so*"), *folder.parent.glob("torch.libs/libgomp*.so*")):
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            continue
    return None


@cache
def team_leaver() -> Callable[[], object]:
    """A function that ends the calling thread's team, if it has one, so that another thread's may spin while it waits.

    The next parallel work of this thread starts a new team, in a fraction of a millisecond.
    """
    pause = getattr(runtime(), "omp_pause_resource_all", None)  # OpenMP 5.0
    return bool if pause is None else partial(pause, SOFT)  # bool() does nothing


@contextmanager
def one_thread() -> Iterator[None]:
    """The calling thread computes alone meanwhile, without a team; other threads compute as before."""
    library, mkl = runtime(), _mkl_threads()
    if library is None:
        yield
        return
    before = library.omp_get_max_threads()
    library.omp_set_num_threads(1)  # of this thread, unlike torch.set_num_threads, after which MKL has its own number
    mkl_before = mkl(1)
    try:
        yield
    finally:
        library.omp_set_num_threads(before)
        mkl(mkl_before)


@cache
def _mkl_threads() -> Callable[[int], int]:
    """MKL's function that sets the calling thread's number, 0 for that of all, and returns the one before."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        function: Callable[[int], int] = library.MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):  # a torch without MKL
        return int
    return function
