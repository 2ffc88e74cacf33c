"""JSONL files that a run appends to, one line at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import TrainingError


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Append a line in one write, so that several processes may. Raises TrainingError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    except OSError as error:
        raise TrainingError(
            f"Cannot write {path}: {error.strerror}. Make room, and run the same again: it goes on from its last "
            "checkpoint."
        ) from None
