"""`qwen2-audio train aligner MODEL DATA`: times of words for any checkpoint, from its own transcripts or given ones."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AudioError, ConfigError
from . import terminal
from .sound_progress import SoundProgress
from .terminal import note

if TYPE_CHECKING:
    import numpy as np

    from ..api.chat import AudioChat
    from ..datasets.row import Row
    from ..train.aligner import LabelledClip

_AROUND = 0.1  # s kept on both sides of a part that the model wrote down


def run(model: str, data: str, output: str | None, minutes: float, *, force: bool = False) -> int:
    """Train an aligner on the sounds of `data` and write it; prints how well it does on clips held out."""
    from ..checkpoint.locate import find
    from ..datasets.corpus import open_corpus
    from ..train.aligner import AlignerConfig, train

    config = AlignerConfig(minutes=minutes)
    path = _path(find(model), output, force)
    corpus = open_corpus(data)
    chat = terminal.load_model(model)
    problems = Counter[str]()
    with SoundProgress() as progress:
        clips = _clips(chat, corpus.rows(), problems)
        trained = train(chat.model.audio_tower, clips, config, lambda done, total: progress.show(data, done, total))
    for sentence, count in problems.items():
        note(f"{count} sounds left out: {sentence}")
    trained.head.save(path)
    print(f"{trained}\n{path}: {path.stat().st_size:,} bytes")
    return 0


def _path(where: str | Path, output: str | None, force: bool) -> Path:
    """The file to write. Raises ConfigError, before anything is computed, where that cannot be."""
    from ..longform.settings import ALIGNER

    if output is None and not Path(where).is_dir():
        raise ConfigError(f"{where} is a name on the hub, whose folder is not written to; give --output FILE.")
    path = Path(where) / ALIGNER if output is None else Path(output)
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"--output {path} is no file in an existing folder.")
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; --force writes it anew, --output names another file.")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{path.parent} may not be written to; give --output FILE.")
    return path


def _clips(chat: AudioChat, rows: Iterator[Row], problems: Counter[str]) -> Iterator[LabelledClip]:
    """Rows with a text as they are; of a sound without one, the parts that the model writes down without a flag."""
    from ..datasets.columns import no_sound
    from ..datasets.sounds import load_sound
    from ..train.aligner import LabelledClip

    for row in rows:
        if row.sound is None:
            raise no_sound(row.columns, row.where)
        try:
            samples = load_sound(row.sound).waveform
        except AudioError as error:
            problems[error.sentence] += 1
            continue
        text = _text(row)
        if text:
            yield LabelledClip(samples, text)
        else:
            yield from _own(chat, samples, problems)


def _text(row: Row) -> str:
    """What the row says is said in its sound; "" where it does not."""
    from ..datasets import columns

    text = columns.first(row.columns, columns.TEXT)
    if text is None and columns.has_any(row.columns, columns.CONVERSATION):
        text = columns.spoken_turns(row.columns, row.where)[1]
    return text if isinstance(text, str) else ""


def _own(chat: AudioChat, samples: np.ndarray, problems: Counter[str]) -> Iterator[LabelledClip]:
    from ..audio.mel import SAMPLE_RATE
    from ..train.aligner import LabelledClip

    for segment in chat.transcribe(samples).segments:
        if segment.flags or not segment.text:
            problems["the model's own transcript is empty or flagged"] += 1
            continue
        first = max(0, round((segment.start - _AROUND) * SAMPLE_RATE))
        yield LabelledClip(samples[first : round((segment.end + _AROUND) * SAMPLE_RATE)], segment.text)
