"""Write the example clips: renderings of the test split, as 16-bit mono WAV at 16 kHz.

python -m recipes.nano.examples
"""

from __future__ import annotations

import argparse
import sys
import wave
from pathlib import Path

import numpy as np

from .mix import render_clip
from .sounds.dsp import RATE

EXAMPLES = ("dog", "cat", "glass", "rain", "bell", "siren", "knocking", "piano")
LONGEST = 3.0  # seconds: 96 kB


def first_short(kind: str) -> np.ndarray:
    """The first test clip of `kind` that is short enough, and loud enough to be heard on a small speaker."""
    for index in range(1000):
        samples, clip = render_clip("test", index, kind)
        if 1.5 <= clip.seconds <= LONGEST and clip.level_db > -26:
            return samples
    raise LookupError(f"None of the first 1000 test clips of {kind!r} is short and loud enough.")


def write_wav(samples: np.ndarray, path: Path) -> None:
    """float [n] within -1..1 -> 16-bit PCM."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())


def main() -> int:
    parser = argparse.ArgumentParser(description="Write example clips that nano was not trained on.")
    parser.add_argument("--out", type=Path, default=Path("src/qwen2_audio/nano/clips"))
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for kind in EXAMPLES:
        write_wav(first_short(kind), folder / f"{kind}.wav")
        print(folder / f"{kind}.wav")
    return 0


if __name__ == "__main__":
    sys.exit(main())
