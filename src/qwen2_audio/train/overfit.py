"""The basic check of a trainer: it must be able to overfit eight clips, so that every answer comes back exactly.

Where it cannot, something between the audio and the gradient is broken: the features, the loss mask, the learning rate,
or the checkpoint itself.
"""

from __future__ import annotations

import json
import time
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ..audio.resample import SAMPLE_RATE
from ..checkpoint.locate import nano_path
from ..errors import TrainingError
from ..inputs import messages, prompt
from ..inputs.collate import to_tensors
from ..text.chat_template import IM_END
from . import loop, optim, sft
from .config import PARTS, DataConfig, LoraSection, OptimConfig, TrainConfig
from .feed import Position, steps_of_data
from .start import RunSetup, set_up

# Words that a small model knows, in answers that no model would give about these clips without training.
ANSWERS = {
    "bell": "I hear a cat and rain.",
    "cat": "I hear glass and a bell.",
    "dog": "I hear rain and a cat.",
    "glass": "I hear a dog and a siren.",
    "knocking": "I hear a siren and glass.",
    "piano": "I hear rain and a dog.",
    "rain": "I hear a bell and a siren.",
    "siren": "I hear a dog and glass.",
}
QUESTION = "What do you hear?"
LOSS, SECONDS = 0.05, 180.0  # to pass, both must stay below
CLIP_SAMPLES = SAMPLE_RATE  # of each clip; one second is enough to tell them apart
MAX_NEW_TOKENS = 32
STOP_LOSS = 0.01  # training ends below this loss, where every answer is certain
MAX_STEPS = 2000


@dataclass(frozen=True)
class Outcome:
    """The result of the check."""

    loss: float  # of the last step
    steps: int
    seconds: float
    answers: dict[str, str]  # clip -> the model's answer after training

    @property
    def wrong(self) -> dict[str, str]:
        """The answers that differ from ANSWERS."""
        return {clip: text for clip, text in self.answers.items() if text != ANSWERS[clip]}

    @property
    def passed(self) -> bool:
        return self.loss < LOSS and not self.wrong and self.seconds < SECONDS

    def __str__(self) -> str:
        right = len(self.answers) - len(self.wrong)
        return (
            f"loss {self.loss:.4f} after {self.steps} steps in {self.seconds:.0f} s, {right} of {len(self.answers)} "
            f"answers to the letter; asked for: below {LOSS}, all, in less than {SECONDS:.0f} s"
        )


def run(model: str, *, device: str = "auto", tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """Train an adapter for all parts of `model` on the eight bundled clips until the loss is low or the time is over,
    then let it answer.

    tell: gets a line of progress every ten steps. Nothing stays on disk.
    Raises ConfigError, WeightsError, TrainingError.
    """
    with TemporaryDirectory(prefix="qwen2-audio-overfit-") as folder:
        setup = set_up(config_of(model, Path(folder), device))
        started = time.monotonic()
        loss, steps = _learn(setup, started, tell)
        seconds = time.monotonic() - started
        answers = {clip: _answer(setup, Path(folder) / f"{clip}.wav") for clip in ANSWERS}
    return Outcome(loss, steps, seconds, answers)


def config_of(model: str, folder: Path, device: str) -> TrainConfig:
    """The config of the run; its data is written to `folder`."""
    lines = []
    for clip, answer in ANSWERS.items():
        _write_beginning(nano_path() / "clips" / f"{clip}.wav", folder / f"{clip}.wav")
        content = [{"type": "audio", "audio": f"{clip}.wav"}, {"type": "text", "text": QUESTION}]
        row = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": row}))
    data = folder / "rows.jsonl"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return TrainConfig(
        DataConfig(str(data), batch_size=len(ANSWERS)), str(folder / "run"), model, parts=PARTS, steps=MAX_STEPS,
        device=device, lora=LoraSection(rank=32, alpha=64.0), tensorboard="off",
        optim=OptimConfig(learning_rate=2e-3, schedule="constant", warmup_steps=10),
    )  # fmt: skip


def _write_beginning(clip: Path, to: Path) -> None:
    with wave.open(str(clip)) as source, wave.open(str(to), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(CLIP_SAMPLES))


def _learn(setup: RunSetup, started: float, tell: Callable[[str], None]) -> tuple[float, int]:
    """Train; the loss of the last step, and the number of steps."""
    task = sft.task_of(setup)
    torch.manual_seed(task.config.seed)
    optim.prepare(task.model, task.config)
    task.model.eval()  # without dropout: the answers are to be learnt exactly
    optimiser = optim.optimiser(task.model, task.config.optim)
    data = next(steps_of_data(task.train, Position(0, 0), 1))  # the eight rows are one micro-batch
    if len(data.batches) != 1 or len(data.batches[0].lines) != len(ANSWERS):
        raise TrainingError(f"Not all of the bundled clips could be read. {setup.quarantine.summary()}")
    loss, step = float("inf"), 0
    for step in range(MAX_STEPS):
        loss = loop.train_step(task, optimiser, data, step, MAX_STEPS)["loss"]
        if step % 10 == 0:
            tell(f"step {step + 1}: loss {loss:.4f}")
        if loss < STOP_LOSS or time.monotonic() - started > SECONDS:
            break
    return loss, step + 1


def _answer(setup: RunSetup, clip: Path) -> str:
    """The model's greedy answer to QUESTION about `clip`."""
    model, processor = setup.model.eval(), setup.processor
    question = [messages.user(QUESTION, audio=clip)]
    built = prompt.build_prompt(question, processor, prompt.custom_template(processor))
    inputs = {name: tensor.to(model.device) for name, tensor in to_tensors([built], setup.pad_id).items()}
    ends = {processor.tokenizer.convert_tokens_to_ids(IM_END), *model.generation_config.eos_ids}
    ids = model.generate(
        **inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, num_beams=1, num_return_sequences=1,
        eos_token_id=sorted(ends), stop_strings=None, return_dict_in_generate=False,
    )  # fmt: skip
    text: str = processor.tokenizer.decode(ids[0, len(built.ids) :], skip_special_tokens=True)
    return text
