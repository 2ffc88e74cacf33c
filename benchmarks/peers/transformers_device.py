"""The peer of the model benchmark on a device, in its own process: transformers' `generate`, with random weights.

Run as `python -m benchmarks.peers.transformers_device THREADS`.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers

from qwen2_audio.audio.mel import num_audio_tokens, num_frames
from qwen2_audio.bench.clips import clip_variant
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.evaluate.random_checkpoint import Shape

from ..harness.devices import device_name, device_peak_gb, device_timed, random_model
from ..harness.engine_prompts import random_text_prompt
from ..harness.prompt_ids import question_ids_for
from ..harness.torch_worker import run_torch_worker

Measured = dict[str, Any]


class PeerSession:
    """The orders it knows: those of `model.device_worker`, without the bandwidth."""

    def load(self, shape: Measured, device: str, dtype: str, kv_tokens: int, sequences: int) -> Measured:
        transformers.logging.set_verbosity_error()
        data = Shape(**shape).to_config()
        self._config = Qwen2AudioConfig.from_dict(data)
        config = transformers.Qwen2AudioConfig.from_dict(data)
        self._device = torch.device(device)
        self._model: Any = random_model(
            lambda: transformers.Qwen2AudioForConditionalGeneration(config), self._device, getattr(torch, dtype)
        )
        self._model.generation_config.eos_token_id = None
        self._model.generation_config.pad_token_id = 0
        bins = self._config.audio_config.num_mel_bins
        self._extractor = transformers.WhisperFeatureExtractor(feature_size=bins)
        return {"device": device_name(self._device)}

    def decode(self, running: int, context: int, steps: int, variant: int) -> Measured:
        """Tokens a second: `steps` more of them take so much longer than the first one."""
        prompts = [random_text_prompt(self._config, context, 1000 * variant + number).ids for number in range(running)]
        ids = torch.tensor(prompts, device=self._device)
        seconds = []
        for new_tokens in (1, steps + 1):
            with device_timed(self._device) as timer:
                self._generate(new_tokens, input_ids=ids)
            seconds.append(timer.seconds)
        return {"value": running * steps / (seconds[1] - seconds[0])}

    def first_token(self, seconds: float, variant: int) -> Measured:
        """From the waveform to the first id of the answer."""
        waveform = clip_variant(seconds, variant)
        num_tokens = num_audio_tokens(num_frames(len(waveform)))
        ids = torch.tensor([question_ids_for(self._config, num_tokens)], device=self._device)
        with device_timed(self._device) as timer:
            features = self._extractor(
                waveform, sampling_rate=16_000, return_attention_mask=True, padding="max_length", return_tensors="pt"
            )
            clips = {
                "input_features": features.input_features.to(self._device, self._model.dtype),
                "feature_attention_mask": features.attention_mask.to(self._device),
            }
            self._generate(1, input_ids=ids, **clips)
        return {"value": timer.seconds}

    def memory(self) -> Measured:
        """GB that tensors took at most on a GPU, or the process on a CPU."""
        return {"value": device_peak_gb(self._device)}

    def _generate(self, new_tokens: int, **inputs: torch.Tensor) -> None:
        self._model.generate(
            **inputs,
            attention_mask=torch.ones_like(inputs["input_ids"]),
            do_sample=False,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
        )


if __name__ == "__main__":
    run_torch_worker(lambda threads: PeerSession())
