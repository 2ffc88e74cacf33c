"""What tells one checkpoint, or one list of clips, from another: a short hash that does not read 17 GB."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WHOLE = 64 << 20  # bytes; of larger weight files a sample is hashed, with their table of tensors
SAMPLES, SAMPLE = 64, 64 << 10


def weights_fingerprint(folders: list[Path], settings: Mapping[str, Any]) -> str:
    """12 hex digits of what decides a model's answers: its files, and `settings`.

    Small files are hashed whole; of a large weight file its beginning, with the table of tensors, its size, and 64
    samples of 64 kB, so that 17 GB take no minute.
    """
    total = hashlib.sha1(json.dumps(dict(settings), sort_keys=True).encode())
    for folder in folders:
        for path in sorted(Path(folder).iterdir()):
            if path.is_file() and path.suffix in (".json", ".safetensors", ".jinja", ".txt", ".bin"):
                total.update(path.name.encode())
                total.update(file_hash(path))
    return total.hexdigest()[:12]


def file_hash(path: Path) -> bytes:
    """sha1 of a file, or of a large one's size and samples."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE:
            return hashlib.file_digest(file, "sha1").digest()
        digest = hashlib.sha1(str(size).encode())
        digest.update(file.read(1 << 20))
        for number in range(SAMPLES):
            file.seek((size - SAMPLE) * number // (SAMPLES - 1))
            digest.update(file.read(SAMPLE))
        return digest.digest()
