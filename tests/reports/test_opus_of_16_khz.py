"""docs/parity.md's figures for opus: 1e-6 of 48 kHz originals; librosa decodes those of 16 kHz at 16 kHz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qwen2_audio.audio import load
from qwen2_audio.checkpoint.locate import nano_path

librosa = pytest.importorskip("librosa")
sf = pytest.importorskip("soundfile")

CLIPS = sorted((nano_path() / "clips").glob("*.wav"))
LARGEST = 0.35  # of full scale: the largest difference of a sample, as docs/parity.md says
LOUDEST = -16.5  # dB: the loudest difference against the clip, as docs/parity.md says


def difference(clip: Path, rate: int, path: Path) -> tuple[float, float]:
    """The largest difference of a sample, and that of the whole in dB below the clip."""
    sf.write(path, librosa.load(clip, sr=rate)[0], rate, format="OGG", subtype="OPUS")
    ours, theirs = load(path), librosa.load(path, sr=16_000)[0]
    assert ours.shape == theirs.shape
    error = ours - theirs
    return float(np.abs(error).max()), float(10 * np.log10(np.sum(error**2) / np.sum(theirs**2)))


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.stem)
def test_opus_of_16_khz_differs_by_what_the_page_says(tmp_path: Path, clip: Path) -> None:
    largest, loudest = difference(clip, 16_000, tmp_path / "a.opus")
    assert largest < LARGEST
    assert loudest < LOUDEST


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.stem)
def test_opus_of_48_khz_is_librosas(tmp_path: Path, clip: Path) -> None:
    assert difference(clip, 48_000, tmp_path / "a.opus")[0] < 1e-6
