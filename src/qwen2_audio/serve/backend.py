"""The interface between server and model. `api/service.py` implements it; tests use a fake with scripted answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..engine.request import RequestHandle
from ..longform.settings import TranscriptionSettings
from ..longform.word_times import WordTimer
from ..types import Message, SamplingParams

if TYPE_CHECKING:
    from ..engine.metrics import Stats


class Backend(Protocol):
    """A loaded model that answers many conversations concurrently."""

    @property
    def name(self) -> str:
        """The model's id in /v1/models."""

    @property
    def about(self) -> str:
        """One line that says what this checkpoint is good for."""

    @property
    def is_base(self) -> bool:
        """Whether the checkpoint continues a prompt, and was not tuned to answer turns of a chat."""

    @property
    def context(self) -> int:
        """Tokens of context, prompt and answer together."""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The generation_config in force: temperature, top_p, top_k, max_tokens, ..."""

    @property
    def transcription(self) -> TranscriptionSettings:
        """How the checkpoint transcribes clips of any length."""

    @property
    def aligner(self) -> WordTimer:
        """Finds times of words; `ensure_available` raises ConfigError where the checkpoint has no head for that."""

    @property
    def version(self) -> str:
        """The version of this package."""

    def submit(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
        raw: bool = False,
    ) -> RequestHandle:
        """Queues a conversation and returns at once; a clip is `{"type": "audio", "audio": bytes}`.

        `raw`: the one message is a clip and a prompt of a base checkpoint, which no chat template frames.
        `timeout`: seconds until the request ends as "deadline"; `priority`: 0 runs first. Raises PromptError,
        ConfigError or ContextLengthError for faults that show before the clips are decoded, and BusyError if the queue
        is full. A later fault ends each answer with an error.
        """

    def stats(self) -> Stats:
        """A copy of the engine's counters."""

    def close(self, grace: float) -> None:
        """Refuses new requests, gives running ones `grace` seconds, cancels the rest; returns when all have ended."""
