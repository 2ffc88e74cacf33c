"""A model that knows its windows by heart: a window's answer lists its codes, and notes are combined to all theirs.

A code is half a second of the constant value code / 100, from 0.10 to 0.99, in a sound that is 0.001 elsewhere.
"""

from __future__ import annotations

import re
import threading
import time

import numpy as np

from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.errors import BusyError
from qwen2_audio.longform.settings import TranscriptionSettings
from qwen2_audio.types import Chunk, Heard, Usage

RATE = 16_000


def sound_of(codes: dict[float, int], seconds: float) -> np.ndarray:
    """Codes by the second at which they begin."""
    samples = np.full(round(seconds * RATE), 1e-3, np.float32)
    for start, code in codes.items():
        samples[round(start * RATE) : round((start + 0.5) * RATE)] = code / 100
    return samples


def codes_of(text: str) -> set[int]:
    return {int(code) for code in re.findall(r"#(\d+)", text)}


def said(codes) -> str:
    return " ".join(f"#{code}" for code in sorted(codes)) or "Nothing."


class KnowingReader:
    """`delay(number)`: seconds that request `number` takes. `prompts` are positions asked for: prompt and answer."""

    is_base = False

    def __init__(self, *, context=8192, settings=None, delay=None, room=10_000, answer=None):
        self.context, self.transcription = context, settings or TranscriptionSettings()
        self.defaults = {"max_tokens": 64}
        self.delay, self.room, self.answer = delay, room, answer
        self.asked, self.prompts, self.open, self.most_open = [], [], 0, 0
        self.cancelled = []
        self._lock = threading.Lock()

    def count_tokens(self, text: str) -> int:
        return len(re.findall(r"\w+|[^\w\s]", text))

    def submit(self, messages, params=None, *, timeout=None, priority=0, raw=False):
        contents = [[{"text": m["content"]}] if isinstance(m["content"], str) else m["content"] for m in messages]
        parts = [part for content in contents for part in content]
        text = "".join(part.get("text", "") for part in parts)
        clips = [part["audio"][0] for part in parts if "audio" in part]
        tokens = [max(1, round(25 * len(clip) / RATE)) for clip in clips]
        positions = self.count_tokens(text) + sum(tokens) + 8 * len(clips) + 8 * len(messages)
        with self._lock:
            if self.open >= self.room:
                raise BusyError("full")
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            number = len(self.asked)
            self.asked.append((text, clips, params))
            self.prompts.append(positions + (params.max_tokens or self.defaults["max_tokens"]))
        handle = RequestHandle(params.n, self.cancelled.append)
        heard = tuple(Heard(len(clip) / RATE, count) for clip, count in zip(clips, tokens, strict=True))
        usage = Usage(positions, sum(tokens), 3)
        arguments = (handle, number, text, clips, params, heard, usage)
        work = threading.Thread(target=self._work, args=arguments, name="knowing", daemon=True)
        work.start() if self.delay else work.run()
        return handle

    def _work(self, handle, number, text, clips, params, heard, usage):
        if self.delay:
            end = time.monotonic() + self.delay(number)
            while time.monotonic() < end and handle not in self.cancelled:
                time.sleep(0.001)
        with self._lock:
            self.open -= 1
        for index in range(params.n):
            if handle in self.cancelled:
                handle.put(Chunk("", "cancelled", usage, heard, index))
                continue
            try:
                answer = self._answer(text, clips, params)
            except Exception as error:
                handle.put(Chunk("", "error", index=index, error=error))
                continue
            handle.put(Chunk(answer[:5], index=index))
            handle.put(Chunk(answer[5:], index=index))
            handle.put(Chunk("", "stop", usage, heard, index))

    def _answer(self, text, clips, params):
        if self.answer is not None:
            return self.answer(text, clips, params)
        if not clips:
            return said(codes_of(text))
        loud = [clip[np.abs(clip) > 0.05] for clip in clips]
        return said({int(code) for part in loud for code in np.unique(np.round(100 * part))})
