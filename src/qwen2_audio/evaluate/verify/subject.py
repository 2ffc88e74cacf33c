"""What the paths of a machine are compared on: a model, prompts, and what the readable fp32 path says to them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from ...checkpoint.config import Qwen2AudioConfig
from ...checkpoint.locate import nano_path
from ...checkpoint.weights import load_checkpoint
from ...engine.settings import OptionsResolver
from ...generate.config import GenerationConfig
from ...inputs.collate import to_tensors
from ...inputs.messages import assistant, user
from ...inputs.processor import Qwen2AudioProcessor
from ...inputs.prompt import Prompt, build_prompt
from ...model.initialize import without_weights
from ...model.merge import position_ids_of
from ...pretrained import Qwen2AudioForConditionalGeneration
from ..random_checkpoint import Shape, ensure

NEW_TOKENS = 8
Model = Qwen2AudioForConditionalGeneration


@dataclass(frozen=True)
class Subject:
    """A checkpoint, and the prompts that it is asked."""

    name: str
    folder: Path
    processor: Qwen2AudioProcessor
    prompts: tuple[Prompt, ...]

    @classmethod
    def of(cls, name: str, folder: Path, *, short: bool = False) -> Subject:
        """For a checkpoint with nano's tokenizer. short: only the shortest clip, and a text."""
        processor, clips = Qwen2AudioProcessor.from_pretrained(folder), nano_path() / "clips"
        question = "What is that sound?"
        conversations = [
            [user(question, audio=clips / "dog.wav")],
            [user("Is anybody speaking? Answer with one word.", audio=clips / "capital.wav")],
            [
                user(question, audio=clips / "bell.wav"),
                assistant("A bell."),
                user("And what is this one? Say it in a whole sentence.", audio=clips / "command.wav"),
            ],
            [user("Name two animals.")],
        ]
        asked = conversations[1::2] if short else conversations
        return cls(name, folder, processor, tuple(build_prompt(one, processor) for one in asked))


def nano() -> Subject:
    """The bundled checkpoint."""
    return Subject.of("nano", nano_path())


def random_official(folder: Path, shape: Shape | None = None) -> Subject:
    """A random checkpoint of the official widths, cut to four layers and nano's vocabulary; written to `folder`.

    0.9 billion parameters, 1.8 GB on the disk. Raises CapacityError: the disk has no room.
    """
    source = nano_path()
    text = Qwen2AudioConfig.from_pretrained(source)
    vocabulary, audio = text.text_config.vocab_size, text.audio_token_index
    shape = shape or Shape(4, 1280, 20, 5120, 4, 4096, 32, 11008, vocab_size=vocabulary, audio_token_index=audio)
    ensure(shape, folder)
    Qwen2AudioProcessor.from_pretrained(source).save_pretrained(folder)
    return Subject.of("official widths", folder, short=True)


def readable(subject: Subject, device: torch.device) -> Model:
    """The model in float32 with eager attention, and nothing native in it."""
    config = Qwen2AudioConfig.from_pretrained(subject.folder)
    config._attn_implementation = "eager"
    with without_weights():
        model = Model(config)
    load_checkpoint(model, subject.folder, torch.float32, device)
    model.generation_config = GenerationConfig.from_pretrained(subject.folder)
    return model.eval()


def fast(subject: Subject, device: torch.device, **options: Any) -> Model:
    """The model as users load it."""
    options = {"dtype": None if "quantize" in options else torch.float32, **options}
    return Model.from_pretrained(subject.folder, device_map=device, **options)


@dataclass(frozen=True)
class Truth:
    """What the readable path says on the CPU."""

    logits: list[torch.Tensor]  # float32 [T, V] of each prompt
    tokens: list[list[int]]  # the likeliest next ones
    logprobs: list[list[float]]  # theirs

    @classmethod
    @torch.no_grad()
    def of(cls, model: Model, subject: Subject) -> Truth:
        tokens, logprobs, prompts = [], [], subject.prompts
        ends = sorted(
            OptionsResolver(model, subject.processor.tokenizer).eos_ids
        )  # which come as late as in the engine
        for prompt in prompts:
            answer = model.generate(
                **_inputs(model, [prompt]), do_sample=False, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS,
                repetition_penalty=1.0, eos_token_id=ends, return_dict_in_generate=True, output_logits=True,
            )  # fmt: skip
            new = answer.sequences[0, len(prompt.ids) :].tolist()
            tokens.append(new)
            steps = zip(answer.logits, new, strict=True)
            logprobs.append([float(step[0].log_softmax(-1)[token]) for step, token in steps])
        return cls(logits_of(model, prompts), tokens, logprobs)


def _inputs(model: Model, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
    return {name: tensor.to(model.device) for name, tensor in to_tensors(prompts, 0).items()}


@torch.no_grad()
def logits_of(model: Model, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
    """float32 [T, V] on the CPU of each prompt, computed alone."""
    return [model(**_inputs(model, [prompt]), use_cache=False).logits[0].float().cpu() for prompt in prompts]


@torch.no_grad()
def logits_in_a_batch(model: Model, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
    """The same from one pass over all prompts, padded on the left."""
    logits = model(**_inputs(model, prompts), use_cache=False).logits.float().cpu()
    return [row[len(row) - len(prompt.ids) :] for row, prompt in zip(logits, prompts, strict=True)]


@torch.no_grad()
def logits_by_pieces(model: Model, prompt: Prompt) -> torch.Tensor:
    """The same over the model's own KV cache: half of the prompt, most of the rest, the last three one by one."""
    inputs, length = _inputs(model, [prompt]), len(prompt.ids)
    embeds = model.embed_prompt(**inputs).inputs_embeds
    positions, cache = position_ids_of(inputs["attention_mask"]), model.new_cache(1, length)
    pieces = []
    for start, end in pairwise((0, length // 2, length - 3, length - 2, length - 1, length)):
        part = slice(start, end)
        out = model.language_model(
            inputs_embeds=embeds[:, part], position_ids=positions[:, part], past_key_values=cache
        )
        pieces.append(out.logits[0].float().cpu())
    return torch.cat(pieces)


def distance(found: Iterable[torch.Tensor], expected: Iterable[torch.Tensor]) -> float:
    """The largest difference of all values, as a share of the largest value expected."""
    pairs = list(zip(found, expected, strict=True))
    largest = max(float(other.abs().max()) for _, other in pairs)
    differences = torch.stack([(one - other).abs().max() for one, other in pairs])
    return float(differences.max()) / largest  # torch's max of NaN is NaN


def row_distance(found: Iterable[torch.Tensor], expected: Iterable[torch.Tensor]) -> float:
    """The largest of all rows' differences: root mean square, as a share of that of the row expected."""
    one, other = torch.cat(list(found)), torch.cat(list(expected))
    return float(((one - other).norm(dim=-1) / other.norm(dim=-1)).max())


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Inside this context a GPU rounds no float32 product to TF32, which it does by default in convolutions."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
