"""The readable path against published numbers, and what differs from it by little: attention kinds, batches, caches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ...audio.mel import log_mel
from ...audio.resample import SAMPLE_RATE
from ...checkpoint.config import Qwen2AudioConfig
from ...engine.executor.cuda_graphs import Capture, GraphRunner
from ...engine.executor.forward_batch import ForwardBatch
from ...inputs.collate import stack_clips
from ...inputs.log_mel_torch import LogMels
from ...model.attention import check_implementation
from ...model.paged import PagedStorage
from ...pretrained import Qwen2AudioForConditionalGeneration
from . import goldens
from .subject import Model, Subject, Truth, distance, logits_by_pieces, logits_in_a_batch, logits_of
from .table import Check, NotHere, Row

PART = "machine"


def golden_row(device: torch.device) -> Row:
    """The readable path itself, on a small model of sines whose values transformers computed."""
    return Check(PART, "readable path: published numbers", 5e-6, "difference").row("sines", lambda: _goldens(device))


@torch.no_grad()
def _goldens(device: torch.device) -> tuple[float, str]:
    config = Qwen2AudioConfig.from_dict(
        {
            "audio_config": goldens.SMALL_AUDIO,
            "text_config": goldens.SMALL_TEXT,
            "audio_token_index": goldens.SMALL_AUDIO_ID,
        }
    )
    config._attn_implementation = "eager"
    model = Qwen2AudioForConditionalGeneration(config).eval()
    for index, (name, parameter) in enumerate(sorted(model.named_parameters())):
        values = goldens.small_weight(index, name, parameter.numel())
        parameter.copy_(torch.from_numpy(values).view_as(parameter))
    model.to(device)
    ids = torch.tensor(goldens.SMALL_IDS, device=device)
    inputs = {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "input_features": torch.from_numpy(goldens.small_features()).to(device),
        "feature_attention_mask": (torch.arange(60) < torch.tensor(goldens.SMALL_FRAMES)[:, None]).int().to(device),
    }
    projected, counts = model.encode_audio(inputs["input_features"], inputs["feature_attention_mask"])
    found = [projected[0, :4], projected[sum(counts) - 1, :4], *model(**inputs).logits[:, -1, :6]]
    expected = torch.tensor([*(v for row in (*goldens.SMALL_PROJECTED, *goldens.SMALL_LOGITS) for v in row)])
    said = model.generate(**inputs, max_new_tokens=6, do_sample=False)[:, ids.shape[1] :].tolist()
    wrong = sum(one != other for one, other in zip(said, goldens.SMALL_GREEDY, strict=True))
    largest = float((torch.cat(found).cpu() - expected).abs().max())
    return largest + wrong, "the answers are others" if wrong else ""


def log_mel_row(device: torch.device) -> Row:
    """The log-mels that torch computes on `device` against numpy's."""

    def measure() -> float:
        time = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
        drawn = np.random.default_rng(7).standard_normal(SAMPLE_RATE // 2 + 77) * 0.1
        clips = [goldens.sine(), np.sin(2000 * time**2).astype(np.float32) * 0.3, drawn.astype(np.float32)]
        pairs = zip(LogMels(device)(clips), map(log_mel, clips), strict=True)
        return max(float(np.abs(one - other).max()) for one, other in pairs)

    return Check(PART, f"log-mel in torch on {device.type}", 1e-5, "difference").row("3 clips", measure)


def readable_rows(subject: Subject, model: Model, truth: Truth) -> Iterator[Row]:
    """Rows of a readable `model` on its device. It is changed, and changed back."""
    prompts, device = subject.prompts, model.device
    if device.type != "cpu":
        name = f"float32 on {device.type} against the CPU"
        yield Check(PART, name, 1e-4).row(subject.name, lambda: distance(logits_of(model, prompts), truth.logits))

    def with_attention(implementation: str) -> float:
        model.set_attn_implementation(implementation)
        try:
            return distance(logits_of(model, prompts), truth.logits)
        finally:
            model.set_attn_implementation("eager")

    def batch() -> float:
        model.set_attn_implementation("sdpa")
        try:
            return distance(logits_in_a_batch(model, prompts), truth.logits)
        finally:
            model.set_attn_implementation("eager")

    yield Check(PART, "attention: sdpa", 1e-4).row(subject.name, lambda: with_attention("sdpa"))
    yield Check(PART, "attention: a batch with padding", 1e-4).row(subject.name, batch)
    yield Check(PART, "encoder: without the padded window", 1e-4).row(subject.name, lambda: _encoder(subject, model))
    yield Check(PART, "KV cache: in pieces", 1e-4).row(
        subject.name, lambda: distance([logits_by_pieces(model, prompt) for prompt in prompts], truth.logits)
    )
    name = "CUDA graphs" if device.type == "cuda" else "decode step of fixed shape, as CUDA graphs replay it"
    yield Check(PART, name, 1e-4).row(subject.name, lambda: _fixed_shape(model))


def half_precision_rows(subject: Subject, model: Model, truth: Truth) -> Iterator[Row]:
    """Rows of dtypes and kernels that exist on a GPU only. `model` is converted and of no use afterwards."""
    for name, bound, attention in (
        ("float16", 1e-2, "sdpa"), ("bfloat16", 6e-2, "sdpa"), ("bfloat16, flash attention", 6e-2, "flash_attention_2"),
    ):  # fmt: skip

        def measure(name: str = name, attention: str = attention) -> float:
            if not _on_a_gpu(model):
                raise NotHere("on a GPU only")
            if attention != "sdpa":
                try:
                    check_implementation(attention)
                except ValueError as error:
                    raise NotHere(str(error)) from None
            model.to(getattr(torch, name.partition(",")[0]))
            model.set_attn_implementation(attention)
            return distance(logits_of(model, subject.prompts), truth.logits)

        yield Check(PART, name, bound).row(subject.name, measure)


def _on_a_gpu(model: Model) -> bool:
    return model.device.type == "cuda"


@torch.no_grad()
def _encoder(subject: Subject, model: Model) -> float:
    """Valid frames only, two clips in one pass, against each clip in its padded window, as in the reference."""
    clips = [(clip, n) for prompt in subject.prompts for clip, n in zip(prompt.clips, prompt.frames, strict=True)][:2]
    stacked = stack_clips([clip for clip, _ in clips], [frames for _, frames in clips])
    together, counts = model.encode_audio(
        stacked["input_features"].to(model.device), stacked["feature_attention_mask"].to(model.device)
    )
    alone, window = [], model.audio_tower.window
    for (clip, frames), count in zip(clips, counts, strict=True):
        padded = torch.full((1, clip.shape[0], window), float(clip.min()))  # silence: 80 dB below the loudest
        padded[0, :, : clip.shape[1]] = torch.from_numpy(clip)
        valid = (torch.arange(window // 2) < (frames - 1) // 2 + 1)[None]
        out = model.audio_tower(padded.to(model.device), valid.to(model.device)).last_hidden_state
        alone.append(model.multi_modal_projector(out[0, :count]))
    return distance([together.cpu()], [torch.cat(alone).cpu()])


@torch.no_grad()
def _fixed_shape(model: Model) -> float:
    """A decode step of five sequences through GraphRunner against the packed pass, over the same cache."""
    text, device = model.config.text_config, model.device
    pasts = [5, 31, 32, 100, 63]  # within a block, at its last place, at the first of the next
    new_storage = lambda: PagedStorage(text, 24, dtype=model.dtype, device=device)  # noqa: E731
    first, second = new_storage(), new_storage()
    blocks = iter([(7 * i + 3) % 24 for i in range(24)])
    tables = [[next(blocks) for _ in range(past // first.block + 1)] for past in pasts]
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, text.vocab_size // 2, (1, sum(pasts)), generator=generator).to(device)
    for storage in (first, second):
        ForwardBatch(tables, [0] * len(pasts), pasts, [1] * len(pasts)).run(model, storage, ids=ids)
    tokens, ones = [11, 12, 13, 14, 15], [1] * len(pasts)
    step = ForwardBatch(tables, pasts, ones, ones)
    runner = GraphRunner(model, first, Capture(device)) if device.type == "cuda" else GraphRunner(model, first)
    found = runner.run(step, tokens)
    if found is None:
        raise NotHere(runner.disabled_because or "no step of fixed shape")
    expected = step.run(model, second, ids=torch.tensor([tokens], device=device)).float().cpu()
    return distance([found.logits.cpu()], [expected])
