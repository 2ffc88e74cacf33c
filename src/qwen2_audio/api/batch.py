"""`m.batch`: conversations submitted a limited number ahead, answers in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..engine.request import RequestHandle, when_free
from ..errors import Qwen2AudioError
from ..types import Completion, Message, SamplingParams
from .service import Service

Asked = tuple[Sequence[Message], SamplingParams, str | None]  # a conversation, its params and its adapter's name


def run(service: Service, asked: Sequence[Asked], long: str, ahead: int) -> list[Completion]:
    """The answers. At most `ahead` are submitted at a time, so that the engine computes the first ones while later
    clips are read, and so that other callers find half of the queue free. Raises as `AudioChat.batch`."""
    answers, handles = list[Completion](), deque[RequestHandle]()
    try:
        for number, (messages, params, adapter) in enumerate(asked, 1):
            if len(handles) == ahead:
                answers.append(_oldest_answer(handles, len(answers) + 1))
            with _numbered_errors(number):
                handles.append(_submit_when_free(service, messages, params, long, adapter))
        while handles:
            answers.append(_oldest_answer(handles, len(answers) + 1))
        return answers
    finally:
        for handle in handles:
            handle.cancel()


def submit_long(
    service: Service, messages: Sequence[Message], params: SamplingParams, long: str
) -> tuple[Sequence[Message], RequestHandle | None]:
    """`longform.questions.submit.submit`, imported here: a conversation without a long clip runs none of its files."""
    from ..longform.questions.submit import submit

    return submit(service, messages, params, long)


def _submit_when_free(
    service: Service, messages: Sequence[Message], params: SamplingParams, long: str, adapter: str | None
) -> RequestHandle:
    """Raises BusyError where other callers fill the queue, or the places for adapters, for 60 s."""
    if long != "refuse":
        chosen = service if adapter is None else when_free(lambda: service.with_adapter(adapter))
        messages, handle = submit_long(chosen, messages, params, long)
        if handle is not None:
            return handle
    return when_free(lambda: (service if adapter is None else service.with_adapter(adapter)).submit(messages, params))


def _oldest_answer(handles: deque[RequestHandle], number: int) -> Completion:
    """Wait for the answer of the first of `handles`, conversation `number`, and remove the handle."""
    with _numbered_errors(number):
        (answer,) = handles[0].completions()
    handles.popleft()  # only now, so that an interrupt of the wait cancels it with the others
    return answer


@contextmanager
def _numbered_errors(number: int) -> Iterator[None]:
    """Put the conversation's number in front of the message of an error that is raised inside."""
    try:
        yield
    except Qwen2AudioError as error:
        raise type(error)(f"Conversation {number}: {error}") from error
