"""The picture: a PNG of the right kind, and what is said without matplotlib."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from qwen2_audio.audio.mel import log_mel
from qwen2_audio.audio.spectrogram import save_png
from qwen2_audio.errors import AudioError, ConfigError


@pytest.fixture
def mel() -> np.ndarray:
    return log_mel(np.random.default_rng(0).normal(size=8000).astype(np.float32) * 0.1)


def test_png_is_written(mel: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "a.png"
    save_png(mel, path, seconds=0.5, title="a clip")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_without_matplotlib_it_says_what_to_install(
    mel: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install qwen2-audio\[plot\]"):
        save_png(mel, tmp_path / "a.png", seconds=0.5, title="")


@pytest.mark.parametrize("seconds", [0, -1, 99, float("nan")])
def test_seconds_must_fit_the_frames(mel: np.ndarray, tmp_path: Path, seconds: float) -> None:
    with pytest.raises(AudioError, match=r"shape \(128, 52\) .* 100 frames for every second"):
        save_png(mel, tmp_path / "a.png", seconds=seconds, title="")


def test_a_folder_that_is_not_there(mel: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(AudioError, match=r"a\.png could not be written: No such file"):
        save_png(mel, tmp_path / "none" / "a.png", seconds=0.5, title="")
