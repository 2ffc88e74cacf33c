"""`m.embed`: clips, texts and conversations as vectors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.request import RequestHandle
from ..errors import BusyError, ConfigError, LongClipError, PromptError, Qwen2AudioError
from ..inputs import prompt as prompts
from ..inputs.messages import user
from ..inputs.processor import Qwen2AudioProcessor
from ..inputs.prompt import LogMels, Prompt
from ..text.chat_template import AUDIO
from ..types import EmbeddingInput, Ending, PoolingParams

if TYPE_CHECKING:
    from .service import Service

AHEAD = 64  # inputs that are submitted before the first one is done


def input_of(source: Any) -> EmbeddingInput:
    """From a clip in any form that `user()` takes, a message, or a list of messages."""
    if isinstance(source, EmbeddingInput):
        return source
    if isinstance(source, (list, tuple)) and source and _is_message(source[0]):
        return EmbeddingInput(conversation=tuple(source))
    return EmbeddingInput(message=source if _is_message(source) else user(audio=source))


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value


def prompt_of(
    source: EmbeddingInput, processor: Qwen2AudioProcessor, template: str | None = None, log_mels: LogMels | None = None
) -> Prompt:
    """The prompt that is embedded. Raises PromptError and AudioError as `build_prompt`."""
    if source.message is not None:
        return prompts.build_plain_prompt(source.message, processor, log_mels)
    if source.conversation:
        ending: Ending = "answer" if source.add_generation_prompt else "closed"
        return prompts.build_prompt(source.conversation, processor, template, log_mels, ending=ending)
    audio_id = processor.tokenizer.convert_tokens_to_ids(AUDIO)
    known = len(processor.tokenizer)
    wrong = [token for token in source.ids if not 0 <= token < known or token == audio_id]
    if wrong or not source.ids:
        what = f"holds the id {wrong[0]}" if wrong else "is empty"
        raise PromptError(f"A list of token ids {what}; expected ids of text from 0 to {known - 1}.")
    return Prompt(list(source.ids), [], [], ())


def embed_each(
    submit: Callable[[Any], RequestHandle], sources: Iterable[Any], *, on_error: Callable[[int, Exception], Any]
) -> Iterator[Any]:
    """The embedding of each source, in order, while others are computed; where one fails, what `on_error` returns for
    its number, from 1."""
    handles = deque[tuple[int, RequestHandle]]()
    number = 0
    try:
        for number, source in enumerate(sources, 1):
            while True:
                if len(handles) >= AHEAD:
                    yield _embedding(handles, on_error)
                try:
                    handles.append((number, submit(source)))
                    break
                except BusyError:
                    if not handles:
                        raise
                    yield _embedding(handles, on_error)  # until the queue has room
        while handles:
            yield _embedding(handles, on_error)
    finally:
        for _, handle in handles:
            handle.cancel()


def _embedding(handles: deque[tuple[int, RequestHandle]], on_error: Callable[[int, Exception], Any]) -> Any:
    number, handle = handles.popleft()
    try:
        return handle.embedding().embedding
    except Exception as error:
        return on_error(number, error)


def run(service: Service, sources: Sequence[Any], params: PoolingParams) -> np.ndarray | list[np.ndarray]:
    """float32 [N, D] of N sources, or with pooling "none" a list of [T, D]."""
    if isinstance(sources, (str, bytes, dict, np.ndarray)) or not isinstance(sources, Sequence):
        raise ConfigError("embed() takes a list: of clips, of user(...) messages, or of conversations.")
    if not sources:
        raise ConfigError("embed() got an empty list; expected at least one clip.")

    def refuse(number: int, error: Exception) -> None:
        if isinstance(error, ConfigError):  # of what no input could be embedded with
            raise error
        if isinstance(error, LongClipError):  # of which str() names what m.chat can do
            raise LongClipError(f"Input {number}: {error.sentence}") from error
        if isinstance(error, Qwen2AudioError):
            raise type(error)(f"Input {number}: {error}") from error
        raise error

    vectors = list(embed_each(lambda source: service.submit_embedding(source, params), sources, on_error=refuse))
    return vectors if params.pooled_by == "none" else np.stack(vectors)
