"""The interface between server and model. `api/service.py` implements it; tests use a fake with scripted answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from ..api.decisions import PendingDecision, Question
from ..engine.request import RequestHandle
from ..longform.questions.asker import Reader
from ..longform.word_times import WordTimer
from ..types import EmbeddingInput, Ending, Message, PoolingParams

if TYPE_CHECKING:
    from ..engine.metrics import Stats
    from ..inputs.prompt import Prompt


class Backend(Reader, Protocol):
    """A loaded model that answers many conversations concurrently."""

    @property
    def name(self) -> str:
        """The model's id in /v1/models."""

    @property
    def about(self) -> str:
        """One line that says what this checkpoint is good for."""

    @property
    def aligner(self) -> WordTimer:
        """Finds times of words; `ensure_available` raises ConfigError where the checkpoint has no head for that."""

    @property
    def version(self) -> str:
        """The version of this package."""

    def adapters(self) -> Sequence[str]:
        """Names of the LoRA adapters that requests may have, in order. May read a folder."""

    def with_adapter(self, name: str) -> Backend:
        """The same model with an adapter, for what is submitted to the result. May read files.

        Raises UnknownAdapterError, WeightsError for files that are damaged or do not fit, BusyError where requests use
        as many others as may be in memory.
        """

    def submit_embedding(
        self,
        source: EmbeddingInput,
        params: PoolingParams,
        *,
        timeout: float | None = None,
        priority: int = 0,
        check_size: Callable[[int], None] | None = None,
    ) -> RequestHandle:
        """Queues what is to be embedded; the last chunk has the embedding. Raises as `submit`. `check_size` is told on
        another thread, before anything is computed, how many numbers it will have; what it raises ends the request."""

    def submit_decisions(
        self,
        messages: Sequence[Message],
        questions: Sequence[Question],
        *,
        timeout: float | None = None,
        priority: int = 0,
    ) -> list[PendingDecision]:
        """Queues questions about one conversation, whose clips are read once. Raises as `submit`."""

    def prompt(self, messages: Sequence[Message], *, ending: Ending = "answer") -> Prompt:
        """A conversation's prompt, with its clips loaded. Raises PromptError, AudioError."""

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Ids of a text; with `add_special_tokens` a control token in it is one."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids. Raises PromptError for ids that are no tokens."""

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each token. Raises PromptError as `decode`."""

    def stats(self) -> Stats:
        """A copy of the engine's counters."""

    def close(self, grace: float) -> None:
        """Refuses new requests, gives running ones `grace` seconds, cancels the rest; returns when all have ended."""
