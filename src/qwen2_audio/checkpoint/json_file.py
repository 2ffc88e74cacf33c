"""JSON files of a checkpoint: read with a clear error when damaged, written atomically."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import Qwen2AudioError, WeightsError


def read_json(path: Path, error: type[Qwen2AudioError] = WeightsError) -> dict[str, Any]:
    """The JSON object in `path`; {} when the file is missing. Raises `error` for invalid JSON or no object."""
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as reason:
        raise error(f"{path} is not valid JSON ({reason}); fetch the file again.") from None
    if not isinstance(data, dict):
        raise error(f"{path} holds a JSON {type(data).__name__}; expected an object. Fetch the file again.")
    return data


def write_json(path: Path, data: Mapping[str, Any], *, sort_keys: bool = False) -> None:
    """Write `data` as an indented JSON object. The old file is replaced in one step once the new one is complete."""
    with replacing(path) as temporary:
        text = json.dumps(data, indent=2, ensure_ascii=False, sort_keys=sort_keys)
        temporary.write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder to write to; rename it to `path` on success, delete it on failure."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
