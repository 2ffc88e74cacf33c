"""Text while it is being generated.

Any object with `put(ids)` and `end()` is a streamer: it gets the prompt's ids [1, T] first, then each new token [1],
and `end()` when the answer is complete. When generation fails, `fail(error)` is called where there is one, else
`end()`: who reads from another thread is never left waiting.
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

# The Unicode blocks of CJK ideographs: words there have no spaces to wait for.
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
    """What `generate(streamer=...)` takes."""

    def put(self, value: Tensor) -> None: ...

    def end(self) -> None: ...


class TextStreamer:
    """Prints text as soon as its words are complete: at a newline, after an ideograph, else up to the last space.

    tokenizer: anything with `decode(ids, **decode_kwargs)`.
    skip_prompt: leave the prompt out.
    decode_kwargs: handed to `decode`, for instance skip_special_tokens=True.
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, **decode_kwargs: Any) -> None:
        self.tokenizer = tokenizer
        self.skip_prompt = skip_prompt
        self.decode_kwargs = decode_kwargs
        self._reset()

    def _reset(self) -> None:
        self._ids: list[int] = []
        self._shown = 0  # characters of the decoded ids that are out
        self._prompt_next = True

    def put(self, value: Tensor) -> None:
        """Take ids [n] or [1, n]. Raises ConfigError for more than one row."""
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
        """Show what was held back, and be ready for the next answer."""
        rest = self.tokenizer.decode(self._ids, **self.decode_kwargs)[self._shown :] if self._ids else ""
        self._reset()
        self.on_finalized_text(rest, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Called with each piece of text that will not change; override to send it elsewhere."""
        sys.stdout.write(text + "\n" if stream_end else text)
        sys.stdout.flush()


def _is_cjk(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _CJK)


class _End:
    """Queued after the last piece; carries the error that ended generation, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class TextIteratorStreamer(TextStreamer):
    """Hands pieces of text to another thread: iterate here, call `generate` there.

    timeout: seconds to wait for a piece (None: for ever), after which `Qwen2AudioError` is raised. An error in
    `generate` is raised here too, in the place of the next piece.
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
            piece = self._queue.get(timeout=self.timeout)
        except Empty:
            raise _late(self.timeout) from None
        return _piece(piece, StopIteration)


class AsyncTextIteratorStreamer(TextStreamer):
    """As TextIteratorStreamer, for `async for` in the event loop that was running when it was made."""

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[str | _End] = asyncio.Queue()

    def _send(self, piece: str | _End) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, piece)

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
            piece = await asyncio.wait_for(self._queue.get(), self.timeout)
        except TimeoutError:
            raise _late(self.timeout) from None
        return _piece(piece, StopAsyncIteration)


def _piece(piece: str | _End, stop: type[Exception]) -> str:
    if isinstance(piece, str):
        return piece
    raise piece.error if piece.error is not None else stop


def _late(timeout: float | None) -> Qwen2AudioError:
    return Qwen2AudioError(f"No text came for {timeout:g} s; raise timeout, or see what happened to generate().")


@contextmanager
def ending(streamer: Streamer | None) -> Iterator[None]:
    """See to it that `streamer` ends exactly once, whatever happens inside."""
    try:
        yield
    except BaseException as error:
        if streamer is not None:
            fail = getattr(streamer, "fail", None)
            streamer.end() if fail is None else fail(error)
        raise
    if streamer is not None:
        streamer.end()
