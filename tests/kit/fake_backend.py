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

import numpy as np

from qwen2_audio.api.decisions import Asked, PendingDecision, ask_all
from qwen2_audio.engine.metrics import Stats
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.errors import BusyError, ConfigError, ContextLengthError, ShutdownError, UnknownAdapterError
from qwen2_audio.inputs.clip import load_clip
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.longform.settings import TranscriptionSettings
from qwen2_audio.longform.word_times import WordSpan
from qwen2_audio.text.chat_template import check_messages
from qwen2_audio.types import Chunk, FinishReason, Heard, SamplingParams, TokenLogprob, Usage

VECTOR = np.full(4, 0.5, np.float32)


def ended(chunk: Chunk) -> RequestHandle:
    """A request of which all that comes is `chunk`."""
    handle = RequestHandle(1, lambda _: None)
    handle.put(chunk)
    return handle


def one_of(asked: Asked) -> TokenLogprob:
    """The likeliest token where a question is answered: the first letter."""
    ids = asked.requests[0][1].logprob_token_ids
    letters = tuple(TokenLogprob(token, chr(token), bytes([token]), -1.0 - place) for place, token in enumerate(ids))
    return TokenLogprob(ids[0], chr(ids[0]), bytes([ids[0]]), -1.0, asked=letters)


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
        self.loras: dict[str, Exception | None] = {}  # by name; with what is wrong with it
        self.adapted: list[str] = []
        self.seen: list[tuple[list, SamplingParams, float | None, int]] = []
        self.open: set[RequestHandle] = set()
        self.cancelled: set[RequestHandle] = set()
        self.ends: list[str] = []
        self.closed = False
        self._stats = Stats()
        self._lock = threading.Lock()

    def adapters(self) -> list[str]:
        return list(self.loras)

    def with_adapter(self, name: str) -> FakeBackend:
        if name not in self.loras:
            raise UnknownAdapterError(f"There is no adapter {name[:100]!r} here; expected one of {self.loras}.")
        if isinstance(error := self.loras[name], Exception):
            raise error
        self.adapted.append(name)
        return self

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def submit(self, messages, params=None, *, timeout=None, priority=0, raw=False, ending="answer") -> RequestHandle:
        params = params or SamplingParams()
        sources = check_messages(messages)
        with self._lock:
            if self.closed:
                raise ShutdownError("The fake takes no more.")
            if len(self.open) >= self.waiting:
                raise BusyError(f"{len(self.open)} requests wait already, as many as may; try again later.")
            handle = RequestHandle(params.n, self.cancelled.add)
            self.open.add(handle)
            self.seen.append((messages, params, timeout, priority))
        deadline = None if timeout is None else time.monotonic() + timeout
        threading.Thread(target=self._run, args=(handle, messages, sources, params, deadline), daemon=True).start()
        return handle

    def submit_embedding(self, source, params, *, timeout=None, priority=0, check_size=None) -> RequestHandle:
        clips = () if source.message is None else check_messages([source.message])
        heard = tuple(load_clip(clip, number).heard for number, clip in enumerate(clips, 1))
        return ended(Chunk("", "stop", Usage(20, sum(clip.tokens for clip in heard), 0), heard, embedding=VECTOR))

    def submit_decisions(self, messages, questions, *, timeout=None, priority=0) -> list[PendingDecision]:
        asked = ask_all(messages, questions, lambda text: list(text.encode()), {0})
        return [
            PendingDecision(one, [ended(Chunk("", "stop", Usage(20, 0, 1), logprobs=(one_of(one),)))]) for one in asked
        ]

    def prompt(self, messages, *, ending="answer") -> Prompt:
        heard = tuple(load_clip(source, number).heard for number, source in enumerate(check_messages(messages), 1))
        return Prompt([0] * (20 + sum(clip.tokens for clip in heard)), [], [], heard)

    def encode(self, text, *, add_special_tokens=False) -> list[int]:
        return list(text.encode())

    def decode(self, ids) -> str:
        return bytes(ids).decode()

    def token_texts(self, ids) -> list[str]:
        return [chr(token) for token in ids]

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
