"""One side in its own process: orders come in as JSON lines, a measurement goes out for each.

    {"op": "encode", "seconds": 3}  ->  {"value": 0.41, "check": [0.1234, -0.5, ...]}

`check` is what the other side must have got as well: token ids, or a sample of the output's values.
Run as `python -m qwen2_audio.bench.worker ours|transformers THREADS`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from ..audio.mel import num_audio_tokens
from ..config import Qwen2AudioConfig
from .contestant import Contestant, Features
from .inputs import clip, prompt
from .machine import peak_memory

SETTLE_SECONDS = 0.02  # until the other process's threads have stopped spinning
CHECKED = 500  # values of an output that the two sides compare

Measured = dict[str, Any]


class Stamps:
    """A streamer that only looks at the clock: first the prompt, then each token."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


class Timer:
    seconds = 0.0


@contextmanager
def timed() -> Iterator[Timer]:
    """Seconds of the block; rubbish is collected and the machine settles before it."""
    gc.collect()
    time.sleep(SETTLE_SECONDS)
    timer = Timer()
    start = time.perf_counter()
    yield timer
    timer.seconds = time.perf_counter() - start


class Session:
    """The orders a worker knows: one method each."""

    def __init__(self, side: str) -> None:
        with timed() as timer:
            self._contestant = contestant(side)
        self._import_seconds = timer.seconds
        self._config = Qwen2AudioConfig()

    def library(self) -> Measured:
        """Importing the side's model classes, torch being there already."""
        return {"value": self._import_seconds, "check": []}

    def load(self, folder: str) -> Measured:
        with timed() as timer:
            self._contestant.load(Path(folder))
        self._config = Qwen2AudioConfig.from_pretrained(folder)
        gc.collect()
        gc.freeze()  # what is there stays: later collections need not walk through it
        return {"value": timer.seconds, "check": []}

    def memory(self) -> Measured:
        peak = peak_memory()
        return {"value": None if peak is None else peak / 2**30, "check": []}

    def log_mel(self, seconds: float) -> Measured:
        sound = clip(seconds)
        with timed() as timer:
            features = self._contestant.log_mel(sound)
        valid = features.log_mel[..., : int(features.mask.sum())]
        return {"value": timer.seconds, "check": sample(valid)}

    def encode(self, seconds: float) -> Measured:
        features = self._contestant.log_mel(clip(seconds))
        with timed() as timer:
            hidden = self._contestant.encode(features)
        valid = hidden.flatten(0, -2)[: self._audio_tokens(features)]
        return {"value": timer.seconds, "check": sample(valid)}

    def first_token(self, seconds: float) -> Measured:
        """From the waveform to the first id of the answer."""
        sound = clip(seconds)
        ids = self._prompt(self._contestant.log_mel(sound))
        with timed() as timer:
            features = self._contestant.log_mel(sound)
            answer = self._contestant.generate(ids, features, 1, Stamps())
        return {"value": timer.seconds, "check": answer[0, ids.shape[1] :].tolist()}

    def decode(self, seconds: float, new_tokens: int) -> Measured:
        """Tokens per second after the first one."""
        features = self._contestant.log_mel(clip(seconds))
        ids, stamps = self._prompt(features), Stamps()
        with timed():
            answer = self._contestant.generate(ids, features, new_tokens, stamps)
        tokens = stamps.times[1:]  # the first stamp is the prompt's
        rate = (len(tokens) - 1) / (tokens[-1] - tokens[0])
        return {"value": rate, "check": answer[0, ids.shape[1] :].tolist()}

    def profile(self, seconds: float, new_tokens: int) -> Measured:
        """Where our time goes; only this package's side can be asked."""
        from .ours import Ours
        from .profile import profile

        assert isinstance(self._contestant, Ours)
        features = self._contestant.log_mel(clip(seconds))
        stages = profile(self._contestant, clip(seconds), self._prompt(features), new_tokens)
        return {"value": None, "check": [], "stages": stages}

    def _audio_tokens(self, features: Features) -> int:
        return num_audio_tokens(int(features.mask.sum()))

    def _prompt(self, features: Features) -> torch.Tensor:
        vocab_size, audio_id = self._config.text_config.vocab_size, self._config.audio_token_index
        ids = prompt(self._audio_tokens(features), vocab_size=vocab_size, audio_id=audio_id)
        return torch.tensor([ids])


def sample(values: torch.Tensor) -> list[float]:
    """Some hundred values, evenly spread: enough to see whether two outputs are the same."""
    flat = values.flatten()
    step = max(1, flat.numel() // CHECKED) | 1  # odd, so that it does not stay in one column
    return flat[::step].tolist()


def contestant(side: str) -> Contestant:
    if side == "ours":
        from .ours import Ours

        return Ours()
    from .peer import Transformers

    return Transformers()


@torch.no_grad()
def serve(session: Session, orders: IO[str], replies: IO[str]) -> None:
    """Answer until the orders end. What goes wrong is told, not raised: the other end shows it."""
    for line in orders:
        order = json.loads(line)
        try:
            reply = getattr(session, order.pop("op"))(**order)
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main() -> None:
    side, threads = sys.argv[1], int(sys.argv[2])
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed must not get among the replies
    torch.set_num_threads(threads)
    serve(Session(side), sys.stdin, replies)


if __name__ == "__main__":
    main()
