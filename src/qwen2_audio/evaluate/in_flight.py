"""Some questions are with a model at a time, and their answers come in order, whatever happens to the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from ..errors import ConfigError, EvaluationError, Qwen2AudioError
from .endpoint import EndpointDownError
from .question import Answer

T = TypeVar("T")
Submit = Callable[[], Callable[[], Answer]]  # asks, and returns at once what waits for the answer


def answers(asked: Iterable[tuple[T, Submit]], in_flight: int) -> Iterator[tuple[T, Answer | Qwen2AudioError]]:
    """Each item with its answer, or with the error that is this question's alone; `in_flight` are asked ahead.

    Raises EvaluationError and ConfigError, which end a run. Where a server goes away (EndpointDownError), answers that
    were on their way come first.
    """
    waiting: deque[tuple[T, Callable[[], Answer]]] = deque()
    try:
        for item, submit in asked:
            waiting.append((item, _asked(submit)))
            if len(waiting) >= in_flight:
                item, wait = waiting.popleft()
                yield item, _answer_or_error(wait)
        while waiting:
            item, wait = waiting.popleft()
            yield item, _answer_or_error(wait)
    except EndpointDownError:
        while waiting:
            item, wait = waiting.popleft()
            try:
                answer = wait()
            except Qwen2AudioError:
                continue
            yield item, answer
        raise


def _asked(submit: Submit) -> Callable[[], Answer]:
    """What waits for the answer; a question that is refused at once is an answer that raises."""
    try:
        return submit()
    except Qwen2AudioError as error:
        refusal = error

        def wait() -> Answer:
            raise refusal

        return wait


def _answer_or_error(wait: Callable[[], Answer]) -> Answer | Qwen2AudioError:
    try:
        return wait()
    except (EvaluationError, ConfigError):
        raise
    except Qwen2AudioError as error:
        return error
