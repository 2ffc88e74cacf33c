"""Our side of the model benchmark on a device, in its own process: the engine.

Run as `python -m benchmarks.model.device_worker THREADS`.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from qwen2_audio.audio.mel import num_audio_tokens, num_frames
from qwen2_audio.audio.resample import SAMPLE_RATE
from qwen2_audio.bench.clips import clip_variant
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.engine.engine import Engine, EngineSettings
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.evaluate.random_checkpoint import Shape
from qwen2_audio.inputs.log_mel_torch import LogMels
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.types import Heard, SamplingParams

from ..harness.devices import device_name, device_peak_gb, device_timed, random_model
from ..harness.engine_prompts import random_text_prompt
from ..harness.id_tokenizer import IdTokenizer
from ..harness.prompt_ids import question_ids_for
from ..harness.torch_worker import run_torch_worker

CHUNK = 1024  # positions a step, where prefill is not measured and only precedes decoding
WARM_UP_STEPS = 2  # before the clock starts: the first ones of a shape are captured

Measured = dict[str, Any]


class Session:
    """The orders our side knows: one method each."""

    def load(self, shape: Measured, device: str, dtype: str, kv_tokens: int, sequences: int) -> Measured:
        """Make the model and the engine.

        Returns bytes that decoding reads: `weights` once a step, `position` for each position behind each token; and
        those of the whole `cache`.
        """
        from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration

        self._config = Qwen2AudioConfig.from_dict(Shape(**shape).to_config())
        self._device = torch.device(device)
        self._model = random_model(
            lambda: Qwen2AudioForConditionalGeneration(self._config), self._device, getattr(torch, dtype)
        )
        self._model.generation_config.eos_token_id = None  # random weights would end answers anywhere
        self._log_mels = LogMels(self._device)
        settings = EngineSettings(
            kv_tokens, max_num_batched_tokens=CHUNK, max_num_seqs=sequences, enable_prefix_caching=False
        )
        self._engine = Engine(self._model, cast(Tokenizer, IdTokenizer()), settings)
        text = self._model.language_model
        embedding = text.model.embed_tokens.weight  # only looked up in, unless it is the head as well
        tied = text.lm_head.weight is embedding
        cache = self._engine._runner.storage
        return {
            "weights": sum(weight.nbytes for weight in text.parameters() if weight is not embedding or tied),
            "position": cache.nbytes / (cache.blocks * cache.block),
            "cache": cache.nbytes,
            "device": device_name(self._device),
        }

    def bandwidth(self, nbytes: int, repeats: int) -> Measured:
        """Bytes a second, read and written, of copies on the device; a value a repeat."""
        source = torch.zeros(nbytes, dtype=torch.uint8, device=self._device)
        target = torch.empty_like(source)
        rates = []
        for turn in range(repeats + 1):  # the first one warms up
            with device_timed(self._device) as timer:
                for _ in range(8):
                    target.copy_(source)
            rates += [16 * nbytes / timer.seconds] if turn else []
        return {"value": rates}

    def decode(self, running: int, context: int, steps: int, variant: int) -> Measured:
        """Tokens a second with so many sequences of `context` positions running: whole steps of the engine."""
        engine, stats = self._engine, self._engine.stats
        handles = [RequestHandle(1, engine.cancel) for _ in range(running)]
        max_tokens = 2 * steps + WARM_UP_STEPS + running  # some sequences begin while others are in prefill
        for number, handle in enumerate(handles):
            prompt = random_text_prompt(self._config, context, 1000 * variant + number)
            engine.submit(prompt, _greedy(max_tokens), handle)
        prefilled = -1
        while stats.running < running or stats.prefill_tokens > prefilled:
            prefilled = stats.prefill_tokens
            engine.step()
            if any(handle.done for handle in handles):  # only a failure ends it so early; this raises its error
                next(handle for handle in handles if handle.done).completions()
        for _ in range(WARM_UP_STEPS):
            engine.step()
        decoded_before = stats.decode_tokens
        with device_timed(self._device) as timer:
            for _ in range(steps):
                engine.step()
        assert stats.decode_tokens - decoded_before == running * steps
        for handle in handles:
            handle.cancel()
        return {"value": running * steps / timer.seconds}

    def first_token(self, seconds: float, variant: int) -> Measured:
        """From the waveform to the first id of the answer, on an idle engine that has nothing of the clip cached."""
        waveform, engine = clip_variant(seconds, variant), self._engine
        with device_timed(self._device) as timer:
            frames = num_frames(len(waveform))
            heard = Heard(len(waveform) / SAMPLE_RATE, num_audio_tokens(frames))
            mels = self._log_mels([waveform], self._config.audio_config.num_mel_bins)
            prompt = Prompt(question_ids_for(self._config, heard.tokens), mels, [frames], (heard,))
            handle = RequestHandle(1, engine.cancel)
            engine.submit(prompt, _greedy(1), handle)
            while not engine.idle:
                engine.step()
        handle.completions()
        return {"value": timer.seconds}

    def memory(self) -> Measured:
        """GB that tensors took at most on a GPU, or the process on a CPU."""
        return {"value": device_peak_gb(self._device)}


def _greedy(new_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=new_tokens)


if __name__ == "__main__":
    run_torch_worker(lambda threads: Session())
