"""The stages of training, each resumable, each with what it cost. `python -m recipes.nano STAGE` runs one of them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from qwen2_audio.evaluate.nano.speech.engines import check_engines
from qwen2_audio.model.qwen2_audio import Qwen2AudioForConditionalGeneration
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.train import dpo, sft
from qwen2_audio.train.config import TrainConfig
from qwen2_audio.train.precision import fast_bfloat16

from .clips import Library, open_library
from .corpus import write_conversations
from .ctc import ENCODER, Listener, join, judge
from .errors import RecipeError
from .loop import Stage, adamw, processes, train
from .network import finish, fresh_model, nano_config, save_checkpoint
from .pairs import write_pairs
from .pseudo import LANGUAGE, Lessons
from .tokenizer import train_tokenizer
from .writer import FINE_TUNING, PRETRAINING, WIDENING

FIRST = os.environ.get("RANK", "0") == "0"  # of torchrun's processes: the one that writes
CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Plan:
    """What to train and where."""

    work: Path  # clips, checkpoints of the stages, logs
    clips: int = 24_000  # for training
    held_back: int = 8_000  # clips of the development split: to watch the training, and for DPO to find mistakes
    people: int = 16_400  # clips of people, for the stages that go on
    lines: int | None = None  # Kokoro says this many of its lines, or all
    scale: float = 1.0  # of the number of steps
    threads: int = 1
    workers: int = 2  # processes that synthesise
    seed: int = 0
    start: Path | None = None  # the stages that go on begin with this checkpoint

    def library(self, split: str = "train") -> Library:
        count = self.clips if split == "train" else min(self.held_back, max(1, self.clips // 3))
        return open_library(split, count, self.work / "clips", self.workers)


def make_clips(plan: Plan) -> None:
    check_engines(training=True)
    plan.library("dev")
    plan.library("train")


def train_encoder(plan: Plan) -> None:
    """The encoder by CTC; `encoder.pt` has it with its heads."""
    network, stage = Listener(_model(plan)[0].audio_tower), scaled(ENCODER, plan)
    stream = _stream(plan)
    train(stage, network, adamw([(network, stage.lr)]), lambda step: network.loss(stream(step)), plan.work)
    if FIRST:
        print(f"encoder, development split: {judge(network, plan.library('dev'), 400)}")


def train_language(plan: Plan) -> None:
    """The language model and the projector on imagined clips; `language.pt` has the whole model."""
    model, tokenizer = _model(plan)
    learning = torch.nn.ModuleList([model.multi_modal_projector, model.language_model])
    stage, lessons = scaled(LANGUAGE, plan), Lessons(model, tokenizer, plan.seed, processes())
    train(stage, learning, adamw([(learning, stage.lr)]), lessons.loss, plan.work)


def join_both(plan: Plan) -> None:
    """Encoder and language model in one checkpoint, `joined`, for the trainer to go on with."""
    model, tokenizer = _model(plan)
    network = Listener(model.audio_tower)
    network.load_state_dict(result(plan, ENCODER))
    learned = torch.nn.ModuleList([model.multi_modal_projector, model.language_model])
    learned.load_state_dict(result(plan, LANGUAGE))
    join(network, model.multi_modal_projector.linear)
    save_checkpoint(model, model.config, tokenizer, plan.work / "joined")


def write_data(plan: Plan) -> None:
    """The conversations of the next three stages, those of the second twice over: other questions each time."""
    folder, clips = plan.work / "data", plan.clips
    write_conversations(plan.library("dev"), FINE_TUNING, 150, plan.seed, folder / "dev.jsonl")
    write_conversations(plan.library(), PRETRAINING, round(0.9 * clips), plan.seed, folder / "joint.jsonl")
    write_conversations(plan.library(), FINE_TUNING, round(1.8 * clips), plan.seed + 1, folder / "sft.jsonl")
    write_conversations(plan.library(), WIDENING, round(0.9 * clips), plan.seed + 2, folder / "voices.jsonl")


def pretrain(plan: Plan) -> None:
    """Multi-task pre-training: the language model meets the encoder, most tasks are reading."""
    sft.run(configured("joint", "joined", plan))


def fine_tune(plan: Plan) -> None:
    """Supervised fine-tuning of all parts in both modes: voice chat and audio analysis."""
    sft.run(configured("sft", "joint/final", plan))


def widen(plan: Plan) -> None:
    """More fine-tuning on other conversations, with pitch and vocal tract length varied more, for unknown voices."""
    sft.run(configured("voices", "sft/final", plan))


def find_mistakes(plan: Plan) -> None:
    """What the fine-tuned model says wrongly about clips it has not been trained on: the pairs of the last stage."""
    model, path = plan.work / "voices" / "final", plan.work / "data" / "dpo.jsonl"
    print(write_pairs(model, plan.library("dev"), plan.seed, path))


def prefer(plan: Plan) -> None:
    """DPO against its own wrong facts, inventions and deafness; the result is the finished nano, in `checkpoint`."""
    trained = dpo.run(configured("dpo", "voices/final", plan))
    if FIRST:
        finish(trained, plan.work / "checkpoint")


def configured(name: str, model: str, plan: Plan) -> TrainConfig:
    """The stage's config, `configs/<name>.toml`, with the paths and the length of this plan, in a precision that this
    CPU is fast at."""
    config = TrainConfig.from_file(CONFIGS / f"{name}.toml")
    data = replace(
        config.data,
        train=str(plan.work / "data" / f"{name}.jsonl"),
        eval=str(plan.work / "data" / Path(config.data.eval).name) if config.data.eval else "",
    )
    steps = max(1, round(config.steps * plan.scale))
    return replace(
        config,
        model=str(plan.work / model),
        output=str(plan.work / name),
        data=data,
        steps=steps,
        precision=config.precision if fast_bfloat16() else "float32",
        parallel="ddp" if "RANK" in os.environ else "none",
    )


def timed(name: str, run: Callable[[Plan], None], plan: Plan) -> None:
    """Run a stage and note what it cost in `work/costs.jsonl`."""
    torch.set_num_threads(plan.threads)
    started, busy = time.monotonic(), time.process_time()
    run(plan)
    cost = {
        "stage": name,
        "minutes": (time.monotonic() - started) / 60,
        "cpu_minutes": (time.process_time() - busy) / 60,
    }
    if not FIRST:
        return
    plan.work.mkdir(parents=True, exist_ok=True)
    print(f"{name}: {cost['minutes']:.1f} minutes, {cost['cpu_minutes']:.1f} of one core")
    with (plan.work / "costs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(cost) + "\n")


def _model(plan: Plan) -> tuple[Qwen2AudioForConditionalGeneration, Tokenizer]:
    """Raises RecipeError where the vocabulary is no longer that of the stages that are done: a change of wording moves
    most of its ids, and a language model that learned others still runs, only worse."""
    tokenizer = train_tokenizer()
    ids, known = tokenizer.get_vocab(), plan.work / "vocabulary.txt"
    words = "\n".join(sorted(ids, key=ids.__getitem__))
    if not known.is_file():
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(words, encoding="utf-8")
    elif known.read_text(encoding="utf-8") != words:
        raise RecipeError(f"{known} lists other tokens than the recipe now makes; begin anew in another --work folder.")
    model = fresh_model(nano_config(tokenizer), plan.seed).train()
    if fast_bfloat16():
        model.set_attn_implementation("eager")  # bf16 on a CPU: faster than torch's fused attention
    return model, tokenizer


def _stream(plan: Plan):
    from .batches import EncoderStream

    return EncoderStream(plan.library(), ENCODER.batch, plan.seed, processes())


def scaled(stage: Stage, plan: Plan) -> Stage:
    """The stage with the steps of this plan."""
    return replace(stage, steps=max(1, round(stage.steps * plan.scale)))


def result(plan: Plan, stage: Stage) -> dict[str, torch.Tensor]:
    """The weights at the end of a stage. Raises RecipeError where it is not done."""
    path = plan.work / f"{stage.name}.pt"
    state: dict[str, Any] = torch.load(path, weights_only=True) if path.is_file() else {"step": 0}
    if state["step"] < (wanted := scaled(stage, plan).steps):
        raise RecipeError(
            f"{path} is at step {state['step']} of {wanted}; finish it first: python -m recipes.nano {stage.name}"
        )
    return dict(state["network"])
