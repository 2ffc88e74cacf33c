"""The clips of a split, made once by several processes: WAV files for the trainer, log-mels for the first stage."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from qwen2_audio.audio.mel import log_mel, num_audio_tokens, num_frames
from qwen2_audio.evaluate.nano.mix import Clip, Samples
from qwen2_audio.evaluate.nano.scene import render
from qwen2_audio.evaluate.nano.sounds.dsp import RATE

MEL_BINS = 128
CHUNK = 50  # clips handed to a process at a time: one round of `scene.TURNS`
FOLDER = 1000  # WAV files in a folder
Maker = Callable[[int], tuple[Samples, Clip]]  # of clip i, in a process of its own


@dataclass(frozen=True)
class Entry:
    """Where a clip's log-mel lies in the file, and what is known about the clip."""

    clip: Clip
    start: int  # row of mel.f16
    rows: int  # mel frames stored: the valid ones and the context of the convolutions
    frames: int  # valid mel frames

    @property
    def tokens(self) -> int:
        return num_audio_tokens(self.frames)


class Library:
    """All clips of one split. `mel(i)` is float32 [128, rows]."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rows = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self.entries = [Entry(Clip(**row.pop("clip")), **row) for row in rows]
        self._mel = np.memmap(folder / "mel.f16", dtype=np.float16, mode="r").reshape(-1, MEL_BINS)

    def __len__(self) -> int:
        return len(self.entries)

    def mel(self, i: int) -> np.ndarray:
        entry = self.entries[i]
        return self._mel[entry.start : entry.start + entry.rows].T.astype(np.float32)

    def wav(self, i: int) -> Path:
        return wav_path(self.folder, i)


class Shelf(Library):
    """Several libraries as one, their clips in a row."""

    def __init__(self, *libraries: Library) -> None:
        self._places = [(library, i) for library in libraries for i in range(len(library))]
        self.entries = [entry for library in libraries for entry in library.entries]

    def mel(self, i: int) -> np.ndarray:
        library, place = self._places[i]
        return library.mel(place)

    def wav(self, i: int) -> Path:
        library, place = self._places[i]
        return library.wav(place)


def wav_path(folder: Path, i: int) -> Path:
    return folder / "wav" / f"{i // FOLDER:03}" / f"{i:06}.wav"


def open_library(
    split: str, count: int, folder: Path, workers: int = 2, maker: Maker | None = None, name: str = ""
) -> Library:
    """The library of clips 0..count-1 of `split` under `folder`, made first if it is not there yet.

    `maker` makes clip i, `render` unless given; its libraries have a `name` of their own.
    """
    home = folder / f"{name or split}-{count}"
    if not (home / "index.json").is_file():
        home.mkdir(parents=True, exist_ok=True)
        _make(maker or partial(render, split), count, home, workers)
    return Library(home)


def write_wav(samples: np.ndarray, path: Path) -> None:
    """float [n] within -1..1 -> 16-bit PCM, mono, 16 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())


def _make(maker: Maker, count: int, home: Path, workers: int) -> None:
    from rich.progress import track

    for number in range(0, count, FOLDER):
        wav_path(home, number).parent.mkdir(parents=True, exist_ok=True)
    index, start = [], 0
    with (home / "mel.f16").open("wb") as file:
        for clip, mel, frames in track(_rendered(maker, count, home, workers), f"clips, {home.name}", total=count):
            file.write(np.ascontiguousarray(mel.T).tobytes())
            index.append({"clip": asdict(clip), "start": start, "rows": mel.shape[1], "frames": frames})
            start += mel.shape[1]
    # Written last, and at once: a folder without it is made anew.
    part = home / "index.json.part"
    part.write_text(json.dumps(index), encoding="utf-8")
    part.rename(home / "index.json")


def _rendered(maker: Maker, count: int, home: Path, workers: int) -> Iterator[tuple[Clip, np.ndarray, int]]:
    """Clips in order: what each is, its log-mel float16 [128, rows], its valid frames."""
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    with ProcessPoolExecutor(workers) as pool:
        for done in pool.map(partial(_render_chunk, maker, home), chunks):
            yield from done


def _render_chunk(maker: Maker, home: Path, indices: range) -> list[tuple[Clip, np.ndarray, int]]:
    done = []
    for i in indices:
        samples, clip = maker(i)
        write_wav(samples, wav_path(home, i))
        done.append((clip, log_mel(samples).astype(np.float16), num_frames(len(samples))))
    return done
