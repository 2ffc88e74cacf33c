"""JSONL files that grow line by line while a run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import TrainingError


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """Add a line, in one write, so that several processes may. Raises TrainingError where there is no room for it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    except OSError as error:
        raise TrainingError(
            f"Cannot write {path}: {error.strerror}. Make room, and run the same again: it goes on from its last "
            "checkpoint."
        ) from None
