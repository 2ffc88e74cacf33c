"""A run's folder: run.json says whose answers it holds, manifest.jsonl of which rows, speed.json how fast."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..datasets.line_log import json_line, replace_file
from ..errors import EvaluationError
from .example import Prediction
from .predictions import Row, read_predictions, to_line

RUN, MANIFEST, PREDICTIONS, SPEED = "run.json", "manifest.jsonl", "predictions.jsonl", "speed.json"
CHECKS = "checks.json"  # by task: what the deaf check measured, what differs from the official run
SHARD = "shard-{}-of-{}"
OVER_LONG = "first 30 s"  # what is heard of a longer clip, as in the official run


@dataclass(frozen=True)
class Identity:
    """Whose answers a folder holds.

    `model` is for people, `fingerprint` tells weights apart; `tasks` by id, in the order in which they were first run,
    with what decides an answer beside the row itself.
    """

    model: str
    fingerprint: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shard: tuple[int, int] | None = None  # number, from 1, and how many
    data: Mapping[str, str] = field(default_factory=dict)  # where each task's rows were; decides nothing

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "fingerprint": self.fingerprint,
            "settings": dict(self.settings),
            "tasks": {name: dict(task) for name, task in self.tasks.items()},
            "shard": list(self.shard) if self.shard else None,
            "data": dict(self.data),
        }


def read_identity(folder: Path) -> Identity:
    """Raises EvaluationError where the folder holds no run."""
    path = folder / RUN
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        shard = data.get("shard")
        return Identity(
            data["model"], data["fingerprint"], data["settings"], data["tasks"], tuple(shard) if shard else None,
            data.get("data", {}),
        )  # fmt: skip
    except FileNotFoundError as error:
        raise EvaluationError(
            f"{folder} holds no run (no {RUN}); expected the folder that was given to `qwen2-audio eval run --out`."
        ) from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise EvaluationError(f"{path} cannot be read ({error}); take another folder for a new run.") from error


def enter(folder: Path, identity: Identity) -> Identity:
    """Make the folder a run's, or find that it is. Returns the identity with the tasks that are there already first.

    Raises EvaluationError where it holds another model's answers, or answers to a task asked otherwise.
    """
    _keep_apart(folder, identity)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(f"{folder} cannot be made: {error.strerror}; name another folder.") from error
    found = None
    if (folder / RUN).exists():
        found = read_identity(folder)
        _check_same(folder, found, identity)
    elif (folder / PREDICTIONS).exists():
        raise EvaluationError(f"{folder} has {PREDICTIONS} but no {RUN} to say whose they are; name another folder.")
    merged = identity
    if found is not None:
        merged = replace(identity, tasks={**found.tasks, **identity.tasks}, data={**found.data, **identity.data})
    write_json(folder / RUN, merged.to_json())
    return merged


def _keep_apart(folder: Path, identity: Identity) -> None:
    """Shards are put together into their parent's files: a whole run's answers there would be lost."""
    whole = folder if identity.shard is None else folder.parent
    has_shards = any(whole.glob(SHARD.format("*", "*")))
    if identity.shard is None and has_shards:
        raise EvaluationError(f"{whole} holds shards of a run; give --shard as they had, or name another folder.")
    if identity.shard is not None and not has_shards and (whole / PREDICTIONS).exists():
        raise EvaluationError(f"{whole} holds a whole run; leave --shard out, or name another folder.")


def _check_same(folder: Path, found: Identity, asked: Identity) -> None:
    if found.fingerprint != asked.fingerprint or dict(found.settings) != dict(asked.settings):
        raise EvaluationError(
            f"{folder} holds answers of {_described(found)}, and this run asks {_described(asked)}; "
            "name another folder with --out."
        )
    if found.shard != asked.shard:
        raise EvaluationError(
            f"{folder} holds shard {found.shard}, and this run is {asked.shard}; name another folder."
        )
    for name, task in asked.tasks.items():
        before = found.tasks.get(name)
        if before is None or dict(before) == dict(task):
            continue
        key = next(key for key in (*task, *before) if before.get(key) != task.get(key))
        raise EvaluationError(
            f"{folder} holds answers to {name} with {key} {before.get(key)!r}, and this run asks with "
            f"{task.get(key)!r}; name another folder with --out."
        )


def _described(identity: Identity) -> str:
    settings = ", ".join(str(value) for value in identity.settings.values())
    return f"{identity.model} ({identity.fingerprint}{', ' if settings else ''}{settings})"


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, whole or not at all. Raises EvaluationError where there is no room."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"
    replace_file(path, text.encode("utf-8", "backslashreplace"), "the answers before it are kept")


def read_json(path: Path, default: Any) -> Any:
    """The value of a JSON file, `default` where there is none. Raises EvaluationError for one that cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except (ValueError, OSError) as error:
        raise EvaluationError(f"{path} cannot be read ({error}); delete it, and it is made again.") from error


def read_manifest(folder: Path) -> dict[Row, dict[str, Any]]:
    """The rows of a folder's manifest by task and id, empty where there is none."""
    path = folder / MANIFEST
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {(row["task"], row["id"]): row for row in rows}


def order_of(tasks: Mapping[str, Any], rows: Mapping[Row, Mapping[str, Any]]) -> dict[Row, tuple[int, int]]:
    """Where each row stands: by task, in the order of run.json, then as in the task's data."""
    place = {name: number for number, name in enumerate(tasks)}
    return {row: (place.get(row[0], len(place)), about["index"]) for row, about in rows.items()}


def write_manifest(folder: Path, tasks: Mapping[str, Any], rows: Mapping[Row, Mapping[str, Any]]) -> None:
    order = order_of(tasks, rows)
    lines = [json_line(rows[row]) for row in sorted(rows, key=lambda row: order[row])]
    replace_file(folder / MANIFEST, b"".join(lines), "the answers are kept")


def shard_folder(folder: Path, shard: tuple[int, int] | None) -> Path:
    return folder if shard is None else folder / SHARD.format(*shard)


def merge_shards(folder: Path) -> bool:
    """Make one run of the shards in `folder`, with the bytes that a run in one go would have written.

    Returns whether there are shards. Raises EvaluationError where one is missing, unfinished, or of another run.
    """
    shards = sorted(folder.glob(SHARD.format("*", "*")))
    if not shards:
        return False
    found = [(read_identity(shard), shard) for shard in shards]
    first, _ = found[0]
    assert first.shard is not None
    total = first.shard[1]
    numbers = sorted(identity.shard[0] for identity, _ in found if identity.shard)
    if numbers != list(range(1, total + 1)):
        missing = sorted(set(range(1, total + 1)) - set(numbers))
        what = (
            f"shard {missing[0]} of {total} is missing"
            if missing
            else f"there are shards of other divisions than {total}"
        )
        raise EvaluationError(f"{folder}: {what}; run it with --shard, or take the odd folder out.")
    rows: dict[Row, dict[str, Any]] = {}
    predictions: dict[Row, Prediction] = {}
    for identity, shard in found:
        same = (identity.fingerprint, dict(identity.settings), dict(identity.tasks))
        if same != (first.fingerprint, dict(first.settings), dict(first.tasks)):
            raise EvaluationError(
                f"{shard} is of another run than {shards[0]}: another model, or other tasks or options."
            )
        if not (shard / MANIFEST).exists():
            raise EvaluationError(f"{shard} is not finished; run the same command again to go on with it.")
        rows |= read_manifest(shard)
        predictions |= {(p.task, p.id): p for p in read_predictions(shard / PREDICTIONS)}
    order = order_of(first.tasks, rows)
    lines = [to_line(predictions[row]) for row in sorted(order, key=lambda row: order[row]) if row in predictions]
    replace_file(folder / PREDICTIONS, b"".join(lines), "the shards are kept")
    write_manifest(folder, first.tasks, rows)
    write_json(folder / RUN, replace(first, shard=None).to_json())
    write_json(folder / SPEED, [session for _, shard in found for session in read_json(shard / SPEED, [])])
    write_json(
        folder / CHECKS, {name: check for _, shard in found for name, check in read_json(shard / CHECKS, {}).items()}
    )
    return True
