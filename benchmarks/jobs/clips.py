"""Short clips for a job over a corpus, each another one: tones in noise, 16-bit WAV, in tar shards or as samples."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qwen2_audio.evaluate.clips import wav_bytes

RATE = 16_000
SHARD = 2_500  # clips
SECONDS = (0.5, 1.5)


def samples_of(number: int) -> np.ndarray:
    """float32 [S], the same for the same number, half a second to one and a half."""
    rng = np.random.default_rng(number)
    count = int(RATE * rng.uniform(*SECONDS))
    time = np.arange(count) / RATE
    tone = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 3000) * time + rng.uniform(0, 6))
    return (tone + 0.02 * rng.normal(size=count)).astype(np.float32)


def write_shards(folder: Path, count: int) -> Path:
    """Tar shards of `count` clips. Returns a pattern that matches them."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, count, SHARD):
        with tarfile.open(folder / f"clips-{first // SHARD:04}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for number in range(first, min(first + SHARD, count)):
                for name, data in _members(number):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    return folder / "clips-*.tar"


def _members(number: int) -> Iterator[tuple[str, bytes]]:
    yield f"{number:06}.wav", wav_bytes(samples_of(number))
    yield f"{number:06}.json", json.dumps({"number": number}).encode()
