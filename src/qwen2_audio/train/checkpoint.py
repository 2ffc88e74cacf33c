"""A run on disk, written completely or not at all. A run that was killed goes on from it with the same results.

output/checkpoints/step-00000100/   state.pt (AdamW's moments, random states), progress.json, and a result as below;
                                 with LoRA the trained parameters are in state.pt too
output/best/  output/final/         the result of a run: the adapter, or a checkpoint in the official layout
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
from typing import Any, Self

import torch
from torch import nn

from ..checkpoint.json_file import write_json
from ..checkpoint.weights import Checkpoint
from ..distributed.process_group import Processes, full_tensor, shard_like
from ..errors import ConfigError, WeightsError
from .config import RENAMED_KEYS, DataConfig, TrainConfig
from .optim import trained

Save = Callable[[Path], None]
FOLDER, STATE, PROGRESS = "checkpoints", "state.pt", "progress.json"
DATA_DIGEST = "data_digest"  # in a run's identity: the content of data.train; runs of versions before 0.2 have none
_NAME = re.compile(r"^step-(\d{8})$")


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0  # steps done
    epoch: int = 0  # of the next micro-batch
    batch: int = 0  # the next micro-batch's number in that epoch, from 0
    best: float | None = None  # lowest evaluation loss
    seconds: float = 0.0  # of training, added up over every start of the run

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        """What a checkpoint's progress.json holds; until version 0.2, `batch` was called `place`."""
        return cls(**{"batch" if name == "place" else name: value for name, value in saved.items()})


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to fill; it replaces `path` when it is written to disk, and is removed after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
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
    """Let `save` fill the folder `path`, completely or not at all. All processes call it; the first one writes.

    Raises WeightsError where the folder cannot be written.
    """
    from safetensors import SafetensorError

    if not processes.first:
        save(path)  # sends its shards to the first process
        return
    try:
        with whole_folder(path) as folder:
            save(folder)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"Cannot write {path}: {error}. Make room, and run the same again: it goes on.") from None


def _to_disk(path: Path) -> None:
    """fsync of a file or folder: after a power cut no name may exist without its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def newest(output: Path) -> Path | None:
    """The latest checkpoint in a run's folder, or None."""
    checkpoints = [path for path in (output / FOLDER).glob("step-*") if _NAME.match(path.name)]
    return max(checkpoints, default=None, key=lambda path: path.name)


def check_seen_by_all(newest: Path | None, output: Path, processes: Processes) -> None:
    """Raises ConfigError where the processes do not all see the same newest checkpoint."""
    if len(set(processes.gather(None if newest is None else newest.name))) > 1:
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
    save_result: Save,
    *,
    adapter: bool,
) -> None:
    """Write a checkpoint, then remove the older ones. All processes call it; the first one writes.

    save_result writes the adapter, or else the model in float32, into the same folder, so that an interrupted run has
    one to load; `load` reads the parameters of the latter again, instead of a second copy of them.
    It holds unsharded tensors, so that a run may go on with another number of processes. Raises WeightsError.
    """
    from safetensors import SafetensorError

    state = {
        "parameters": {name: _kept(p, processes) for name, p in trained(model).items()} if adapter else None,
        "optimiser": _each_tensor(optimiser.state_dict(), lambda tensor, _: _kept(tensor, processes)),
        "random": processes.gather(_random_states()),
    }
    path = output / FOLDER / f"step-{progress.step:08}"
    if not processes.first:
        save_result(path)  # sends its shards to the first process
        return
    try:
        with whole_folder(path) as folder:
            save_result(folder)
            torch.save(state, folder / STATE)
            write_json(folder / PROGRESS, {"progress": asdict(progress), "run": fingerprint})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"Cannot write the checkpoint {path}: {error}. The one before it is untouched.") from None
    for old in path.parent.glob("step-*"):
        if old != path:
            shutil.rmtree(old, ignore_errors=True)


def _kept(tensor: torch.Tensor, processes: Processes) -> torch.Tensor | None:
    """The unsharded tensor in the process that writes, else None; every process takes part in gathering it."""
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
    """Restore model, optimiser and random states, and return the progress.

    Raises ConfigError where the checkpoint is of another run, WeightsError where it is damaged.
    """
    try:
        saved = json.loads((path / PROGRESS).read_text(encoding="utf-8"))
        check_same(path, saved["run"], fingerprint)
        state = torch.load(path / STATE, map_location="cpu", weights_only=True, mmap=processes.size > 1)
        parameters, saved_parameters = trained(model), state["parameters"]
        if saved_parameters is None:
            stored = Checkpoint.open(path)
            saved_parameters = {name: stored.read(name) for name in parameters.keys() & stored.stored.keys()}
        check_shapes(path, {name: list(t.shape) for name, t in saved_parameters.items()}, parameters)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(shard_like(saved_parameters[name], parameter))
        owners = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        optimiser.load_state_dict(_each_tensor(state["optimiser"], lambda t, n: shard_like(t, owners[n])))
        _restore_random_states(state["random"], processes)
        return Progress.from_saved(saved["progress"])
    except ConfigError:
        raise
    except Exception as error:
        raise WeightsError(f"{path} is not a whole checkpoint ({error}); remove it to begin again.") from None


def check_shapes(path: Path, saved: dict[str, list[int]], parameters: dict[str, nn.Parameter]) -> None:
    """Raises ConfigError where a checkpoint's parameters (name -> shape) are not those of the model that is trained."""
    here = {name: list(parameter.shape) for name, parameter in parameters.items()}
    for name in sorted(saved.keys() | here.keys()):
        if saved.get(name) != here.get(name):
            raise ConfigError(
                f"{path} holds {name} as {saved.get(name, 'no such tensor')}, and the model that is trained has "
                f"{here.get(name, 'no such tensor')}: it is of another shape. Name the model the run began with, or "
                "give the new run another output."
            )


def check_same(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises ConfigError where settings differ from those a run began with; it names the first that does."""
    defaults = asdict(TrainConfig(DataConfig(train=""), output=""))  # for keys that are newer than the run
    before, now, defaults = _flat(before), *(_flat(json.loads(json.dumps(table))) for table in (now, defaults))
    before = {RENAMED_KEYS.get(key, key): value for key, value in before.items()}
    folder = path.parent.parent
    if before.get("kind") != now.get("kind"):
        raise ConfigError(
            f"{folder} holds a run of train {before.get('kind')}, and this is train {now.get('kind')}. Give the new "
            f"run another output, or go on with the old one by train {before.get('kind')}."
        )
    before.setdefault(DATA_DIGEST, now.get(DATA_DIGEST))
    other = any(before.get(key) != now.get(key) for key in (DATA_DIGEST, "rows"))
    if other and before.get("data.train") == now.get("data.train"):
        raise ConfigError(
            f"{folder} holds a run on other data: {now.get('data.train')} was changed since (it had "
            f"{before.get('rows')} rows, and has {now.get('rows')}). Give the new run another output, or put the old "
            "data back to go on with the old one."
        )
    for key in sorted(before.keys() | now.keys()):
        old, new = (table.get(key, defaults.get(key)) for table in (before, now))
        if old != new:
            raise ConfigError(
                f"{folder} holds a run with {key} = {old!r}, and the config now says {new!r}. Give the new "
                f"run another output, or set {key} back to go on with the old one."
            )


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with keys such as "data.augment.speed"."""
    out: dict[str, Any] = {}
    for key, value in table.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


def _random_states() -> dict[str, Any]:
    return {"cpu": torch.get_rng_state(), "cuda": [torch.cuda.get_rng_state(i) for i in range(_gpus())]}


def _restore_random_states(states: Any, processes: Processes) -> None:
    """`states`: of each process that saved. A process that is new keeps the state of its seed."""
    if isinstance(states, dict):  # written before a run could have several processes
        states = [states]
    if processes.rank >= len(states):
        return
    own = states[processes.rank]
    torch.set_rng_state(own["cpu"])
    for index, state in enumerate(own["cuda"][: _gpus()]):
        torch.cuda.set_rng_state(state, index)


def _gpus() -> int:
    return torch.cuda.device_count() if torch.cuda.is_initialized() else 0
