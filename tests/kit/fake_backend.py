"""A backend with scripted answers, which behaves like a model in all other respects.

The last text of a conversation selects the answer: "say WORDS" (one token per word), "loop" (endless words), "hang"
(nothing until it is cancelled or its deadline passes), "late WORDS" (after half a second), "break" (two words, then an
error), "fault" (an error at once). The answer to any other text tells what was heard. Clips are really decoded.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

from qwen2_audio.engine.metrics import Stats
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.errors import BusyError, ConfigError, ContextLengthError
from qwen2_audio.inputs.clip import load_clip
from qwen2_audio.longform.settings import TranscriptionSettings
from qwen2_audio.longform.word_times import WordSpan
from qwen2_audio.text.chat_template import check_messages
from qwen2_audio.types import Chunk, FinishReason, Heard, SamplingParams, TokenLogprob, Usage


class NoAligner:
    """Of a checkpoint that has none."""

    def ensure_available(self) -> None:
        raise ConfigError("Times of words need an aligner, and fake has none.")


class Metronome:
    """Each word where its number says: a tenth of a second long, every fifth of a second."""

    def ensure_available(self) -> None:
        pass

    def words(self, samples, words, start=0.0) -> list[WordSpan | None]:
        return [WordSpan(start + n / 5, start + n / 5 + 0.1, 0.9) for n in range(len(words))]


class FakeBackend:
    name = "fake"
    about = "It repeats what it is told."
    context = 2048
    is_base = False
    defaults = MappingProxyType({"max_tokens": 256, "temperature": 0.0, "top_p": 1.0, "top_k": 50})
    version = "0.0.fake"
    transcription = TranscriptionSettings()
    aligner: Any = NoAligner()

    def __init__(self, *, waiting: int = 1000, delay: float = 0.0) -> None:
        self.waiting, self.delay = waiting, delay
        self.seen: list[tuple[list, SamplingParams, float | None, int]] = []
        self.open: set[RequestHandle] = set()
        self.cancelled: set[RequestHandle] = set()
        self.ends: list[str] = []
        self.closed = False
        self._stats = Stats()
        self._lock = threading.Lock()

    def submit(self, messages, params=None, *, timeout=None, priority=0, raw=False) -> RequestHandle:
        params = params or SamplingParams()
        sources = check_messages(messages)
        with self._lock:
            if self.closed or len(self.open) >= self.waiting:
                raise BusyError(f"{len(self.open)} requests wait already, as many as may; try again later.")
            handle = RequestHandle(params.n, self.cancelled.add)
            self.open.add(handle)
            self.seen.append((messages, params, timeout, priority))
        deadline = None if timeout is None else time.monotonic() + timeout
        threading.Thread(target=self._run, args=(handle, messages, sources, params, deadline), daemon=True).start()
        return handle

    def stats(self) -> Stats:
        return self._stats.snapshot()

    def close(self, grace: float) -> None:
        self.closed = True
        end = time.monotonic() + grace
        while self.open and time.monotonic() < end:
            time.sleep(0.005)
        self.cancelled |= self.open
        while self.open:
            time.sleep(0.005)

    def _run(self, handle, messages, sources, params, deadline) -> None:
        try:
            heard = tuple(load_clip(source, number).heard for number, source in enumerate(sources, 1))
            prompt = 20 + sum(clip.tokens for clip in heard) + len(text_of(messages)) // 10
            if prompt >= self.context:
                raise ContextLengthError(f"The prompt has {prompt} positions; the model has {self.context}.")
            handle.prompt_usage = Usage(prompt, sum(clip.tokens for clip in heard), 0)
            for index in range(params.n):
                self._answer(handle, index, words_of(messages, heard), params, deadline, heard)
        except Exception as error:
            for index in range(params.n):
                self._end(handle, Chunk("", "error", index=index, error=error))
        finally:
            with self._lock:
                self.open.discard(handle)

    def _answer(self, handle, index, words, params, deadline, heard) -> None:
        tokens, text = 0, ""
        reason: FinishReason = "stop"
        max_tokens = params.max_tokens or 256
        for word in words:
            while word == "" and handle not in self.cancelled and (deadline is None or time.monotonic() < deadline):
                time.sleep(0.002)
            if handle in self.cancelled or (deadline is not None and time.monotonic() >= deadline):
                reason = "cancelled" if handle in self.cancelled else "deadline"
                break
            if word == "!":
                raise RuntimeError("a secret of the server")
            time.sleep(self.delay)
            stops = [at for stop in params.stop if (at := (text + word).find(stop)) >= 0]
            new = (text + word)[: min(stops)][len(text) :] if stops else word
            text, tokens = text + new, tokens + 1
            logprobs = () if params.logprobs is None else (token_of(word, params.logprobs),)
            handle.put(Chunk(new, index=index, logprobs=logprobs, num_tokens=tokens))
            if stops:
                break
            if tokens >= max_tokens:
                reason = "length"
                break
        audio = sum(clip.tokens for clip in heard)
        usage = Usage(20 + audio, audio, tokens, cached_tokens=3)
        self._end(handle, Chunk("", reason, usage, heard, index))

    def _end(self, handle: RequestHandle, chunk: Chunk) -> None:
        assert chunk.finish_reason is not None
        self.ends.append(chunk.finish_reason)
        if chunk.usage is not None:
            self._stats.submitted += 1
            seconds = sum(clip.seconds for clip in chunk.heard)
            self._stats.finish(chunk.finish_reason, chunk.usage, seconds, chunk.index)
        handle.put(chunk)


def text_of(messages) -> str:
    content = messages[-1]["content"]
    parts = [{"text": content}] if isinstance(content, str) else content
    return "".join(part.get("text", "") for part in parts)


def words_of(messages, heard: tuple[Heard, ...]) -> Iterator[str]:
    text = text_of(messages)
    verb, _, rest = text.partition(" ")
    if verb == "hang":
        yield ""
    elif verb == "fault":
        yield "!"
    elif verb == "break":
        yield from ("two", " words", "!")
    elif verb == "loop":
        while True:
            yield " word"
    elif verb in ("say", "late"):
        if verb == "late":
            time.sleep(0.5)
        yield from re.findall(r"\s*\S+", rest)
    else:
        yield from re.findall(r"\s*\S+", "I heard " + " and ".join(f"{clip.seconds:g} s" for clip in heard))


def token_of(word: str, top: int) -> TokenLogprob:
    others = tuple(TokenLogprob(n, f" t{n}", f" t{n}".encode(), -1.0 - n) for n in range(top))
    return TokenLogprob(7, word, word.encode(), -0.25, others)
