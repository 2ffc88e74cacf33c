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

from ..checkpoint.json_file import write_json
from ..distributed.process_group import Processes, full_tensor, shard_like
from ..errors import ConfigError, WeightsError
from .config import RENAMED_KEYS, DataConfig, TrainConfig
from .optim import trained

Save = Callable[[Path], None]
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


def write_result(path: Path, save: Save, processes: Processes = Processes()) -> None:  # noqa: B008 - it cannot change
    """Let `save` fill the folder `path`, whole or not at all; all processes, of which the first one writes.

    Raises WeightsError where it cannot be written.
    """
    from safetensors import SafetensorError

    if not processes.first:
        save(path)  # gives its share to the first one
        return
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


def check_seen_by_all(found: Path | None, output: Path, processes: Processes) -> None:
    """All processes must go on from the same checkpoint. Raises ConfigError."""
    if len(set(processes.gather(None if found is None else found.name))) > 1:
        raise ConfigError(
            f"The processes do not all see the same checkpoints in {output}; put it on a disk that they share."
        )


def save(
    output: Path,
    progress: Progress,
    fingerprint: dict[str, Any],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    processes: Processes,
) -> None:
    """Write a checkpoint, then remove the older ones; all processes, of which the first one writes.

    It holds whole tensors: a run may go on with another number of processes.
    """
    state = {
        "parameters": {name: _kept(p, processes) for name, p in trained(model).items()},
        "optimiser": _each_tensor(optimiser.state_dict(), lambda tensor, _: _kept(tensor, processes)),
        "random": processes.gather(_random_states()),
    }
    if not processes.first:
        return
    path = output / FOLDER / f"step-{progress.step:08}"
    try:
        with whole_folder(path) as folder:
            torch.save(state, folder / STATE)
            write_json(folder / PROGRESS, {"progress": asdict(progress), "run": fingerprint})
    except (OSError, RuntimeError) as error:
        raise WeightsError(f"Cannot write the checkpoint {path}: {error}. The one before it is untouched.") from None
    for old in path.parent.glob("step-*"):
        if old != path:
            shutil.rmtree(old, ignore_errors=True)


def _kept(tensor: torch.Tensor, processes: Processes) -> torch.Tensor | None:
    """The whole tensor in the process that writes; the others only have their part in gathering it."""
    entire = full_tensor(tensor)
    return entire if processes.first else None


def _each_tensor(state: dict[str, Any], change: Callable[[torch.Tensor, int], Any]) -> dict[str, Any]:
    """An optimiser's state with `change(tensor, number of its parameter)` in place of every tensor."""
    values = {
        number: {name: change(v, number) if isinstance(v, torch.Tensor) else v for name, v in entry.items()}
        for number, entry in state["state"].items()
    }
    return {**state, "state": values}


def load(
    path: Path, fingerprint: dict[str, Any], model: nn.Module, optimiser: torch.optim.Optimizer, processes: Processes
) -> Progress:
    """Put a run back as it was. Raises ConfigError where the run was another one, WeightsError for a broken file."""
    try:
        saved = json.loads((path / PROGRESS).read_text(encoding="utf-8"))
        check_same(path, saved["run"], fingerprint)
        state = torch.load(path / STATE, map_location="cpu", weights_only=True, mmap=processes.size > 1)
        parameters = trained(model)
        check_shapes(path, {name: list(t.shape) for name, t in state["parameters"].items()}, parameters)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(shard_like(state["parameters"][name], parameter))
        owners = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        optimiser.load_state_dict(_each_tensor(state["optimiser"], lambda t, n: shard_like(t, owners[n])))
        _restore_random_states(state["random"], processes)
        return Progress(**saved["progress"])
    except ConfigError:
        raise
    except Exception as error:
        raise WeightsError(f"{path} is not a whole checkpoint ({error}); remove it to begin again.") from None


def check_shapes(path: Path, saved: dict[str, list[int]], parameters: dict[str, nn.Parameter]) -> None:
    """A checkpoint of another model than the config names, in a folder filled anew. Raises ConfigError."""
    here = {name: list(parameter.shape) for name, parameter in parameters.items()}
    for name in sorted(saved.keys() | here.keys()):
        if saved.get(name) != here.get(name):
            raise ConfigError(
                f"{path} holds {name} as {saved.get(name, 'no such tensor')}, and the model that is trained has "
                f"{here.get(name, 'no such tensor')}: it is of another shape. Name the model the run began with, or "
                "give the new run another output."
            )


def check_same(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with a run under other settings. Raises ConfigError, which names the first."""
    usual = asdict(TrainConfig(DataConfig(train=""), output=""))  # of keys that came after the run began
    before, now, usual = _flat(before), *(_flat(json.loads(json.dumps(table))) for table in (now, usual))
    before = {RENAMED_KEYS.get(key, key): value for key, value in before.items()}
    for key in sorted(before.keys() | now.keys()):
        old, new = (table.get(key, usual.get(key)) for table in (before, now))
        if old != new:
            raise ConfigError(
                f"{path.parent.parent} holds a run with {key} = {old!r}, and the config now says {new!r}. Give the new "
                f"run another output, or set {key} back to go on with the old one."
            )


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in table.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


def _random_states() -> dict[str, Any]:
    return {"cpu": torch.get_rng_state(), "cuda": [torch.cuda.get_rng_state(i) for i in range(_gpus())]}


def _restore_random_states(states: Any, processes: Processes) -> None:
    """`states`: of each process. One that was not there before draws what it would at the beginning."""
    if isinstance(states, dict):  # a run that began before there were several
        states = [states]
    if processes.rank >= len(states):
        return
    mine = states[processes.rank]
    torch.set_rng_state(mine["cpu"])
    for index, state in enumerate(mine["cuda"][: _gpus()]):
        torch.cuda.set_rng_state(state, index)


def _gpus() -> int:
    return torch.cuda.device_count() if torch.cuda.is_initialized() else 0
