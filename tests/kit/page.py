"""What the tests of the page share: a server, a voice, and how one asks and reads."""

from __future__ import annotations

import shutil
import time
import wave
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from kit.live_server import live
from qwen2_audio.serve.run import Address
from qwen2_audio.serve.settings import Settings

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET, VOICE = 1.2, 1.6  # s: what the microphone hears is QUIET, VOICE, QUIET, and so on
DONE = "article.answered:nth-last-of-type(1)[data-state=done]"


@contextmanager
def serving(backend, settings: Settings | None = None, port: int = 0, words=None):
    """The address of the real application around `backend`. `words`: the checkpoint's Capabilities."""
    with live(backend, settings or Settings(grace=0.2), Address(port=port), words) as running:
        yield f"{running.url}/"


def voice(seconds: float, rate: int) -> np.ndarray:
    """Something like four syllables a second of a low voice, float64 [seconds * rate]."""
    time_ = np.arange(round(seconds * rate)) / rate
    pitch = 120 + 15 * np.sin(2 * np.pi * 1.3 * time_)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tones = sum(np.sin(k * phase) * np.exp(-(((k * 120 - 600) / 700) ** 2)) for k in range(1, 30))
    return 0.05 * tones * (0.25 + 0.75 * np.abs(np.sin(2 * np.pi * 2 * time_)))


def ask(page, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def answer(page) -> str:
    page.wait_for_selector(DONE)
    return page.inner_text(f"{DONE} .answer").strip()


def numbers(page) -> str:
    """What the last answer's Details say."""
    page.wait_for_selector(DONE)
    return page.text_content(f"{DONE} details p")


def until(true, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def wav_of(path: Path, samples: np.ndarray, rate: int) -> Path:
    """Writes float samples as 16-bit mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path
