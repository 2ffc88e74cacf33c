"""One side of `bench model --device` in its own process: our engine, or the peer's `generate`.

Run as `python -m benchmarks.model.device_worker ours|transformers THREADS`.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch

from qwen2_audio.audio.mel import num_audio_tokens, num_frames
from qwen2_audio.audio.resample import SAMPLE_RATE
from qwen2_audio.bench.clips import clip_variant
from qwen2_audio.bench.machine import peak_memory
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.engine.engine import Engine, EngineSettings
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.inputs.log_mel_torch import LogMels
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.types import Heard, SamplingParams

from ..engine.scripts import ids_of, text_prompt
from ..engine.timed_engine import IdSpelling
from ..harness.random_checkpoint import Shape
from ..harness.worker_loop import Timer, serve, settle, stdout_for_replies

CHUNK = 1024  # positions a step, where prefill is only the way to decoding
WARM = 2  # steps before the clock starts: the first ones of a shape are captured

Measured = dict[str, Any]


class Session:
    """The orders our side knows: one method each."""

    def load(self, shape: Measured, device: str, dtype: str, kv_tokens: int, sequences: int) -> Measured:
        """Make the model and the engine. Returns bytes that each decoded token needs: `weights` once a step, `position`
        for every position behind it; and those of the whole `cache`."""
        from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration

        self._config = Qwen2AudioConfig.from_dict(Shape(**shape).to_config())
        self._device = torch.device(device)
        self._model = random_model(
            lambda: Qwen2AudioForConditionalGeneration(self._config), self._device, getattr(torch, dtype)
        )
        self._model.generation_config.eos_token_id = None  # random weights would say when to stop
        self._log_mels = LogMels(self._device)
        settings = EngineSettings(
            kv_tokens, max_num_batched_tokens=CHUNK, max_num_seqs=sequences, enable_prefix_caching=False
        )
        self._engine = Engine(self._model, cast(Tokenizer, IdSpelling()), settings)
        text = self._model.language_model
        embedding = text.model.embed_tokens.weight  # only looked up in
        read = [one for one in text.parameters() if one is not embedding or text.lm_head.weight is embedding]
        storage = self._engine._runner.storage
        cache = storage.nbytes
        return {
            "weights": sum(one.nbytes for one in read),
            "position": cache / (storage.blocks * storage.block),
            "cache": cache,
            "device": device_name(self._device),
        }

    def bandwidth(self, nbytes: int, repeats: int) -> Measured:
        """Bytes a second, read and written, of copies on the device."""
        source = torch.zeros(nbytes, dtype=torch.uint8, device=self._device)
        target = torch.empty_like(source)
        found = []
        for turn in range(repeats + 1):
            with clocked(self._device) as timer:
                for _ in range(8):
                    target.copy_(source)
            found += [16 * nbytes / timer.seconds] if turn else []
        return {"value": found}

    def decode(self, running: int, context: int, steps: int, variant: int) -> Measured:
        """Tokens a second with so many sequences of `context` positions running: whole steps of the engine."""
        engine, stats = self._engine, self._engine.stats
        handles = [RequestHandle(1, engine.cancel) for _ in range(running)]
        for number, handle in enumerate(handles):
            prompt = text_prompt(self._config, context, 1000 * variant + number)
            engine.submit(prompt, _greedy(2 * steps + WARM + running), handle)  # some begin while others are read
        prefilled = -1
        while stats.running < running or stats.prefill_tokens > prefilled:
            prefilled = stats.prefill_tokens
            engine.step()
            if any(handle.done for handle in handles):  # it must have failed, and says why
                next(handle for handle in handles if handle.done).completions()
        for _ in range(WARM):
            engine.step()
        before = stats.decode_tokens
        with clocked(self._device) as timer:
            for _ in range(steps):
                engine.step()
        assert stats.decode_tokens - before == running * steps
        for handle in handles:
            handle.cancel()
        return {"value": running * steps / timer.seconds}

    def first_token(self, seconds: float, variant: int) -> Measured:
        """From the waveform to the first id of the answer, on an idle engine that knows nothing of the clip."""
        sound, engine = clip_variant(seconds, variant), self._engine
        with clocked(self._device) as timer:
            frames = num_frames(len(sound))
            heard = Heard(len(sound) / SAMPLE_RATE, num_audio_tokens(frames))
            mels = self._log_mels([sound], self._config.audio_config.num_mel_bins)
            prompt = Prompt(ids_of(self._config, heard.tokens), mels, [frames], (heard,))
            handle = RequestHandle(1, engine.cancel)
            engine.submit(prompt, _greedy(1), handle)
            while not engine.idle:
                engine.step()
        handle.completions()
        return {"value": timer.seconds}

    def memory(self) -> Measured:
        return {"value": peak_gb(self._device)}


def random_model(make: Callable[[], Any], device: torch.device, dtype: torch.dtype) -> Any:
    """A model whose weights are drawn where they stay, in the dtype they keep, in eval mode."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            made = make().eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    gc.collect()
    gc.freeze()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    return made


@contextmanager
def clocked(device: torch.device) -> Iterator[Timer]:
    """Seconds of the block, after `settle`, until the device is done with it."""
    settle()
    timer = Timer()
    _wait(device)
    start = time.perf_counter()
    yield timer
    _wait(device)
    timer.seconds = time.perf_counter() - start


def peak_gb(device: torch.device) -> float | None:
    """GB that tensors took at most on a GPU, or the process on a CPU; None where the system does not say."""
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
    return None if peak is None else peak / 1e9


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _greedy(new_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=new_tokens)


@torch.no_grad()
def main() -> None:
    side, threads = sys.argv[1], int(sys.argv[2])
    replies = stdout_for_replies()
    torch.set_num_threads(threads)
    if side == "ours":
        serve(Session(), sys.stdin, replies)
        return
    from ..peers.transformers_device import PeerSession

    serve(PeerSession(), sys.stdin, replies)


if __name__ == "__main__":
    main()
