"""What will be learned, shown before it is: the trained tokens of a row, and what the model hears of its clips."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ..audio.mel import MEL_HOP
from ..audio.resample import SAMPLE_RATE
from ..audio.spectrogram import save_png
from ..checkpoint.locate import find
from ..inputs.processor import Qwen2AudioProcessor
from ..text.chat_template import AUDIO
from ..text.tokenizer import Tokenizer
from . import masks
from .config import TrainConfig
from .data import Dataset, Example
from .quarantine import BadRow

OPEN, CLOSE = "⟦", "⟧"  # around what is trained on, where there are no colours
TRAINED, CONTEXT = "bold green", "dim"


def run(config: TrainConfig, *, rows: int = 3) -> list[Path]:
    """`preview` of the training data a run names, on the terminal; pictures go to `preview` in its output folder.

    Raises WeightsError, ConfigError, PromptError (no data), AudioError.
    """
    processor = Qwen2AudioProcessor.from_pretrained(find(config.model))
    dataset = Dataset(config.data.train, processor, config.data, seed=config.seed)
    return preview(dataset, Console(highlight=False), rows=rows, folder=Path(config.output) / "preview")


def preview(
    dataset: Dataset, console: Console, *, rows: int = 3, folder: Path | None = None, epoch: int = 0
) -> list[Path]:
    """Print the first `rows` rows as they will be trained on in `epoch`; bad ones with their reason.

    With `folder`, also draw what the model gets of each clip; returns the PNG files.
    Raises ConfigError without matplotlib, AudioError for a file that cannot be written.
    """
    pictures: list[Path] = []
    for index in range(min(rows, len(dataset))):
        try:
            example = dataset.example(index, epoch)
        except BadRow as bad:
            console.print(Text(f"Left out: {bad}", style="red"), soft_wrap=True)
            continue
        console.print(show(example, dataset.processor.tokenizer, marked=not console.is_terminal), soft_wrap=True)
        if dataset.has_rejected(index):
            rejected = dataset.pair(index, epoch).rejected
            console.print(Text("The rejected answer, which DPO makes less likely:", style="bold"))
            console.print(show(rejected, dataset.processor.tokenizer, marked=not console.is_terminal), soft_wrap=True)
        if folder is not None:
            pictures += draw(example, folder)
    for picture in pictures:
        console.print(Text(f"Drawn: {picture}"), soft_wrap=True)
    return pictures


def show(example: Example, tokenizer: Tokenizer, *, marked: bool) -> Text:
    """An example with what is trained on in green, also between ⟦ and ⟧ if `marked`; then those tokens one by one."""
    seconds = ", ".join(f"{count * MEL_HOP / SAMPLE_RATE:.2f} s" for count in example.frames)
    text = Text()
    text.append(f"Line {example.line}: {len(example.ids)} tokens, trained on {sum(example.trained)}", "bold")
    text.append(f"; clips: {seconds}\n" if seconds else "; no clip\n", "bold")
    for trained, ids in masks.stretches(example.ids, example.trained):
        words = _readable(ids, tokenizer)
        text.append(f"{OPEN}{words}{CLOSE}" if trained and marked else words, TRAINED if trained else CONTEXT)
    learned = [token for token, flag in zip(example.ids, example.trained, strict=True) if flag]
    text.append("Trained tokens: ", "bold")
    text.append(" ".join(f"{token}:{tokenizer.decode([token])!r}" for token in learned) + "\n", TRAINED)
    return text


def _readable(ids: list[int], tokenizer: Tokenizer) -> str:
    """The text of some ids, the positions of a clip counted instead of repeated."""
    audio = tokenizer.convert_tokens_to_ids(AUDIO)
    out = ""
    for is_audio, group in groupby(ids, key=lambda token: token == audio):
        run = list(group)
        out += f"{AUDIO}×{len(run)}" if is_audio else tokenizer.decode(run)
    return out


def draw(example: Example, folder: Path) -> list[Path]:
    """The log-mel of each clip, augmented as it will be, in line-N-clip-M.png. Raises ConfigError, AudioError."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (clip, frames) in enumerate(zip(example.mels, example.frames, strict=True), 1):
        path = folder / f"line-{example.line}-clip-{number}.png"
        save_png(clip, path, seconds=frames * MEL_HOP / SAMPLE_RATE, title=f"line {example.line}, clip {number}")
        paths.append(path)
    return paths
