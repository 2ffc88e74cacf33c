"""Streamers: text while it is being generated.

Any object with `put(ids)` and `end()` is a streamer: it gets the prompt's ids [1, T] first, then each new token [1],
and `end()` when the answer is complete. When generation fails, `fail(error)` is called if the object has it, otherwise
`end()`, so that a thread that reads from the streamer never waits for ever.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Queue
from typing import Any, Protocol, Self

from torch import Tensor

from ..errors import ConfigError, Qwen2AudioError

# The Unicode blocks of CJK ideographs, in which words are not separated by spaces.
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class Streamer(Protocol):
    """The interface of `generate(streamer=...)`."""

    def put(self, value: Tensor) -> None: ...

    def end(self) -> None: ...


class TextStreamer:
    """Prints text as soon as its words are complete: up to a newline, an ideograph, or the last space.

    Args:
        tokenizer: an object with `decode(ids, **decode_kwargs)`.
        skip_prompt: do not print the prompt.
        decode_kwargs: passed to `decode`, for example skip_special_tokens=True.
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, **decode_kwargs: Any) -> None:
        self.tokenizer = tokenizer
        self.skip_prompt = skip_prompt
        self.decode_kwargs = decode_kwargs
        self._reset()

    def _reset(self) -> None:
        self._ids: list[int] = []
        self._shown = 0  # characters of the decoded ids that were printed
        self._prompt_next = True

    def put(self, value: Tensor) -> None:
        """Print the text that ids [n] or [1, n] complete. Raises ConfigError for more than one row."""
        if value.dim() > 1 and value.shape[0] > 1:
            raise ConfigError(f"A text streamer shows one answer, and {len(value)} are generated; leave streamer out.")
        prompt, self._prompt_next = self._prompt_next, False
        if prompt and self.skip_prompt:
            return
        self._ids += value.flatten().tolist()
        text = self.tokenizer.decode(self._ids, **self.decode_kwargs)
        if text.endswith("\n"):
            out = text[self._shown :]
            self._ids, self._shown = [], 0
        else:
            end = len(text) if text and _is_cjk(text[-1]) else text.rfind(" ") + 1
            out = text[self._shown : end]
            self._shown += len(out)
        self.on_finalized_text(out)

    def end(self) -> None:
        """Print the remaining text, and get ready for the next answer."""
        text = self.tokenizer.decode(self._ids, **self.decode_kwargs)[self._shown :] if self._ids else ""
        self._reset()
        self.on_finalized_text(text, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Called with each part of the text once it cannot change; override to send it elsewhere."""
        sys.stdout.write(text + "\n" if stream_end else text)
        sys.stdout.flush()


def _is_cjk(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _CJK)


class _End:
    """Queued after the last text; carries the error that ended generation, if there was one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class TextIteratorStreamer(TextStreamer):
    """An iterator over the text of an answer that another thread generates.

    timeout: seconds to wait for the next text, after which `Qwen2AudioError` is raised; None: no limit. An error of
    `generate` is raised by the iteration too.
    """

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.timeout = timeout
        self._queue: Queue[str | _End] = Queue()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self._queue.put(text)
        if stream_end:
            self._queue.put(_End())

    def fail(self, error: BaseException) -> None:
        """End the iteration with `error`."""
        self._reset()
        self._queue.put(_End(error))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            item = self._queue.get(timeout=self.timeout)
        except Empty:
            raise _timeout_error(self.timeout) from None
        return _text_or_raise(item, StopIteration)


class AsyncTextIteratorStreamer(TextStreamer):
    """TextIteratorStreamer for `async for`, in the event loop that ran when it was made."""

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[str | _End] = asyncio.Queue()

    def _send(self, item: str | _End) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self._send(text)
        if stream_end:
            self._send(_End())

    def fail(self, error: BaseException) -> None:
        """End the iteration with `error`."""
        self._reset()
        self._send(_End(error))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        try:
            item = await asyncio.wait_for(self._queue.get(), self.timeout)
        except TimeoutError:
            raise _timeout_error(self.timeout) from None
        return _text_or_raise(item, StopAsyncIteration)


def _text_or_raise(item: str | _End, stop: type[Exception]) -> str:
    if isinstance(item, str):
        return item
    raise item.error if item.error is not None else stop


def _timeout_error(timeout: float | None) -> Qwen2AudioError:
    return Qwen2AudioError(f"No text came for {timeout:g} s; raise timeout, or see what happened to generate().")


@contextmanager
def ending(streamer: Streamer | None) -> Iterator[None]:
    """End `streamer` exactly once: with `end()`, or with `fail(error)` if the body raises."""
    try:
        yield
    except BaseException as error:
        if streamer is not None:
            fail = getattr(streamer, "fail", None)
            streamer.end() if fail is None else fail(error)
        raise
    if streamer is not None:
        streamer.end()
