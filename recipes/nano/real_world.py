"""Recordings of real people and things to test nano with, from Debian packages: test only, never trained on.

python -m recipes.nano.real_world [FOLDER]
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qwen2_audio.audio.io import load
from qwen2_audio.errors import Qwen2AudioError
from qwen2_audio.evaluate.nano.real_world import FOLDER, MANIFEST, ROWS
from qwen2_audio.evaluate.nano.sounds.dsp import RATE

from .clips import write_wav
from .errors import RecipeError
from .qt_resources import resources

LIST = Path(__file__).with_suffix(".tsv")
LICENCES = {  # as each package's copyright file has them for most of its recordings
    "asterisk-core-sounds-en-wav": "CC-BY-SA-3.0",
    "gcompris-qt-data": "GPL-3+",
    "klettres-data": "GPL-2+",
    "ktuberling-data": "GPL-2+",
    "linphone-common": "GPL-3+",
    "minetest-data": "CC-BY-SA-3.0",
    "sonic-pi-samples": "CC0",
    "sound-icons": "GPL-2+",
    "supertux-data": "GPL-3+",
    "tuxpaint-stamps-default": "GPL-2",
    "tuxtype-data": "GPL-2",
}
PAUSES = {"joined_numbers": 0.2, "joined_words": 0.12, "sound": 0.3}  # seconds between what is joined
LONGEST = 8.0  # seconds of a recording that are heard; the samples of music go on for minutes
FLOOR_DB = -40.0  # of the peak: where what is joined begins and ends


@dataclass(frozen=True)
class Recording:
    """A line of the list: one file of a package, or several to be joined."""

    set: str
    package: str
    files: tuple[str, ...]  # under usr/share; FILE.rcc#NAME for a file in a collection of Qt resources
    truth: str  # what is said, or the kind of sound


def recordings(path: Path = LIST) -> list[Recording]:
    """The list. Raises RecipeError for a line with a set or a package that nobody knows."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file, delimiter="\t"))[1:]
    for number, line in enumerate(lines):
        if len(line) != 4 or line[0] not in ROWS or line[1] not in LICENCES:
            raise RecipeError(f"Line {number + 2} of {path} is {line}; expected a set, a package, files and the truth.")
    return [Recording(name, package, tuple(files.split(" + ")), truth) for name, package, files, truth in lines]


def download(package: str, into: Path) -> Path:
    """usr/share of the package's content, in the folder `into`. Raises RecipeError where apt-get or dpkg-deb fail."""
    home = into / package
    if not home.is_dir():
        with tempfile.TemporaryDirectory(dir=into) as scratch:
            _call(["apt-get", "download", package], Path(scratch))
            (file,) = Path(scratch).glob("*.deb")
            _call(["dpkg-deb", "-x", file.name, "content"], Path(scratch))
            (Path(scratch) / "content").rename(home)
    return home / "usr" / "share"


def _call(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise RecipeError(f"{command[0]} cannot be found; the recordings come from Debian's packages.") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RecipeError(f"`{' '.join(command)}` failed: {reason}. Is the package in apt's sources (apt-get update)?")


def read(share: Path, name: str) -> np.ndarray:
    """One file: float32 [n] at 16 kHz. Raises RecipeError where the package has no such file."""
    if "#" not in name:
        path = share / name
        if not path.is_file():
            raise RecipeError(f"{path} is missing; the package has another version than the list was made for.")
        return load(path)
    collection, inside = name.split("#", 1)
    path = share / "gcompris-qt" / "rcc" / collection
    if not path.is_file():
        raise RecipeError(f"{path} is missing; the package has another version than the list was made for.")
    for found, content in resources(path):
        if found == inside:
            return load(content)
    raise RecipeError(f"{path} holds no {inside}; the package has another version than the list was made for.")


def joined(pieces: Sequence[np.ndarray], pause: float) -> np.ndarray:
    """The pieces, each cut to what is above `FLOOR_DB` of its peak, with `pause` seconds of silence between them."""
    out = list[np.ndarray]()
    for piece in pieces:
        loud = np.flatnonzero(np.abs(piece) > np.abs(piece).max(initial=0) * 10 ** (FLOOR_DB / 20))
        out += [piece[loud[0] : loud[-1] + 1] if len(loud) else piece, np.zeros(round(pause * RATE), np.float32)]
    return np.concatenate(out[:-1])


def build(folder: Path, wanted: Sequence[Recording]) -> Iterator[dict[str, str]]:
    """Write clips/NNN.wav for each recording into `folder`; an entry of the manifest each."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    packages = folder / "packages"
    packages.mkdir(exist_ok=True)
    for number, one in enumerate(wanted):
        share = download(one.package, packages)
        pieces = [read(share, name) for name in one.files]
        wave = joined(pieces, PAUSES[one.set]) if len(pieces) > 1 else pieces[0]
        path = f"clips/{number:03}.wav"
        write_wav(wave[: int(LONGEST * RATE)], folder / path)
        about = {"package": one.package, "licence": LICENCES[one.package], "files": " + ".join(one.files)}
        yield {"path": path, "set": one.set, "truth": one.truth, **about}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.nano.real_world", description="Fetch recordings to test nano with. Some 550 MB."
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=FOLDER, help="where they go; runs/nano/real unless told"
    )
    folder = parser.parse_args().folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        entries = list(build(folder.resolve(), recordings()))
    except Qwen2AudioError as error:
        print(error, file=sys.stderr)
        return 2
    # Written last, and at once: a folder without it is made anew.
    part = folder / f"{MANIFEST}.part"
    part.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    part.rename(folder / MANIFEST)
    print(f"{folder / MANIFEST}: {len(entries)} recordings.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
