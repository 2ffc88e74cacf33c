"""AudioChat: a loaded checkpoint that answers conversations, whole, streamed or many at a time."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

import torch

from ..engine.engine import EngineSettings
from ..engine.request import RequestHandle
from ..errors import BusyError, ConfigError, PromptError, Qwen2AudioError
from ..inputs.processor import Qwen2AudioProcessor
from ..inputs.prompt import Prompt
from ..pretrained import Qwen2AudioForConditionalGeneration
from ..types import Chunk, Completion, Message, SamplingParams
from .service import Service

DEFAULT_PARAMS = SamplingParams()
PATIENCE = 60.0  # s that a batch waits for room where others have taken all of it


class AudioChat:
    """Conversations in, answers out. Made by `load()`.

    Attributes: `model`, `processor`, `name` (folder or hub name), `about` (one line: what this checkpoint is good for),
    `notes` (what was chosen for this machine, and why), `settings` of the engine, `draft` (a smaller model that
    proposes draft tokens, or None). Several threads may ask, and what they ask at the same time is computed together.
    No answer depends on what was asked before or beside it; but encoded clips and the keys and values of prompts are
    kept for the next call, unless `settings.enable_prefix_caching` is off.
    """

    def __init__(
        self,
        model: Qwen2AudioForConditionalGeneration,
        processor: Qwen2AudioProcessor,
        settings: EngineSettings | None = None,
        *,
        name: str = "",
        about: str = "",
        notes: Sequence[str] = (),
        draft: Qwen2AudioForConditionalGeneration | None = None,
    ) -> None:
        self.model = model
        self.processor = processor
        self.settings = settings or EngineSettings()
        self.name = name
        self.about = about
        self.notes = tuple(notes)
        self.draft = draft
        self._lock = Lock()
        self._service: Service | None = None

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def service(self) -> Service:
        """The engine behind it, begun when the first question comes; it ends with this object."""
        with self._lock:
            if self._service is None:
                self._service = Service(
                    self.model, self.processor, self.settings, name=self.name, about=self.about, draft=self.draft
                )
                weakref.finalize(self, self._service.close)
            return self._service

    def chat(self, messages: Sequence[Message], params: SamplingParams | None = None) -> Completion:
        """The answer to a conversation.

        messages: `user()`, `system()`, `assistant()`, or dicts `{"role", "content"}` with text or a list of parts
        `{"type": "text", "text"}`, `{"type": "audio", "audio": source}`. params: without them the checkpoint's
        generation_config holds, with at most 256 new tokens if it names no number.

        Raises PromptError, AudioError (a clip that cannot be heard as a whole), ContextLengthError, CapacityError,
        ConfigError.
        """
        handle = self._ask(messages, _single(params, "chat"))
        try:
            (answer,) = handle.completions()
        finally:
            handle.cancel()  # of what an interrupt left; a finished one does not mind
        return answer

    def stream(self, messages: Sequence[Message], params: SamplingParams | None = None) -> Iterator[Chunk]:
        """As `chat`, in pieces: their texts joined are its text, and the last one carries the rest.

        The conversation is read and its clips are heard before this returns. Closing the iterator, or leaving the loop
        over it, ends generation after the token under way.
        """
        return _pieces(self._ask(messages, _single(params, "stream")))

    def batch(
        self,
        conversations: Sequence[Sequence[Message]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[Completion]:
        """The answers to any number of conversations, computed together, each as from `chat`.

        params: those of all, or one for each. Raises as `chat` does, and says which conversation it was, counted from
        1; nothing goes on behind it. BusyError where others leave no room for a minute.
        """
        if isinstance(params, str) or not isinstance(params, Sequence):
            params = [_single(params, "batch")] * len(conversations)
        each = [_single(one, "batch") for one in params]
        if len(each) != len(conversations):
            raise ConfigError(
                f"batch() got {len(each)} params for {len(conversations)} conversations; expected one for each."
            )
        if any(isinstance(conversation, dict) for conversation in conversations):
            raise PromptError(
                "batch() got one conversation; expected a list of conversations. Use chat() for one, or batch([...])."
            )
        # Prompts are made as the engine comes to need them: it computes the first while later files are read.
        ahead = max(
            1, (self.settings.max_waiting + self.settings.max_num_seqs) // 2
        )  # the rest is for whoever else asks
        service, answers, handles = self.service(), list[Completion](), deque[RequestHandle]()
        try:
            for number, (messages, one) in enumerate(zip(conversations, each, strict=True), 1):
                if len(handles) == ahead:
                    answers.append(_oldest(handles, len(answers) + 1))
                with _named(number):
                    handles.append(_submit(service, messages, one))
            while handles:
                answers.append(_oldest(handles, len(answers) + 1))
            return answers
        finally:
            for handle in handles:
                handle.cancel()

    def _ask(self, messages: Sequence[Message], params: SamplingParams) -> RequestHandle:
        service = self.service()
        prompt: Prompt = service.prompt(messages)
        service.check(prompt, params)
        return service.submit_prompt(prompt, params)


def _single(params: object, name: str) -> SamplingParams:
    params = DEFAULT_PARAMS if params is None else params
    if not isinstance(params, SamplingParams):
        raise ConfigError(
            f"{name}() got {params!r} as params; expected SamplingParams, as in SamplingParams(max_tokens=64)."
        )
    if params.n != 1:
        raise ConfigError(f"n is {params.n}, and {name}() gives one answer; ask again with another seed.")
    return params


def _submit(service: Service, messages: Sequence[Message], params: SamplingParams) -> RequestHandle:
    """`service.submit`, as soon as there is room: an answer that has been read gives up its place a moment later."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return service.submit(messages, params)
        except BusyError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def _oldest(handles: deque[RequestHandle], number: int) -> Completion:
    """Take the first of `handles`, that of conversation `number`, and wait for its answer."""
    with _named(number):
        (answer,) = handles[0].completions()
    handles.popleft()  # until here whoever interrupts the wait cancels it, too
    return answer


@contextmanager
def _named(number: int) -> Iterator[None]:
    """What goes wrong inside says which conversation it was."""
    try:
        yield
    except Qwen2AudioError as error:
        raise type(error)(f"Conversation {number}: {error}") from error


def _pieces(handle: RequestHandle) -> Iterator[Chunk]:
    try:
        for chunk in handle:
            if chunk.error is not None:
                raise chunk.error
            yield chunk
    finally:
        handle.cancel()
        handle.wait()  # for the step under way: nothing is computed behind the caller's back
