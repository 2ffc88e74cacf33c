"""A model whose answers are a function of the window it is given, at once or from another thread."""

from __future__ import annotations

import threading
import time

from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.errors import BusyError
from qwen2_audio.types import Chunk, Heard, TokenLogprob, Usage


class ScriptedListener:
    """`answer(samples, params)` gives a text, or (text, finish_reason, log-prob of each token), or raises."""

    is_base = False

    def __init__(self, answer, *, room=1000, delay=0.0):
        self.answer, self.room, self.delay = answer, room, delay
        self.asked, self.cancelled, self.open, self.most_open = [], [], 0, 0
        self._lock = threading.Lock()

    def submit(self, messages, params=None, *, timeout=None, priority=0, raw=False, ending="answer"):
        (message,) = messages
        clip, text = message["content"]
        with self._lock:
            if self.open >= self.room:
                raise BusyError("full")
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            self.asked.append((clip["audio"][0], text["text"], params, raw))
        handle = RequestHandle(1, self.cancelled.append)
        work = threading.Thread(target=self._work, args=(handle, clip["audio"][0], params), daemon=True)
        work.start() if self.delay else work.run()
        return handle

    def _work(self, handle, samples, params):
        time.sleep(self.delay)
        with self._lock:
            self.open -= 1
        try:
            given = self.answer(samples, params)
        except Exception as error:
            handle.put(Chunk("", "error", error=error))
            return
        text, reason, logprob = given if isinstance(given, tuple) else (given, "stop", -0.05)
        pieces = [text[i : i + 3] for i in range(0, len(text), 3)]
        tokens = tuple(TokenLogprob(n, piece, piece.encode(), logprob) for n, piece in enumerate(pieces))
        handle.put(Chunk(text, logprobs=(*tokens, TokenLogprob(0, "", b"", logprob))))
        seconds = len(samples) / 16_000
        handle.put(Chunk("", reason, Usage(800, 750, len(pieces) + 1), (Heard(seconds, round(25 * seconds)),)))
