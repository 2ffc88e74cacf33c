"""The shared object of csrc/: loading it, choosing an instruction set, checking what it is given; else torch computes.

$QWEN2_AUDIO_ISA names the instruction set to use: amx, avx512, avx2, portable; "torch" leaves the kernels out.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import CapacityError, ConfigError
from .build import LIBRARY
from .openmp import runtime
from .structs import layout_difference

ABI = 4
ISA_VARIABLE = "QWEN2_AUDIO_ISA"
ISAS = ("amx", "avx512", "avx2", "portable")  # best first
NO_KERNELS = "torch"
OK = 0  # QWA_OK

logger = logging.getLogger(__name__)
_lock = threading.Lock()
_loaded: Loaded | None = None


@dataclass(frozen=True)
class Loaded:
    """What `load` returns: the library, or the reason why there is none."""

    library: ctypes.CDLL | None
    isa: str  # the instruction set in use, or "torch"
    reason: str  # one sentence for people


def load() -> Loaded:
    """The library, loaded once a process.

    Raises ConfigError: $QWEN2_AUDIO_ISA names an instruction set that is unknown or that this CPU does not run.
    """
    global _loaded
    if _loaded is None:
        with _lock:  # two threads must not choose at once: each would change the other's instruction set
            if _loaded is None:
                _loaded = _load()
    return _loaded


def _load() -> Loaded:
    requested = os.environ.get(ISA_VARIABLE, "")
    if requested and requested not in (*ISAS, NO_KERNELS):
        expected = ", ".join((*ISAS, NO_KERNELS))
        raise ConfigError(f"${ISA_VARIABLE} is {requested!r}; expected one of {expected}, or nothing.")
    if requested == NO_KERNELS:
        return Loaded(None, NO_KERNELS, f"Native kernels are switched off by ${ISA_VARIABLE}; torch computes, slowly.")
    library, reason = _open(LIBRARY)
    if library is None:
        if requested:
            raise ConfigError(f"${ISA_VARIABLE} asks for {requested!r}, but {reason}")
        return Loaded(None, NO_KERNELS, f"No native kernels: {reason} Torch computes quantised layers, slowly.")
    _share_threads(library)
    candidates = [isa for isa in ISAS if library.qwa_supported(isa.encode())]
    if requested and requested not in candidates:
        raise ConfigError(
            f"${ISA_VARIABLE} is {requested!r}, which this CPU does not run; it runs {', '.join(candidates)}."
        )
    return choose(library, [requested] if requested else candidates)


def choose(library: ctypes.CDLL, candidates: Sequence[str]) -> Loaded:
    """Select the first instruction set whose kernels compute what torch computes. One that does not is refused."""
    from .self_test import self_test

    for isa in candidates:
        library.qwa_select(isa.encode())
        wrong = self_test(library)
        if wrong is None:
            return Loaded(library, isa, f"Native kernels: {isa}, {library.qwa_get_threads()} threads.")
        logger.warning("The native %s kernels are refused: %s differs from torch.", isa, wrong)
    return Loaded(None, NO_KERNELS, "No native kernels: their results differ from torch's on this machine.")


def _open(path: Path) -> tuple[ctypes.CDLL | None, str]:
    """The library at `path` with its signatures declared, or None and the reason."""
    if not path.is_file():
        return None, f"{path.name} was not built (no C++ compiler at installation); install one and reinstall."
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return None, f"{path.name} does not load ({error}); reinstall the package."
    if not hasattr(library, "qwa_abi") or library.qwa_abi() != ABI:
        return None, f"{path.name} is of another version; reinstall the package."
    difference = layout_difference(library)
    if difference is not None:
        return None, f"{path.name} does not match this package ({difference}); rebuild it or reinstall the package."
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
    library.qwa_linears.errcheck = raise_on_failure


def raise_on_failure(status: Any, function: Any, arguments: Any) -> Any:
    """ctypes' `errcheck` of the calls that return a status. Raises CapacityError: there was no working memory."""
    if status != OK:
        raise CapacityError(
            f"The native kernels got no working memory for {function.__name__}: the system refused it. Free memory, "
            "or compute less at once (shorter prompts, fewer answers at a time)."
        )
    return status


def _share_threads(library: ctypes.CDLL) -> None:
    """Let the library run on the threads that torch keeps: two teams would compete for the cores."""
    library.qwa_set_threads(torch.get_num_threads())
    names = ("GOMP_parallel", "omp_get_num_threads", "omp_get_thread_num")
    openmp = runtime()
    if openmp is not None and all(hasattr(openmp, name) for name in names):
        library.qwa_use_openmp(*(ctypes.cast(getattr(openmp, name), ctypes.c_void_p) for name in names))


def has_memory(x: torch.Tensor) -> bool:
    """Whether `x` holds numbers that native code can read, and not those of torch.export, torch.compile or a trace."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    return type(x) is torch.Tensor and not traced


def check_tensor(name: str, tensor: torch.Tensor, count: int, dtype: torch.dtype = torch.float32) -> None:
    """Raises ValueError unless `tensor` is contiguous memory of the CPU that holds `count` numbers of `dtype`.

    Native code takes an address and trusts it. `name` says which tensor of which call it is.
    """
    if tensor.dtype is dtype and tensor.numel() == count and tensor.is_cpu and tensor.is_contiguous():
        return
    layout = "contiguous" if tensor.is_contiguous() else "strided"
    raise ValueError(
        f"{name} is {layout} {_dtype_name(tensor.dtype)} {list(tensor.shape)} on {tensor.device.type}; native code "
        f"expects {count} contiguous {_dtype_name(dtype)} numbers on the CPU. Convert it first."
    )


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def follow_torch(library: ctypes.CDLL) -> None:
    """Use as many threads as torch uses now."""
    threads = torch.get_num_threads()
    if threads != library.qwa_get_threads():
        library.qwa_set_threads(threads)
