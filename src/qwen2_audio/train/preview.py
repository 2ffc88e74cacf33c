"""A preview of the training data: the trained tokens of a row, and the log-mels of its clips as the model gets them."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ..audio.mel import MEL_HOP
from ..audio.resample import SAMPLE_RATE
from ..audio.spectrogram import save_png
from ..checkpoint.locate import find
from ..errors import ConfigError
from ..inputs.processor import Qwen2AudioProcessor
from ..text.chat_template import AUDIO
from ..text.tokenizer import Tokenizer
from . import masks
from .config import TrainConfig
from .data import Dataset, Example
from .quarantine import BadRow

OPEN, CLOSE = "⟦", "⟧"  # around trained text, where there are no colours
TRAINED, CONTEXT = "bold green", "dim"


def run(config: TrainConfig, *, rows: int = 3) -> list[Path]:
    """`preview` of a run's training data on the terminal; pictures go to the folder `preview` in its output.

    Raises WeightsError, ConfigError, PromptError (no data), AudioError.
    """
    processor = Qwen2AudioProcessor.from_pretrained(find(config.model))
    dataset = Dataset(config.data.train, processor, config.data, seed=config.seed)
    return preview(dataset, Console(highlight=False), rows=rows, folder=Path(config.output) / "preview")


def preview(
    dataset: Dataset, console: Console, *, rows: int = 3, folder: Path | None = None, epoch: int = 0
) -> list[Path]:
    """Print the first `rows` rows as they are trained on in `epoch`, and bad ones with their reason.

    With `folder`, also draw the log-mel of each clip; returns the PNG files.
    Without matplotlib nothing is drawn, and it says so. Raises AudioError for a file that cannot be written.
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
            try:
                pictures += draw(example, folder)
            except ConfigError as error:  # without matplotlib the tokens are shown all the same
                console.print(Text(f"No pictures: {error}"), soft_wrap=True)
                folder = None
    for picture in pictures:
        console.print(Text(f"Drawn: {picture}"), soft_wrap=True)
    return pictures


def show(example: Example, tokenizer: Tokenizer, *, marked: bool) -> Text:
    """An example with its trained text in green, with `marked` also between ⟦ and ⟧; then the trained tokens one by
    one."""
    seconds = ", ".join(f"{count * MEL_HOP / SAMPLE_RATE:.2f} s" for count in example.frames)
    text = Text()
    text.append(f"Line {example.line}: {len(example.ids)} tokens, trained on {sum(example.trained)}", "bold")
    text.append(f"; clips: {seconds}\n" if seconds else "; no clip\n", "bold")
    for trained, ids in masks.stretches(example.ids, example.trained):
        words = _readable(ids, tokenizer)
        text.append(f"{OPEN}{words}{CLOSE}" if trained and marked else words, TRAINED if trained else CONTEXT)
    tokens = [token for token, flag in zip(example.ids, example.trained, strict=True) if flag]
    text.append("Trained tokens: ", "bold")
    text.append(" ".join(f"{token}:{tokenizer.decode([token])!r}" for token in tokens) + "\n", TRAINED)
    return text


def _readable(ids: list[int], tokenizer: Tokenizer) -> str:
    """The text of `ids`, where the positions of a clip are counted instead of repeated."""
    audio = tokenizer.convert_tokens_to_ids(AUDIO)
    out = ""
    for is_audio, group in groupby(ids, key=lambda token: token == audio):
        run = list(group)
        out += f"{AUDIO}×{len(run)}" if is_audio else tokenizer.decode(run)
    return out


def draw(example: Example, folder: Path) -> list[Path]:
    """Draw the augmented log-mel of each clip to line-N-clip-M.png. Raises ConfigError, AudioError."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (clip, frames) in enumerate(zip(example.mels, example.frames, strict=True), 1):
        path = folder / f"line-{example.line}-clip-{number}.png"
        save_png(clip, path, seconds=frames * MEL_HOP / SAMPLE_RATE, title=f"line {example.line}, clip {number}")
        paths.append(path)
    return paths
