"""`python -m benchmarks accuracy`: what each quantised format of a checkpoint loses against fp32.

For every format, with fp32's own greedy answers to a set of prompts:

    error      relative L2 of the weights, by part of the model
    kl         KL divergence of the next token's distribution from fp32's, mean over the answers' positions, in nats
    same       share of those positions whose likeliest token is fp32's
    answers    share of greedy answers that are fp32's, token by token
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F

from qwen2_audio.api.placement import sizes_of
from qwen2_audio.audio import mel
from qwen2_audio.audio.mel import num_audio_tokens
from qwen2_audio.bench import clips, machine
from qwen2_audio.bench.report import Report, Row
from qwen2_audio.checkpoint.config import CONFIG_FILE, Qwen2AudioConfig
from qwen2_audio.checkpoint.locate import nano_path
from qwen2_audio.checkpoint.memory import require_memory
from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate.random_checkpoint import Shape, ensure, num_parameters
from qwen2_audio.inputs.collate import to_tensors
from qwen2_audio.inputs.messages import user
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.inputs.prompt import build_prompt
from qwen2_audio.native.install import accelerate
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.quantize.convert import Job, convert
from qwen2_audio.quantize.scheme import SCHEMES

from .harness.prompt_ids import question_ids_for

KV_CACHES = ("float16", "int8")
QUESTIONS = ("What is that sound?", "What do you hear?", "Which sound is this?", "Is this a dog?")
SECONDS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)  # of the synthetic clips, where there is no tokenizer
Progress = Callable[[str], None]
Prompt = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Options:
    """What to compare."""

    model: Path | None = None  # a plain checkpoint's folder, or
    shape: Shape | None = None  # a random one of this shape; None for both: the bundled nano
    new_tokens: int = 16  # of each answer, at most
    threads: int | None = None  # None: one a physical core

    def __post_init__(self) -> None:
        if self.model is not None and not (self.model / CONFIG_FILE).is_file():
            raise ConfigError(f"{self.model} has no {CONFIG_FILE}; expected the folder of a Qwen2-Audio checkpoint.")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; expected at least 1.")


@dataclass(frozen=True)
class Answer:
    """A prompt, what fp32 answers, and how likely it found every token."""

    prompt: Prompt
    ids: torch.Tensor  # int64 [1, n]: the answer
    log_probs: torch.Tensor  # fp32 [n, V], before each of its tokens


def run(options: Options, progress: Progress = lambda line: None) -> Report:
    """Compare. Raises ConfigError for a quantised checkpoint, CapacityError where two models do not fit."""
    folder = ensure(options.shape, progress=progress) if options.shape else options.model or nano_path()
    label = options.shape.label if options.shape else folder.name
    config = Qwen2AudioConfig.from_pretrained(folder)
    require_memory(2 * sizes_of(config).parameters * 4, "The model in fp32 and a quantised one")
    threads = options.threads or machine.physical_cores()
    torch.set_num_threads(threads)
    progress("fp32")
    exact = Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype="float32")
    answers = [answer(exact, prompt, options.new_tokens) for prompt in prompts(folder, config)]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="qwen2-audio-") as folder_of_copies:
        for scheme in SCHEMES:
            progress(scheme)
            rows += _weights(f"{label}.{scheme}", Job(folder, Path(folder_of_copies) / scheme, scheme))
            model = Qwen2AudioForConditionalGeneration.from_pretrained(Path(folder_of_copies) / scheme)
            rows += compare(f"{label}.{scheme}", model, answers)
            accelerate(model, "int8")
            rows += compare(f"{label}.{scheme}.kv_int8", model, answers)
    for kv_cache in KV_CACHES:
        progress(f"KV cache in {kv_cache}")
        model = copy.copy(exact)
        model._modules = dict(exact._modules)
        accelerate(model, kv_cache)
        rows += compare(f"{label}.fp32.kv_{kv_cache}", model, answers)
    about = machine.describe(threads) | {"ours": version("qwen2-audio"), "peer": None, "dtype": "against fp32"}
    about["checkpoint"] = f"{folder.name}, {num_parameters(folder) / 1e6:,.0f} M parameters"
    return Report(about, rows)


def prompts(folder: Path, config: Qwen2AudioConfig) -> Iterator[Prompt]:
    """The bundled clips with every question; synthetic clips and ids for a checkpoint without a tokenizer."""
    if (folder / "tokenizer_config.json").is_file():
        processor = Qwen2AudioProcessor.from_pretrained(folder)
        for clip in sorted((nano_path() / "clips").glob("*.wav")):
            for question_text in QUESTIONS:
                yield to_tensors([build_prompt([user(question_text, audio=clip)], processor)], pad_id=0)
        return
    for seconds in SECONDS:
        waveform = clips.clip(seconds)
        features = torch.from_numpy(mel.log_mel(waveform))[None]
        mask = torch.zeros((1, features.shape[-1]), dtype=torch.int32)
        mask[:, : mel.num_frames(len(waveform))] = 1
        clip_inputs = {"input_features": features, "feature_attention_mask": mask}
        for question in range(len(QUESTIONS)):
            ids = question_ids_for(config, num_audio_tokens(int(mask.sum())), question)
            input_ids = torch.tensor([ids])
            yield {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), **clip_inputs}


def answer(model: Qwen2AudioForConditionalGeneration, prompt: Prompt, new_tokens: int) -> Answer:
    """The model's greedy answer, and what it thought of every token."""
    ids = _generate(model, prompt, new_tokens)
    return Answer(prompt, ids, _log_probs(model, prompt, ids))


def compare(name: str, model: Qwen2AudioForConditionalGeneration, answers: Sequence[Answer]) -> list[Row]:
    """Rows `name`.kl, .same, .answers."""
    divergence, same_tokens, positions, same_answers = 0.0, 0, 0, 0
    for exact in answers:
        log_probs = _log_probs(model, exact.prompt, exact.ids)
        divergence += float(F.kl_div(log_probs, exact.log_probs, reduction="sum", log_target=True))
        same_tokens += int((log_probs.argmax(-1) == exact.log_probs.argmax(-1)).sum())
        positions += len(log_probs)
        same_answers += int(torch.equal(_generate(model, exact.prompt, exact.ids.shape[1]), exact.ids))
    return [
        Row(f"{name}.kl", divergence / positions, "nats", note=f"{positions} positions"),
        Row(f"{name}.same", same_tokens / positions, "", note=f"{same_tokens} of {positions} tokens"),
        Row(f"{name}.answers", same_answers / len(answers), "", note=f"{same_answers} of {len(answers)} answers"),
    ]


def _weights(name: str, job: Job) -> list[Row]:
    """Quantise; the weights' relative error by part."""
    return [
        Row(f"{name}.error.{part.name.replace(' ', '_')}", part.loss.relative, "", note=part.stored_as)
        for part in convert(job)
        if part.loss.error
    ]


def _generate(model: Qwen2AudioForConditionalGeneration, prompt: Prompt, new_tokens: int) -> torch.Tensor:
    out = model.generate(**prompt, do_sample=False, max_new_tokens=new_tokens, repetition_penalty=1.0)
    return out[:, prompt["input_ids"].shape[1] :]  # type: ignore[no-any-return]


@torch.no_grad()
def _log_probs(model: Qwen2AudioForConditionalGeneration, prompt: Prompt, ids: torch.Tensor) -> torch.Tensor:
    """fp32 [n, V], read as in generation: the prompt first, then one token after the other, through the cache."""
    length = prompt["input_ids"].shape[1]
    cache = model.new_cache(1, length + ids.shape[1])
    logits = [model(**prompt, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0]]
    for token in ids[0, :-1]:
        logits.append(model.language_model(token.view(1, 1), past_key_values=cache, logits_to_keep=1).logits[0])
    return torch.cat(logits).float().log_softmax(-1)
