"""The oldest check of a trainer: it must be able to learn eight clips by heart, to the letter.

Where it cannot, something on the way from the sound to the gradient is broken: what the model hears, the loss mask, the
learning rate, or the checkpoint itself.
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
from .start import Setting, begin

# In words that a small model knows too, but nothing that any model would say of these clips by itself.
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
LOSS, SECONDS = 0.05, 180.0
HEARD = SAMPLE_RATE  # samples of each clip: a second is enough to tell them apart
MOST_TOKENS = 32  # of an answer
LEARNT = 0.01  # training stops here: below it every answer is certain
MOST_STEPS = 2000


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    loss: float
    steps: int
    seconds: float
    said: dict[str, str]  # clip -> the answer

    @property
    def wrong(self) -> dict[str, str]:
        return {clip: text for clip, text in self.said.items() if text != ANSWERS[clip]}

    @property
    def passed(self) -> bool:
        return self.loss < LOSS and not self.wrong and self.seconds < SECONDS

    def __str__(self) -> str:
        right = len(self.said) - len(self.wrong)
        return (
            f"loss {self.loss:.4f} after {self.steps} steps in {self.seconds:.0f} s, {right} of {len(self.said)} "
            f"answers to the letter; asked for: below {LOSS}, all, in less than {SECONDS:.0f} s"
        )


def run(model: str, *, device: str = "auto", tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """Train an adapter for all parts of `model` on the eight bundled clips until they are learnt, or time is up.

    Nothing is left on disk. Raises ConfigError, WeightsError, TrainingError.
    """
    with TemporaryDirectory(prefix="qwen2-audio-overfit-") as folder:
        setting = begin(config_of(model, Path(folder), device))
        started = time.monotonic()
        loss, steps = _learn(setting, started, tell)
        seconds = time.monotonic() - started
        said = {clip: _answer(setting, Path(folder) / f"{clip}.wav") for clip in ANSWERS}
    return Outcome(loss, steps, seconds, said)


def config_of(model: str, folder: Path, device: str) -> TrainConfig:
    """The run, whose data is written to `folder`."""
    lines = []
    for clip, answer in ANSWERS.items():
        _write_beginning(nano_path() / "clips" / f"{clip}.wav", folder / f"{clip}.wav")
        content = [{"type": "audio", "audio": f"{clip}.wav"}, {"type": "text", "text": QUESTION}]
        row = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": row}))
    data = folder / "rows.jsonl"
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return TrainConfig(
        DataConfig(str(data), batch_size=len(ANSWERS)), str(folder / "run"), model, parts=PARTS, steps=MOST_STEPS,
        device=device, lora=LoraSection(rank=32, alpha=64.0), tensorboard="off",
        optim=OptimConfig(learning_rate=2e-3, schedule="constant", warmup_steps=10),
    )  # fmt: skip


def _write_beginning(clip: Path, to: Path) -> None:
    with wave.open(str(clip)) as source, wave.open(str(to), "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(HEARD))


def _learn(setting: Setting, started: float, tell: Callable[[str], None]) -> tuple[float, int]:
    task = sft.task_of(setting)
    torch.manual_seed(task.config.seed)
    optim.prepare(task.model, task.config)
    task.model.eval()  # a checkpoint's own dropout would be in the way: to the letter is the aim
    optimiser = optim.optimiser(task.model, task.config.optim)
    data = next(steps_of_data(task.train, Position(0, 0), 1))  # all there is
    if len(data.batches) != 1 or len(data.batches[0].lines) != len(ANSWERS):
        raise TrainingError(f"Not all of the bundled clips could be read. {setting.quarantine.summary()}")
    loss, step = float("inf"), 0
    for step in range(MOST_STEPS):
        loss = loop.train_step(task, optimiser, data, step, MOST_STEPS)["loss"]
        if step % 10 == 0:
            tell(f"step {step + 1}: loss {loss:.4f}")
        if loss < LEARNT or time.monotonic() - started > SECONDS:
            break
    return loss, step + 1


def _answer(setting: Setting, clip: Path) -> str:
    """The model's greedy answer to QUESTION about `clip`."""
    model, processor = setting.model.eval(), setting.processor
    question = [messages.user(QUESTION, audio=clip)]
    built = prompt.build_prompt(question, processor, prompt.custom_template(processor))
    inputs = {name: tensor.to(model.device) for name, tensor in to_tensors([built], setting.pad_id).items()}
    ends = {processor.tokenizer.convert_tokens_to_ids(IM_END), *model.generation_config.eos_ids}
    ids = model.generate(
        **inputs, max_new_tokens=MOST_TOKENS, do_sample=False, num_beams=1, num_return_sequences=1,
        eos_token_id=sorted(ends), stop_strings=None, return_dict_in_generate=False,
    )  # fmt: skip
    text: str = processor.tokenizer.decode(ids[0, len(built.ids) :], skip_special_tokens=True)
    return text
