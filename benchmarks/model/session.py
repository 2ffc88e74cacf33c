"""One side in its own process: a measurement for each order.

`check` in a reply is what the other side must have got as well: token ids, or a sample of the output's values.
Run as `python -m benchmarks.model.session ours|transformers THREADS`.
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qwen2_audio.audio.mel import num_audio_tokens
from qwen2_audio.bench.clips import clip
from qwen2_audio.bench.machine import peak_memory
from qwen2_audio.checkpoint.config import Qwen2AudioConfig

from ..harness.prompts import prompt, text
from ..harness.worker_loop import serve, stdout_for_replies, timed
from .implementation import Contestant, Features

if TYPE_CHECKING:
    from qwen2_audio.engine.engine import Engine

    from .ours import Ours

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


class Session:
    """The orders a worker knows: one method each."""

    def __init__(self, side: str) -> None:
        with timed() as timer:
            self._contestant = contestant(side)
        self._import_seconds = timer.seconds
        self._config = Qwen2AudioConfig()
        self._asked = 0  # questions about the clip of `second_question`
        self._engine: Engine | None = None

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
        """GB that the process held at most; pages of mapped files count."""
        peak = peak_memory()
        return {"value": None if peak is None else peak / 1e9, "check": []}

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

    def second_question(self, seconds: float) -> Measured:
        """From the waveform to the first id of the answer to another question about a clip that was asked about before.

        What the first question left is kept as the short API keeps it. Only this package's side can be asked.
        """
        from qwen2_audio.engine.engine import Engine, EngineSettings
        from qwen2_audio.engine.request import RequestHandle
        from qwen2_audio.inputs.prompt import Prompt
        from qwen2_audio.types import Heard, SamplingParams

        from ..engine.timed_engine import IdSpelling

        ours, sound = self._ours, clip(seconds)
        if self._engine is None:
            spelling: Any = IdSpelling()
            self._engine = Engine(ours.model, spelling, EngineSettings(kv_tokens=4096))
        engine = self._engine

        def ask() -> list[int]:
            features = ours.log_mel(sound)
            ids = self._prompt(features, question=self._asked)[0].tolist()
            heard = Heard(seconds, self._audio_tokens(features))
            asked = Prompt(ids, [features.log_mel[0].numpy()], [int(features.mask.sum())], (heard,))
            handle = RequestHandle(1, engine.cancel)
            engine.submit(asked, SamplingParams(temperature=0, max_tokens=1, logprobs=0), handle)
            while not engine.idle:
                engine.step()
            self._asked += 1
            return [token.token for token in handle.completions()[0].logprobs]

        if not self._asked:
            ask()
        with timed() as timer:
            new = ask()
        return {"value": timer.seconds, "check": new}

    def decode(self, context: int, new_tokens: int) -> Measured:
        """Tokens per second after the first one, with `context` positions before it."""
        vocab_size, audio_id = self._config.text_config.vocab_size, self._config.audio_token_index
        ids, stamps = torch.tensor([text(context, vocab_size=vocab_size, audio_id=audio_id)]), Stamps()
        with timed():
            answer = self._contestant.go_on(ids, new_tokens, stamps)
        tokens = stamps.times[1:]  # the first stamp is the prompt's
        rate = (len(tokens) - 1) / (tokens[-1] - tokens[0])
        return {"value": rate, "check": answer[0, ids.shape[1] :].tolist()}

    def profile(self, seconds: list[float], contexts: list[int], new_tokens: int) -> Measured:
        """Where our time goes; only this package's side can be asked."""
        from .profile import profile

        sounds = {length: clip(length) for length in seconds}
        prompts = {length: self._prompt(self._ours.log_mel(sound)) for length, sound in sounds.items()}
        found = profile(self._ours, sounds, prompts, contexts, new_tokens)
        return {"value": None, "check": [], "stages": found.stages, "points": found.points, "overhead": found.overhead}

    @property
    def _ours(self) -> Ours:
        from .ours import Ours

        assert isinstance(self._contestant, Ours)
        return self._contestant

    def _audio_tokens(self, features: Features) -> int:
        return num_audio_tokens(int(features.mask.sum()))

    def _prompt(self, features: Features, question: int = 0) -> torch.Tensor:
        vocab_size, audio_id = self._config.text_config.vocab_size, self._config.audio_token_index
        ids = prompt(self._audio_tokens(features), vocab_size=vocab_size, audio_id=audio_id, question=question)
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
    from ..peers.transformers_model import Transformers

    return Transformers()


@torch.no_grad()
def main() -> None:
    side, threads = sys.argv[1], int(sys.argv[2])
    replies = stdout_for_replies()
    torch.set_num_threads(threads)
    serve(Session(side), sys.stdin, replies)


if __name__ == "__main__":
    main()
