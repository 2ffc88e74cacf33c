"""The operation `embed`: a vector of each clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..engine.request import RequestHandle
from ..inputs.clip import AudioClip
from ..inputs.messages import user
from ..types import PoolingParams
from .config import JobConfig
from .operations import Pending, usage_of
from .reading import clip_of
from .runner import JobRow

if TYPE_CHECKING:
    from ..api.chat import AudioChat


class Embed:
    """See `operations.Operation`."""

    def __init__(self, chat: AudioChat, config: JobConfig) -> None:
        self._service = chat.service()
        self._params = config.embed if isinstance(config.embed, PoolingParams) else PoolingParams()

    def read(self, item: JobRow) -> AudioClip:
        return clip_of(item.row)

    def submit(self, item: JobRow, read: AudioClip) -> Pending:
        return Embedded(self._service.submit_embedding(user(audio=read.waveform), self._params), read)

    def close(self) -> None: ...


class Embedded:
    """See `operations.Pending`."""

    def __init__(self, handle: RequestHandle, clip: AudioClip) -> None:
        self._handle, self._clip = handle, clip

    def done(self) -> bool:
        return self._handle.done

    def result(self) -> Mapping[str, Any]:
        last = self._handle.embedding()
        assert last.embedding is not None and last.usage is not None
        return {
            "embedding": last.embedding.tolist(),
            "heard": round(self._clip.heard.seconds, 6),
            "usage": {**usage_of(last.usage), "completion_tokens": 0},
            "notes": list(self._clip.heard.notes),
        }
