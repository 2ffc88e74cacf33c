"""What job.json says: which clips were asked what, of which model. Another job is refused in a folder that has one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint.fingerprint import WHOLE, file_hash
from ..datasets.corpus import Corpus
from ..datasets.line_log import replace_file
from ..datasets.remote import RemoteFile
from ..errors import JobError
from .config import JobConfig
from .folder import JOB
from .operations import decisive
from .runner import About

_IN_WORDS = {
    "clips": "other clips", "rows_per_part": "parts of another size", "format": "another format",
    "limit": "another limit",
}  # fmt: skip

_SHARDS = ("tar", "parquet", "arrow")  # too large to be read for this


def manifest_fingerprint(corpus: Corpus) -> str:
    """12 hex digits of a list of clips: the content of lists and tables; of tar and Parquet shards their names and
    sizes; of a folder of sounds their names, so that a sound may be repaired and its row asked again."""
    digest = hashlib.sha1(corpus.form.encode())
    for file in corpus.files:
        digest.update(f"\n{file.name}\t".encode("utf-8", "surrogateescape"))
        if corpus.form == "sounds":
            digest.update(str(file).encode("utf-8", "surrogateescape"))
        elif isinstance(file, RemoteFile):
            digest.update(_remote_content(file))
        else:
            is_shard = corpus.form in _SHARDS
            digest.update(str(file.stat().st_size).encode() if is_shard else file_hash(file))
    return digest.hexdigest()[:12]


def _remote_content(file: RemoteFile) -> bytes:
    """Of a list in a store its bytes, of a shard its size."""
    with file.open() as opened:
        size = opened.seek(0, 2)
        opened.seek(0)
        is_list = size <= WHOLE and file.suffix[1:] not in _SHARDS
        return hashlib.sha1(opened.read()).digest() if is_list else str(size).encode()


def identity_of(config: JobConfig, corpus: Corpus) -> dict[str, Any]:
    """What decides the rows of the output, but for the model, which a worker tells once it is loaded."""
    return {
        "input": config.input,
        "clips": manifest_fingerprint(corpus),
        "asked": decisive(config),
        "format": config.format,
        "rows_per_part": config.rows_per_part,
        "limit": config.limit,
    }


class JobFile:
    """job.json of a folder. `data` is what it says, {} where there is none yet."""

    def __init__(self, folder: Path) -> None:
        """Raises JobError where it cannot be read."""
        self.path = folder / JOB
        self.data = self._read()

    def _read(self) -> dict[str, Any]:
        try:
            data: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            return data
        except FileNotFoundError:
            return {}
        except (ValueError, OSError) as error:
            raise JobError(f"{self.path} cannot be read ({error}); name another 'output'.") from error

    def enter(self, identity: Mapping[str, Any]) -> None:
        """Make the folder this job's, or find that it is. Raises JobError where it is another's."""
        if not self.data:
            self.data = dict(identity)
            self._write()
            return
        for key, value in identity.items():
            if key == "input" or self.data.get(key) == value:
                continue
            raise JobError(
                f"{self.path.parent} holds another job, {self._difference(key, value)}; name another 'output'."
            )

    def _difference(self, key: str, value: Any) -> str:
        before = self.data.get(key)
        if key != "asked" or not isinstance(before, dict):
            return f"{_IN_WORDS.get(key, key)} ({before!r}, not {value!r})"
        name = next(name for name in (*value, *before) if before.get(name) != value.get(name))
        return f"with {name} {before.get(name)!r}, not {value.get(name)!r}"

    def check_model(self, about: About) -> None:
        """Raises JobError where the rows before are another model's."""
        model = {"fingerprint": about.fingerprint, "name": about.model, "settings": dict(about.settings)}
        self.data = self._read() or self.data  # another shard's run may have said which model meanwhile
        before = self.data.get("model")
        if before is None:
            self.data["model"] = model
            self._write()
        elif before["fingerprint"] != about.fingerprint:
            raise JobError(
                f"{self.path.parent} holds answers of {_described(before)}, and this run's are of {_described(model)}; "
                "give that model, dtype and quantisation, or name another 'output'."
            )

    def _write(self) -> None:
        data = json.dumps(self.data, indent=1, ensure_ascii=False) + "\n"
        replace_file(self.path, data.encode("utf-8", "backslashreplace"), "nothing was changed", JobError)


def _described(model: Mapping[str, Any]) -> str:
    settings = ", ".join(str(value) for value in model["settings"].values())
    return f"{model['name']} ({model['fingerprint']}{', ' if settings else ''}{settings})"
