"""The model that a request names: the checkpoint, by one of its names, or `NAME:ADAPTER`, with a LoRA adapter added."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from ..engine.request import RequestHandle
from ..errors import BusyError, ConfigError, UnknownAdapterError, WeightsError
from ..types import Chunk, Ending, Message, SamplingParams
from .backend import Backend
from .errors import ApiError, busy
from .state import State
from .stream_reader import stream

_NAMED = 20  # names that an error lists

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """What answers a request. `name`: as its responses carry it."""

    name: str
    backend: Backend
    state: State

    def submit(
        self,
        messages: list[Message],
        params: SamplingParams,
        arrived: float,
        priority: int = 0,
        clip_params: Sequence[str] = (),
        raw: bool = False,
        ending: Ending = "answer",
    ) -> tuple[RequestHandle, AsyncGenerator[Chunk, None]]:
        """Submits a conversation to the model: the request's handle, and its chunks as `stream_reader.stream` has them.

        `arrived`: the request's arrival by the event loop's clock, in seconds; the deadline counts from there.
        `clip_params`: the request's field of each clip, for errors.
        `raw`, `ending`: as `Backend.submit` takes them.
        """
        timeout = self.state.seconds_left(arrived)
        handle = self.backend.submit(messages, params, timeout=timeout, priority=priority, raw=raw, ending=ending)
        return handle, stream(handle, self.state.settings, clip_params)


async def served_model(state: State, name: str | None) -> ServedModel:
    """The model of a request. It may name none: then it is the checkpoint. An adapter's name may also stand alone.

    ApiError: 404 for a name that is not here, 400 for an adapter whose files are damaged or do not fit, 429 where
    requests use as many other adapters as may be in memory.
    """
    names, backend = state.names, state.backend
    if name is None or name in names:
        return ServedModel(names[0], backend, state)
    base = max((base for base in names if name.startswith(f"{base}:")), key=len, default=None)
    adapter = name if base is None else name[len(base) + 1 :]
    try:
        # In a thread: its files are read at first use.
        adapted = await asyncio.to_thread(backend.with_adapter, adapter)
    except UnknownAdapterError as error:
        if base is not None:
            raise ApiError(str(error), status=404, param="model", code="model_not_found") from error
        known = await model_names(state)
        message = f"There is no model {name[:100]!r} here; expected {', '.join(map(repr, known[:_NAMED]))}."
        raise ApiError(message, status=404, param="model", code="model_not_found") from error
    except WeightsError as error:
        raise ApiError(f"The adapter cannot be used: {error}", param="model", code="invalid_adapter") from error
    except BusyError as error:
        raise busy(str(error), state.settings.retry) from error
    return ServedModel(f"{base or names[0]}:{adapter}", adapted, state)


async def model_names(state: State) -> list[str]:
    """What clients may name: the checkpoint's names, and its first one with each adapter."""
    try:
        adapters = await asyncio.to_thread(state.backend.adapters)
    except ConfigError as error:  # its folder has gone, which clients cannot help; nor are they told where it lay
        log.warning("No adapter is served: %s", error)
        adapters = ()
    return [*state.names, *(f"{state.names[0]}:{adapter}" for adapter in adapters)]
