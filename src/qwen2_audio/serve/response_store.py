"""Responses that `previous_response_id` may name: in memory, within bounds, the oldest forgotten first."""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..types import Message

MOST = 1024  # responses, however small
_OVERHEAD = 1024  # bytes of a response beside its body, texts and clips
_OF_PART = 512  # of a message or a part of one, beside its text or clip


@dataclass(frozen=True)
class StoredResponse:
    """A response's body as JSON, and the conversation that it ends, without the instructions."""

    id: str
    body: bytes
    messages: list[Message]

    @cached_property
    def nbytes(self) -> int:
        """About what it takes: clips of earlier turns are shared between responses, and counted in each."""
        return _OVERHEAD + len(self.body) + sum(_size(message["content"]) for message in self.messages)


def _size(content: Any) -> int:
    if isinstance(content, (str, bytes)):
        return _OF_PART + sys.getsizeof(content)  # a text of emoji takes four bytes a character
    return _OF_PART + sum(_size(part.get("audio", part.get("text", ""))) for part in content)


class ResponseStore:
    """At most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._stored: OrderedDict[str, StoredResponse] = OrderedDict()

    def put(self, response: StoredResponse) -> None:
        """Keep a response, unless it alone is too large; others make room for it."""
        if response.nbytes > self.limit:
            return
        self._stored[response.id] = response
        self.nbytes += response.nbytes
        while self.nbytes > self.limit or len(self._stored) > MOST:
            _, oldest = self._stored.popitem(last=False)
            self.nbytes -= oldest.nbytes

    def get(self, identifier: str) -> StoredResponse | None:
        """The response, which becomes the newest."""
        if identifier in self._stored:
            self._stored.move_to_end(identifier)
        return self._stored.get(identifier)

    def delete(self, identifier: str) -> bool:
        """Forget a response; False for one that is not here."""
        response = self._stored.pop(identifier, None)
        self.nbytes -= response.nbytes if response is not None else 0
        return response is not None
