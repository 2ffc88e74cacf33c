"""The engine benchmark's peer in its own process: transformers, all requests as one padded batch.

Run as `python -m benchmarks.peers.transformers_batch THREADS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import transformers

from qwen2_audio.audio.mel import num_audio_tokens, num_frames
from qwen2_audio.bench.clips import clip_variant
from qwen2_audio.bench.machine import peak_gb
from qwen2_audio.checkpoint.config import Qwen2AudioConfig

from ..harness.prompt_ids import question_ids_for
from ..harness.torch_worker import run_torch_worker
from ..harness.worker_loop import timed

Measured = dict[str, Any]


class PeerSession:
    """The orders it knows, as in `engine.worker`."""

    def load(self, folder: str, device: str, dtype: str) -> Measured:
        transformers.logging.set_verbosity_error()
        with timed() as timer:
            model = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(
                folder, dtype=getattr(torch, dtype), local_files_only=True
            )
            self._model: Any = model.eval().to(device)
            self._model.generation_config.eos_token_id = None
            self._extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
            self._config = Qwen2AudioConfig.from_pretrained(folder)
        return {"value": timer.seconds}

    def memory(self) -> Measured:
        """GB that the process held at most."""
        return {"value": peak_gb()}

    def together(self, seconds: list[float], variant: int, new_tokens: int) -> Measured:
        """Clips of `seconds`, all asked about at once: from the waveforms to the last token of the last answer."""
        waveforms = [clip_variant(length, variant) for length in seconds]
        with timed() as timer:
            answers = self._answer(waveforms, new_tokens)
        return {"value": timer.seconds, "check": answers}

    def _answer(self, waveforms: Sequence[np.ndarray], new_tokens: int) -> list[list[int]]:
        """Greedy, exactly `new_tokens` to each. Prompts padded on the left to the longest, clips to 30 s, as the
        library's documentation says."""
        rows = [question_ids_for(self._config, num_audio_tokens(num_frames(len(clip)))) for clip in waveforms]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        features = self._extractor(
            list(waveforms),
            sampling_rate=16_000,
            return_attention_mask=True,
            padding="max_length",
            return_tensors="pt",
        )
        device, dtype = self._model.device, self._model.dtype
        out = self._model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            input_features=features.input_features.to(device, dtype),
            feature_attention_mask=features.attention_mask.to(device),
            do_sample=False,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
        )
        answers: list[list[int]] = out[:, width:].tolist()
        return answers


if __name__ == "__main__":
    run_torch_worker(lambda threads: PeerSession())
