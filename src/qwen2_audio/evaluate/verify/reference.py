"""What transformers says to the documented prompts, in a process of its own.

Run as `python -m qwen2_audio.evaluate.verify.reference FOLDER DEVICE DTYPE OUT`. The only module of the package that
imports transformers: the reference is an oracle for those who have it, and nothing depends on it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ...audio.io import load
from ...checkpoint.locate import nano_path
from ...inputs.processor import Qwen2AudioProcessor
from ...pretrained import Qwen2AudioForConditionalGeneration
from .subject import distance, full_precision
from .table import Check, NotHere, Row

PART = "reference"
NEW_TOKENS = 16
BOUNDS = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}
SECONDS = 1800.0
CLIP = "<|audio_bos|><|AUDIO|><|audio_eos|>"
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


@dataclass(frozen=True)
class Documented:
    """A prompt as the reference's documentation has it, with bundled clips in place of its own."""

    name: str
    text: str
    clips: tuple[str, ...]


PROMPTS = (
    Documented(
        "voice chat", f"{SYSTEM}<|im_start|>user\nAudio 1: {CLIP}\n<|im_end|>\n<|im_start|>assistant\n", ("capital",)
    ),
    Documented(
        "audio analysis",
        f"{SYSTEM}<|im_start|>user\nAudio 1: {CLIP}\nWhat's that sound?<|im_end|>\n<|im_start|>assistant\n"
        f"It is the sound of glass shattering.<|im_end|>\n<|im_start|>user\nAudio 2: {CLIP}\nWhat can you hear?"
        "<|im_end|>\n<|im_start|>assistant\n",
        ("glass", "dog"),
    ),
    Documented("caption", f"{CLIP}Generate the caption in English:", ("glass",)),
    Documented("transcription", f"{CLIP}Detect the language and recognize the speech: <|en|>", ("command",)),
)


def reference_rows(name: str, folder: Path, device: torch.device, dtype: torch.dtype) -> Iterator[Row]:
    """A row for the ids, features, logits and greedy tokens of each documented prompt, ours beside transformers'."""
    found: dict[str, dict[str, Any]] = {}
    expected: dict[str, dict[str, Any]] = {}
    failure: Exception | None = None
    try:
        if find_spec("transformers") is None:
            raise NotHere("transformers is not installed: pip install 'qwen2-audio[oracles]'")
        expected = _in_a_process(folder, device, dtype)
        with full_precision():
            found = _ours(folder, device, dtype)
    except Exception as error:
        failure = error

    def of(prompt: str) -> tuple[dict[str, Any], dict[str, Any]]:
        if failure is not None:
            raise failure
        return found[prompt], expected[prompt]

    for prompt in PROMPTS:

        def ids(prompt: str = prompt.name) -> float:
            one, other = of(prompt)
            same = one["ids"].shape == other["ids"].shape
            return float((one["ids"] != other["ids"]).sum()) if same else float("inf")

        def features(prompt: str = prompt.name) -> float:
            one, other = of(prompt)
            return float((one["features"].float() - other["features"].float()).abs().max())

        def logits(prompt: str = prompt.name) -> float:
            one, other = of(prompt)
            return distance([one["logits"]], [other["logits"]])

        def tokens(prompt: str = prompt.name) -> tuple[float, str]:
            one, other = of(prompt)
            wrong = sum(a != b for a, b in zip(one["tokens"], other["tokens"], strict=False))
            wrong += abs(len(one["tokens"]) - len(other["tokens"]))
            note = "" if not wrong else f"ours {one['tokens']}, transformers {other['tokens']}"
            return float(wrong), note

        yield Check(PART, f"{prompt.name}: ids", 0, "differ").row(name, ids)
        yield Check(PART, f"{prompt.name}: log-mels", 1e-4, "difference").row(name, features)
        yield Check(PART, f"{prompt.name}: logits", BOUNDS[dtype]).row(name, logits)
        # In 16 bits two nearly equal logits may change places, and every token after them with it.
        yield Check(PART, f"{prompt.name}: greedy tokens", 0 if dtype == torch.float32 else NEW_TOKENS, "differ").row(
            name, tokens
        )


def _clip(name: str) -> Any:
    return load(nano_path() / "clips" / f"{name}.wav")


@torch.no_grad()
def _says(model: Any, processor: Any, device: torch.device) -> dict[str, dict[str, Any]]:
    """What either side says: the same calls."""
    out = {}
    for prompt in PROMPTS:
        clips = [_clip(name) for name in prompt.clips]
        inputs = processor(text=prompt.text, audio=clips, sampling_rate=16_000, return_tensors="pt", padding=True)
        inputs = {key: value.to(device) for key, value in inputs.items()}
        logits = model(**inputs).logits[0].float().cpu()
        greedy = {"do_sample": False, "repetition_penalty": 1.0, "max_new_tokens": NEW_TOKENS}
        said = model.generate(**inputs, **greedy)[0, inputs["input_ids"].shape[1] :].tolist()
        given = {"ids": inputs["input_ids"].cpu(), "features": inputs["input_features"].cpu()}
        out[prompt.name] = {**given, "logits": logits, "tokens": said}
    return out


def _ours(folder: Path, device: torch.device, dtype: torch.dtype) -> dict[str, dict[str, Any]]:
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=dtype, device_map=device)
    return _says(model, Qwen2AudioProcessor.from_pretrained(folder), device)


def _in_a_process(folder: Path, device: torch.device, dtype: torch.dtype) -> dict[str, dict[str, Any]]:
    """transformers' side. Raises RuntimeError, with the end of what it said, where it fails."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "said.pt"
        names = (str(folder), str(device), str(dtype).removeprefix("torch."), str(out))
        done = subprocess.run(
            [sys.executable, "-m", __name__, *names], stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False
        )
        if done.returncode:
            raise RuntimeError(f"transformers failed: {' '.join(done.stderr.split())[-400:]}")
        said: dict[str, dict[str, Any]] = torch.load(out, weights_only=True)
        return said


def main(folder: str, device: str, dtype: str, out: str) -> None:
    """transformers on the documented prompts."""
    import transformers

    transformers.logging.set_verbosity_error()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype))
    with full_precision():
        torch.save(_says(model.eval().to(device), processor, torch.device(device)), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
