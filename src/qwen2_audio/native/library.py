"""The shared object of csrc/: found, checked, told how to run. Whatever is wrong with it, torch computes instead.

$QWEN2_AUDIO_ISA names the instruction set to use: amx, avx512, avx2, portable; "torch" leaves the kernels out.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from ..errors import ConfigError
from .build import LIBRARY
from .openmp import runtime

ABI = 4
ISA_VARIABLE = "QWEN2_AUDIO_ISA"
ISAS = ("amx", "avx512", "avx2", "portable")  # best first
NO_KERNELS = "torch"

logger = logging.getLogger(__name__)


class LinearStruct(ctypes.Structure):
    """`qwa_linear` of csrc/qwa.h."""

    _fields_ = [
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("in_features", ctypes.c_int32),
        ("out_features", ctypes.c_int32),
        ("bits", ctypes.c_int32),
        ("group", ctypes.c_int32),
    ]


@dataclass(frozen=True)
class Loaded:
    """What `load` found: the library, or the reason why there is none."""

    library: ctypes.CDLL | None
    isa: str  # the instruction set in use, or "torch"
    reason: str  # one sentence for people


@cache
def load() -> Loaded:
    """The library, once a process. Raises ConfigError: $QWEN2_AUDIO_ISA names what is unknown or cannot run here."""
    asked = os.environ.get(ISA_VARIABLE, "")
    if asked and asked not in (*ISAS, NO_KERNELS):
        expected = ", ".join((*ISAS, NO_KERNELS))
        raise ConfigError(f"${ISA_VARIABLE} is {asked!r}; expected one of {expected}, or nothing.")
    if asked == NO_KERNELS:
        return Loaded(None, NO_KERNELS, f"Native kernels are switched off by ${ISA_VARIABLE}; torch computes, slowly.")
    library, reason = _open(LIBRARY)
    if library is None:
        if asked:
            raise ConfigError(f"${ISA_VARIABLE} asks for {asked!r}, but {reason}")
        return Loaded(None, NO_KERNELS, f"No native kernels: {reason} Torch computes quantised layers, slowly.")
    _share_threads(library)
    candidates = [isa for isa in ISAS if library.qwa_supported(isa.encode())]
    if asked and asked not in candidates:
        raise ConfigError(
            f"${ISA_VARIABLE} is {asked!r}, which this CPU does not run; it runs {', '.join(candidates)}."
        )
    return choose(library, [asked] if asked else candidates)


def choose(library: ctypes.CDLL, candidates: Sequence[str]) -> Loaded:
    """Select the first instruction set whose kernels compute what torch computes; a wrong one is refused."""
    from .self_test import self_test

    for isa in candidates:
        library.qwa_select(isa.encode())
        wrong = self_test(library)
        if wrong is None:
            return Loaded(library, isa, f"Native kernels: {isa}, {library.qwa_get_threads()} threads.")
        logger.warning("The native %s kernels are refused: %s differs from torch.", isa, wrong)
    return Loaded(None, NO_KERNELS, "No native kernels: their results differ from torch's on this machine.")


def _open(path: Path) -> tuple[ctypes.CDLL | None, str]:
    if not path.is_file():
        return None, f"{path.name} was not built (no C++ compiler at installation); install one and reinstall."
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return None, f"{path.name} does not load ({error}); reinstall the package."
    if not hasattr(library, "qwa_abi") or library.qwa_abi() != ABI:
        return None, f"{path.name} is of another version; reinstall the package."
    _declare(library)
    return library, ""


def _declare(library: ctypes.CDLL) -> None:
    library.qwa_selected.restype = ctypes.c_char_p
    library.qwa_supported.argtypes = library.qwa_select.argtypes = [ctypes.c_char_p]
    library.qwa_set_threads.argtypes = [ctypes.c_int]
    library.qwa_set_threads.restype = None
    library.qwa_use_openmp.argtypes = [ctypes.c_void_p] * 3
    library.qwa_use_openmp.restype = None
    library.qwa_linears.argtypes = [
        ctypes.c_void_p,  # array of pointers to LinearStruct
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,  # array of float pointers
        ctypes.c_void_p,  # array of int64 strides
    ]
    library.qwa_linears.restype = None


def _share_threads(library: ctypes.CDLL) -> None:
    """Let the library run on the threads that torch keeps: two teams would fight for the cores."""
    library.qwa_set_threads(torch.get_num_threads())
    names = ("GOMP_parallel", "omp_get_num_threads", "omp_get_thread_num")
    openmp = runtime()
    if openmp is not None and all(hasattr(openmp, name) for name in names):
        library.qwa_use_openmp(*(ctypes.cast(getattr(openmp, name), ctypes.c_void_p) for name in names))


def follow_torch(library: ctypes.CDLL) -> None:
    """As many threads as torch has now."""
    threads = torch.get_num_threads()
    if threads != library.qwa_get_threads():
        library.qwa_set_threads(threads)
