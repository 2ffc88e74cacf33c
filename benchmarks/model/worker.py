"""Our side of the model benchmark in its own process, with what the peer cannot be asked.

Run as `python -m benchmarks.model.worker THREADS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qwen2_audio.audio.resample import SAMPLE_RATE
from qwen2_audio.bench.clips import clip

from ..harness.id_tokenizer import IdTokenizer
from ..harness.torch_worker import run_torch_worker
from ..harness.worker_loop import timed
from .ours import Ours
from .profile import profile
from .session import Measured, Session

if TYPE_CHECKING:
    from qwen2_audio.engine.engine import Engine


class OurSession(Session):
    """The orders that only our side knows, beside those of both."""

    def __init__(self) -> None:
        super().__init__(Ours)
        self._questions = 0  # about the clip of `second_question`, so far
        self._engine: Engine | None = None

    def second_question(self, seconds: float) -> Measured:
        """From the waveform to the first id of the answer to another question about a clip that was asked about before.

        What the first question left is kept as the short API keeps it.
        """
        from qwen2_audio.engine.engine import Engine, EngineSettings  # later than the library, whose import is timed

        if self._engine is None:
            tokenizer: Any = IdTokenizer()
            self._engine = Engine(self._ours.model, tokenizer, EngineSettings(kv_tokens=4096))
        waveform = clip(seconds)
        if self._questions == 0:
            self._ask(self._engine, waveform)
        with timed() as timer:
            token_ids = self._ask(self._engine, waveform)
        return {"value": timer.seconds, "check": token_ids}

    def profile(self, seconds: list[float], contexts: list[int], new_tokens: int) -> Measured:
        """Where our time goes."""
        waveforms = {length: clip(length) for length in seconds}
        prompts = {length: self._prompt(self._ours.log_mel(waveform)) for length, waveform in waveforms.items()}
        out = profile(self._ours, waveforms, prompts, contexts, new_tokens)
        return {"value": None, "check": [], "stages": out.stages, "points": out.points, "overhead": out.overhead}

    @property
    def _ours(self) -> Ours:
        assert isinstance(self._implementation, Ours)
        return self._implementation

    def _ask(self, engine: Engine, waveform: npt.NDArray[np.float32]) -> list[int]:
        """The first id of the answer to a question about the clip that was not asked before."""
        from qwen2_audio.engine.request import RequestHandle
        from qwen2_audio.inputs.prompt import Prompt
        from qwen2_audio.types import Heard, SamplingParams

        features = self._ours.log_mel(waveform)
        ids = self._prompt(features, question=self._questions)[0].tolist()
        heard = Heard(len(waveform) / SAMPLE_RATE, self._audio_tokens(features))
        prompt = Prompt(ids, [features.log_mel[0].numpy()], [int(features.mask.sum())], (heard,))
        handle = RequestHandle(1, engine.cancel)
        engine.submit(prompt, SamplingParams(temperature=0, max_tokens=1, logprobs=0), handle)
        while not engine.idle:
            engine.step()
        self._questions += 1
        return [token.token for token in handle.completions()[0].logprobs]


if __name__ == "__main__":
    run_torch_worker(lambda threads: OurSession())
