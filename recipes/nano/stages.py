"""The stages of training, each resumable, each with what it cost. `python -m recipes.nano STAGE` runs one of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from qwen2_audio.model.qwen2_audio import Qwen2AudioForConditionalGeneration
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.train import dpo, loop, sft
from qwen2_audio.train.config import TrainConfig
from qwen2_audio.train.start import Setting, begin

from .clips import Library, open_library
from .corpus import write_conversations
from .ctc import ENCODER, Listener, join, judge
from .loop import Stage, adamw, train
from .network import finish, fresh_model, nano_config, save_checkpoint
from .pairs import write_pairs
from .pseudo import LANGUAGE, Lessons
from .tokenizer import train_tokenizer
from .writer import FINE_TUNING, PRETRAINING

CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Plan:
    """What to train and where."""

    work: Path  # clips, checkpoints of the stages, logs
    clips: int = 22_000  # for training
    held_back: int = 1_000  # clips of the development split: to watch the training, never trained on
    scale: float = 1.0  # of the number of steps
    threads: int = 1
    workers: int = 2  # processes that synthesise
    seed: int = 0

    def library(self, split: str = "train") -> Library:
        count = self.clips if split == "train" else self.held_back
        return open_library(split, count, self.work / "clips", self.workers)


def make_clips(plan: Plan) -> None:
    plan.library("dev")
    plan.library("train")


def train_encoder(plan: Plan) -> None:
    """The encoder by CTC; `encoder.pt` has it with its heads."""
    network, stage = Listener(_model(plan)[0].audio_tower), _scaled(ENCODER, plan)
    stream = _stream(plan)
    train(stage, network, adamw([(network, stage.lr)]), lambda step: network.loss(stream(step)), plan.work)
    print(f"encoder, development split: {judge(network, plan.library('dev'), 400)}")


def train_language(plan: Plan) -> None:
    """The language model and the projector on imagined clips; `language.pt` has the whole model."""
    model, tokenizer = _model(plan)
    learning = torch.nn.ModuleList([model.multi_modal_projector, model.language_model])
    stage, lessons = _scaled(LANGUAGE, plan), Lessons(model, tokenizer, plan.seed)
    train(stage, learning, adamw([(learning, stage.lr)]), lessons.loss, plan.work)


def join_both(plan: Plan) -> None:
    """Encoder and language model in one checkpoint, `joined`, for the trainer to go on with."""
    model, tokenizer = _model(plan)
    network = Listener(model.audio_tower)
    network.load_state_dict(_result(plan, ENCODER))
    learned = torch.nn.ModuleList([model.multi_modal_projector, model.language_model])
    learned.load_state_dict(_result(plan, LANGUAGE))
    join(network, model.multi_modal_projector.linear)
    save_checkpoint(model, model.config, tokenizer, plan.work / "joined")


def pretrain(plan: Plan) -> None:
    """Multi-task pre-training: all of the model, all tasks."""
    data = plan.work / "data" / "joint.jsonl"
    if not data.is_file():
        write_conversations(plan.library(), PRETRAINING, round(0.9 * plan.clips), plan.seed, data)
    _sft("joint", "joined", plan)


def fine_tune(plan: Plan) -> None:
    """Supervised fine-tuning in both modes: voice chat and audio analysis."""
    data = plan.work / "data" / "sft.jsonl"
    if not data.is_file():
        write_conversations(plan.library(), FINE_TUNING, round(0.9 * plan.clips), plan.seed + 1, data)
    _sft("sft", "joint/final", plan)


def prefer(plan: Plan) -> None:
    """DPO against wrong facts, echoes, inventions and deafness; the result is the finished nano, in `checkpoint`."""
    data = plan.work / "data" / "dpo.jsonl"
    if not data.is_file():
        write_pairs(plan.library(), 2400, plan.seed, data)
    finish(_trained(dpo.task_of, configured("dpo", "sft/final", plan)), plan.work / "checkpoint")


def _sft(name: str, model: str, plan: Plan) -> None:
    held_back = plan.work / "data" / "dev.jsonl"
    if not held_back.is_file():
        write_conversations(plan.library("dev"), FINE_TUNING, 150, plan.seed, held_back)
    _trained(sft.task_of, configured(name, model, plan))


def _trained(task_of: Callable[[Setting], loop.Task], config: TrainConfig) -> Path:
    """`sft.run` or `dpo.run`, with the attention that is fastest here."""
    setting = begin(config)
    setting.model.set_attn_implementation("eager")  # bf16 on a CPU: faster than torch's fused attention
    return loop.run(task_of(setting))


def configured(name: str, model: str, plan: Plan) -> TrainConfig:
    """The stage's config, `configs/<name>.toml`, with the paths and the length of this plan."""
    config = TrainConfig.from_file(CONFIGS / f"{name}.toml")
    data = replace(
        config.data,
        train=str(plan.work / "data" / f"{name}.jsonl"),
        eval=str(plan.work / "data" / "dev.jsonl") if config.data.eval else "",
    )
    steps = max(1, round(config.steps * plan.scale))
    return replace(config, model=str(plan.work / model), output=str(plan.work / name), data=data, steps=steps)


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
    print(f"{name}: {cost['minutes']:.1f} minutes, {cost['cpu_minutes']:.1f} of one core")
    with (plan.work / "costs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(cost) + "\n")


def _model(plan: Plan) -> tuple[Qwen2AudioForConditionalGeneration, Tokenizer]:
    tokenizer = train_tokenizer()
    model = fresh_model(nano_config(tokenizer), plan.seed).train()
    model.set_attn_implementation("eager")  # bf16 on a CPU: faster than torch's fused attention
    return model, tokenizer


def _stream(plan: Plan):
    from .batches import EncoderStream

    return EncoderStream(plan.library(), ENCODER.batch, plan.seed)


def _scaled(stage: Stage, plan: Plan) -> Stage:
    return replace(stage, steps=max(1, round(stage.steps * plan.scale)))


def _result(plan: Plan, stage: Stage) -> dict[str, torch.Tensor]:
    path = plan.work / f"{stage.name}.pt"
    state = torch.load(path, weights_only=True)
    if state["step"] < _scaled(stage, plan).steps:
        raise RuntimeError(
            f"{path} is at step {state['step']}; finish the stage first: python -m recipes.nano {stage.name}"
        )
    return dict(state["network"])
