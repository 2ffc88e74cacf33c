"""LoRA adapters that requests name: found in folders that the operator allowed, read at first use, a few kept.

    name -> folder, if it is allowed -> read, checked against the model -> kept, least recently used first out

An adapter whose files have changed is read again; one whose folder is gone is no longer known. One that requests use is
never dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Any, cast

import torch
from torch import nn

from .. import lora
from ..distributed.tensor_parallel import tensor_parallel_group
from ..errors import BusyError, ConfigError, UnknownAdapterError, WeightsError, did_you_mean
from .metrics import Stats
from .model_interface import EngineModel
from .request import RequestHandle
from .settings import EngineSettings

NAMED = 20  # names that an error lists

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Pair:
    """What is added to a Linear's output: `lora.low_rank` of its input. On the model's device, in float32."""

    down: torch.Tensor  # A [rank, in]
    up: torch.Tensor  # B [out, rank]
    scaling: float


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """An adapter in memory. `key`: a positive number, the 128-bit hash of its files."""

    name: str
    key: int
    encoder: Mapping[str, Pair]  # by the Linear's path: those of encoder and projector
    language_model: Mapping[str, Pair]
    files: tuple[tuple[int, int], ...]  # what tells whether the files have changed: time and size of each
    users: set[RequestHandle] = field(default_factory=set)

    @property
    def nbytes(self) -> int:
        pairs = (*self.encoder.values(), *self.language_model.values())
        return sum(pair.down.nbytes + pair.up.nbytes for pair in pairs)

    @property
    def in_use(self) -> bool:
        """Whether a request that uses it is unfinished."""
        self.users.difference_update([handle for handle in self.users if handle.done])
        return bool(self.users)


class Adapters:
    """The adapters of one engine. All methods may be called from any thread."""

    def __init__(self, model: EngineModel, settings: EngineSettings, stats: Stats) -> None:
        """Raises ConfigError where adapters are allowed and the model cannot have them by request."""
        self._model, self._settings, self._stats = model, settings, stats
        self._loaded: list[LoadedAdapter] = []  # least recently used first
        self._lock, self._reading = Lock(), Lock()  # the second is held while files are read
        if settings.adapters_allowed and tensor_parallel_group(model) is not None:
            raise ConfigError(
                "Adapters by request fit whole weights, and several processes share this model; start it in one "
                "process, or merge the adapter with qwen2-audio merge."
            )

    def names(self) -> list[str]:
        """Those that requests may name now, in order; whether their files are sound shows at first use."""
        settings, folder = self._settings, self._settings.lora_folder
        try:
            entries = [] if folder is None else [path.name for path in folder.iterdir()]
        except OSError as error:
            raise ConfigError(f"The folder of adapters, {folder}, cannot be read ({error.strerror}).") from None
        return sorted({*settings.lora_modules, *(name for name in entries if self._folder(name) is not None)})

    def load(self, name: str) -> LoadedAdapter:
        """The adapter, from memory unless its files have changed.

        Raises UnknownAdapterError; WeightsError, which names the file, for one that cannot be read or does not fit;
        BusyError where requests use as many others as may be in memory.
        """
        folder = self._folder(name)
        if folder is None:
            self._forget(name)
            raise UnknownAdapterError(self._unknown(name))
        with self._reading:
            try:
                files = tuple(_state(folder / file) for file in lora.FILES)
            except OSError as error:
                raise WeightsError(f"{name}/{Path(error.filename).name} cannot be read ({error.strerror}).") from None
            self._forget(name, but=files)
            with self._lock:
                for adapter in self._loaded:
                    if (adapter.name, adapter.files) == (name, files):
                        return adapter
                self._make_room()  # before it is read: there may be none
            adapter = self._read(name, folder, files)
            self._keep(adapter)
        counts = self._stats.adapters_loaded, self._settings.max_loras
        logger.info("The adapter %s takes %.1f MB; %d of at most %d are loaded", name, adapter.nbytes / 1e6, *counts)
        return adapter

    def holds(self, adapter: LoadedAdapter) -> bool:
        """Whether it is in memory."""
        return adapter in self._loaded

    def use(self, adapter: LoadedAdapter, handle: RequestHandle) -> None:
        """A request uses the adapter until its handle is done. Raises BusyError as `load`."""
        self._keep(adapter, handle)

    # -- inside

    def _folder(self, name: str) -> Path | None:
        """The folder of an adapter that may be named; None for any other name, a path among them."""
        modules, folder = self._settings.lora_modules, self._settings.lora_folder
        if name in modules:
            return Path(modules[name])
        if folder is None or name.startswith(".") or not name.isprintable() or set(name) & set("/\\"):
            return None
        try:
            return folder / name if name and (folder / name / lora.CONFIG_NAME).is_file() else None
        except OSError:  # a name that is too long for this file system
            return None

    def _unknown(self, name: str) -> str:
        try:
            known = self.names()
        except ConfigError as error:  # which may be for other eyes than the answer
            logger.warning("No adapter can be named: %s", error)
            known = []
        if not known:
            return f"There is no adapter {name[:100]!r} here, and none that could be named."
        listed = ", ".join(known[:NAMED]) + (f" and {len(known) - NAMED} more" if len(known) > NAMED else "")
        return f"There is no adapter {name[:100]!r} here; expected one of {listed}.{did_you_mean(name[:100], known)}"

    def _read(self, name: str, folder: Path, files: tuple[tuple[int, int], ...]) -> LoadedAdapter:
        digest = blake2b(digest_size=16)
        try:
            for file in lora.FILES:
                digest.update((folder / file).read_bytes())
            parts = lora.read_adapter(cast(nn.Module, self._model), folder)
        except (WeightsError, OSError) as error:  # by its name: clients are not told where it lies
            raise WeightsError(str(error).replace(str(folder), name)) from error
        pairs = {part.path: _pair(part, self._model.device) for part in parts}
        language_model = {path: pair for path, pair in pairs.items() if path.startswith("language_model.")}
        encoder = {path: pair for path, pair in pairs.items() if path not in language_model}
        return LoadedAdapter(name, 1 + int.from_bytes(digest.digest()), encoder, language_model, files)

    def _keep(self, adapter: LoadedAdapter, handle: RequestHandle | None = None) -> None:
        """Have it in memory, as the most recently used one."""
        with self._lock:
            if adapter in self._loaded:
                self._loaded.remove(adapter)
            else:
                self._make_room()
            self._loaded.append(adapter)
            if handle is not None:
                adapter.users.add(handle)
            self._count()

    def _make_room(self) -> None:
        """Drop the least recently used one where as many are in memory as may be. Needs the lock. Raises BusyError."""
        if len(self._loaded) < self._settings.max_loras:
            return
        idle = next((adapter for adapter in self._loaded if not adapter.in_use), None)
        if idle is None:
            raise BusyError(
                f"Requests use {len(self._loaded)} adapters, as many as may be in memory (max_loras); try again later."
            )
        self._loaded.remove(idle)
        self._count()

    def _forget(self, name: str, but: tuple[tuple[int, int], ...] = ()) -> None:
        """Drop what was read of an adapter whose files are gone, or are others now; requests that use it go on."""
        with self._lock:
            self._loaded = [
                adapter for adapter in self._loaded if adapter.name != name or adapter.files == but or adapter.in_use
            ]
            self._count()

    def _count(self) -> None:
        self._stats.adapters_loaded = len(self._loaded)
        self._stats.adapter_bytes = sum(adapter.nbytes for adapter in self._loaded)


def _pair(part: lora.LowRank, device: torch.device) -> Pair:
    options: dict[str, Any] = {"device": device, "dtype": torch.float32}
    return Pair(part.down.to(**options).contiguous(), part.up.to(**options).contiguous(), part.scaling)


def _state(file: Path) -> tuple[int, int]:
    """Changes when a file is written to."""
    state = file.stat()
    return state.st_mtime_ns, state.st_size
