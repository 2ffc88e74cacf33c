"""What the server asks of a model. `api/service.py` is the real one; tests have one that knows its answers by heart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..engine.request import Ticket
from ..types import Message, SamplingParams

if TYPE_CHECKING:
    from ..engine.metrics import Stats


class Backend(Protocol):
    """A loaded model that answers many conversations at a time."""

    @property
    def name(self) -> str:
        """The model's id in /v1/models."""

    @property
    def about(self) -> str:
        """One line: what this checkpoint is good for."""

    @property
    def context(self) -> int:
        """Positions that prompt and answer share."""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The generation_config in force: temperature, top_p, top_k, max_tokens, ..."""

    @property
    def version(self) -> str:
        """Of this package."""

    def submit(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
    ) -> Ticket:
        """Put a conversation in the queue and return at once; a clip is `{"type": "audio", "audio": bytes}`.

        Raises PromptError, ConfigError or ContextLengthError for what can be seen without hearing the clips, and
        BusyError where the queue is full. Whatever goes wrong later ends each answer with an error.
        """

    def stats(self) -> Stats:
        """A snapshot of the engine's counters."""

    def close(self, grace: float) -> None:
        """Take no more requests; what runs gets `grace` seconds, then ends as "cancelled". Returns when it is over."""
