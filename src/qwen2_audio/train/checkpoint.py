"""A run on disk: whole or not there. A run that was cut off goes on from it as if nothing had happened.

output/checkpoints/step-00000100/   state.pt (trained parameters, AdamW's moments, random states), progress.json
output/best/  output/final/         what a run gives: the adapter, or a checkpoint in the official layout
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, WeightsError
from .optim import trained

FOLDER, STATE, PROGRESS = "checkpoints", "state.pt", "progress.json"
_NAME = re.compile(r"^step-(\d{8})$")


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0  # steps done
    epoch: int = 0  # where the next micro-batch lies: epoch, and place in it
    place: int = 0
    best: float | None = None  # lowest evaluation loss
    seconds: float = 0.0  # spent in training, all sittings together


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it takes the place of `path` when all is written, or goes away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            _to_disk(file)
        _to_disk(temporary)
        if path.exists():
            old = path.with_name(f".{path.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.rename(path)
        _to_disk(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_result(path: Path, save: Callable[[Path], None]) -> None:
    """Let `save` fill the folder `path`, whole or not at all. Raises WeightsError where it cannot be written."""
    from safetensors import SafetensorError

    try:
        with whole_folder(path) as folder:
            save(folder)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"Cannot write {path}: {error}. Make room, and run the same again: it goes on.") from None


def _to_disk(path: Path) -> None:
    """Whatever the system still holds of `path` is written: a name must not outlive its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def newest(output: Path) -> Path | None:
    """The latest checkpoint in a run's folder."""
    found = [path for path in (output / FOLDER).glob("step-*") if _NAME.match(path.name)]
    return max(found, default=None, key=lambda path: path.name)


def save(
    output: Path, progress: Progress, fingerprint: dict[str, Any], model: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Write a checkpoint, then remove the older ones."""
    state = {
        "parameters": {name: p.detach() for name, p in trained(model).items()},
        "optimiser": optimiser.state_dict(),
        "random": _random_states(),
    }
    path = output / FOLDER / f"step-{progress.step:08}"
    try:
        with whole_folder(path) as folder:
            torch.save(state, folder / STATE)
            text = json.dumps({"progress": asdict(progress), "run": fingerprint}, indent=2)
            (folder / PROGRESS).write_text(text + "\n", encoding="utf-8")
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"Cannot write the checkpoint {path}: {error}. The one before it is untouched.") from None
    for old in path.parent.glob("step-*"):
        if old != path:
            shutil.rmtree(old, ignore_errors=True)


def load(path: Path, fingerprint: dict[str, Any], model: nn.Module, optimiser: torch.optim.Optimizer) -> Progress:
    """Put a run back as it was. Raises ConfigError where the run was another one, WeightsError for a broken file."""
    try:
        saved = json.loads((path / PROGRESS).read_text(encoding="utf-8"))
        check_same(path, saved["run"], fingerprint)
        state = torch.load(path / STATE, map_location="cpu", weights_only=True)
        parameters = trained(model)
        if parameters.keys() != state["parameters"].keys():
            raise KeyError("parameters")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state["parameters"][name])
        optimiser.load_state_dict(state["optimiser"])
        _restore_random_states(state["random"])
        return Progress(**saved["progress"])
    except ConfigError:
        raise
    except Exception as error:
        raise WeightsError(f"{path} is not a whole checkpoint ({error}); remove it to begin again.") from None


def check_same(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with a run under other settings. Raises ConfigError, which names the first."""
    before, now = _flat(before), _flat(json.loads(json.dumps(now)))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ConfigError(
                f"{path.parent.parent} holds a run with {key} = {before.get(key)!r}, and the config now says "
                f"{now.get(key)!r}. Give the new run another output, or set {key} back to go on with the old one."
            )


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in table.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


def _random_states() -> dict[str, Any]:
    return {"cpu": torch.get_rng_state(), "cuda": [torch.cuda.get_rng_state(i) for i in range(_gpus())]}


def _restore_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    for index, state in enumerate(states["cuda"][: _gpus()]):
        torch.cuda.set_rng_state(state, index)


def _gpus() -> int:
    return torch.cuda.device_count() if torch.cuda.is_initialized() else 0
