"""The training benchmark's peer in its own process: transformers with peft, features padded to 30 s.

Run as `python -m benchmarks.peers.transformers_training THREADS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qwen2_audio.bench.clips import clip

from ..harness.torch_worker import run_torch_worker
from ..train.session import ALPHA, LEARNING_RATE, RANK, Session

# The language model's Linears, as our trainer adapts them; a list of names would reach into the encoder too.
TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


class Transformers:
    """A training loop as their documentation writes it."""

    def __init__(self) -> None:
        import transformers

        transformers.logging.set_verbosity_error()
        self._library = transformers
        self._model: Any = None

    def load(self, folder: Path, method: str, optimiser: str) -> None:
        library: Any = self._library.Qwen2AudioForConditionalGeneration
        self._model = library.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        self._extractor = self._library.WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
        if method == "lora":
            import peft

            adapter = peft.LoraConfig(r=RANK, lora_alpha=int(ALPHA), target_modules=TARGETS, lora_dropout=0.0)
            self._model = peft.get_peft_model(self._model, adapter)
        self._model.train()
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        kind: Any = torch.optim.SGD if optimiser == "sgd" else torch.optim.AdamW
        self._optimiser = kind(self._parameters, lr=LEARNING_RATE)

    def prepare(self, rows: dict[str, torch.Tensor], seconds: list[float]) -> None:
        features = self._extractor(
            [clip(length) for length in seconds], sampling_rate=16_000, return_attention_mask=True,
            padding="max_length", return_tensors="pt",
        )  # fmt: skip
        clips = {"input_features": features.input_features, "feature_attention_mask": features.attention_mask}
        self._batch = rows | clips

    def step(self) -> float:
        loss = self._model(**self._batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return float(loss.detach())


if __name__ == "__main__":
    run_torch_worker(lambda threads: Session(Transformers()), gradients=True)
