"""Nano's aligner: `aligner.safetensors`, which gives words their times (docs/long-audio.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.long.word_times import sentence
from qwen2_audio.evaluate.nano.scene import render_speech
from qwen2_audio.evaluate.nano.speech.voices import OWN
from qwen2_audio.evaluate.nano.world.speakers import utterance
from qwen2_audio.longform.word_times import Aligner
from qwen2_audio.longform.word_times_head import AlignerHead
from qwen2_audio.model.encoder import Qwen2AudioEncoder
from qwen2_audio.train.aligner import AlignerConfig, LabelledClip, Trained, train

MINUTES = 6.0
SENTENCES = 80  # of the development split, whose words' times are known, to measure the shift


def speech(seed: int) -> Iterator[LabelledClip]:
    """Clips of the training split as the encoder was trained on: rooms, noise, all its voices."""
    index = 1_000_000 * (seed + 1)  # none that the encoder was trained on
    while True:
        samples, clip = render_speech("train", index, "trained", lambda rng: utterance(rng, "train"))
        yield LabelledClip(samples, clip.text)
        index += 1


def make(encoder: Qwen2AudioEncoder, seed: int, path: Path) -> Trained:
    """Train, measure the shift, write the file."""
    trained = train(encoder, speech(seed), AlignerConfig(minutes=MINUTES, seed=seed))
    shift = measured_shift(encoder, trained.head, path, seed)
    trained.head = replace(trained.head, shift=shift)
    trained.head.save(path)
    return trained


def measured_shift(encoder: Qwen2AudioEncoder, head: AlignerHead, path: Path, seed: int) -> float:
    """Seconds that the head is late: the median over words inside of sentences, which no silence moves."""
    replace(head, shift=0.0).save(path)
    aligner, rng = Aligner(encoder, path, "nano"), np.random.default_rng(seed)
    late = list[float]()
    for number in range(SENTENCES):
        said = sentence(rng, OWN[number % len(OWN)], "dev")
        placed = aligner.words(said.samples, [word for word, _ in said.words])
        pairs = zip(placed[1:], said.words[1:], strict=True)
        late += [found.start - at for found, (_, at) in pairs if found is not None and at is not None]
    return round(float(np.median(late)), 3)
