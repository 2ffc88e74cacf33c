"""Files in object stores, "s3://bucket/clips/": listed, opened and read through fsspec, which is imported here only.

fsspec comes with torch; each kind of store needs a package of its own, s3fs for S3. Credentials and another endpoint
are found where that package looks for them (for S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, ...).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..errors import AudioError, ConfigError, DatasetError, Qwen2AudioError

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_NOT_STORES = ("http", "https", "file")  # `audio.io` reads them


@dataclass(frozen=True)
class RemoteFile:
    """A file of a store: what the readers of this room need of a path. Picklable; nothing is open."""

    url: str

    @property
    def name(self) -> str:
        return self.url.rstrip("/").rsplit("/", 1)[-1]

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def folder(self) -> str:
        """The URL of the folder that holds it, without a slash at its end."""
        return self.url.rstrip("/").rsplit("/", 1)[0]

    def open(self, mode: str = "rb") -> IO[bytes]:
        """The file for reading, a few megabytes ahead. Raises OSError, ConfigError."""
        filesystem, path = _filesystem(self.url)
        opened: IO[bytes] = filesystem.open(path, mode)
        return opened

    def __str__(self) -> str:
        return self.url


File = Path | RemoteFile


def is_remote(text: str) -> bool:
    """Whether `text` names something in a store, and not on this machine or the web."""
    match = _SCHEME.match(text)
    return match is not None and match[1].lower() not in _NOT_STORES


def read_remote(url: str, max_bytes: int) -> bytes:
    """The bytes of a file in a store. Raises AudioError with the URL, ConfigError where a package is missing."""
    filesystem, path = _filesystem(url, AudioError)
    try:
        size = filesystem.size(path)
        if size is not None and size > max_bytes:
            raise AudioError(f"{url} has {size:,} bytes; expected at most {max_bytes:,}.")
        data: bytes = filesystem.cat_file(path)
        return data
    except (OSError, TimeoutError) as error:
        raise AudioError(f"{url} cannot be read: {_reason(error)}.") from error


def list_remote(url: str) -> list[RemoteFile]:
    """The file at `url`, the files below it, or those that match its *, ? and [...], in order of their names.

    Raises DatasetError where there is none or the store cannot be asked, ConfigError where a package is missing.
    """
    filesystem, path = _filesystem(url)
    try:
        if re.search(r"[*?\[]", path):
            found = [name for name in filesystem.glob(path) if not filesystem.isdir(name)]
        elif filesystem.isfile(path):
            return [RemoteFile(url)]
        else:
            found = filesystem.find(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{url} cannot be listed: {_reason(error)}.") from error
    scheme = url[: url.index("://") + 3]
    names = sorted(str(name) for name in found)
    files = [RemoteFile(scheme + name.lstrip("/")) for name in names if not name.rsplit("/", 1)[-1].startswith(".")]
    if not files:
        raise DatasetError(f"There is no file at {url}; check the address, and your access to it.")
    return files


def _filesystem(url: str, unknown: type[Qwen2AudioError] = ConfigError) -> tuple[Any, str]:
    """fsspec's filesystem for a URL, and the path in it. Raises ConfigError where a package is missing, and `unknown`
    for an address that is none: where it is a row's, the other rows go on."""
    try:
        import fsspec
    except ImportError as error:
        raise ConfigError(f"{url} needs fsspec: pip install 'qwen2-audio[s3]'.") from error
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
        return found
    except ImportError as error:
        package = "'qwen2-audio[s3]'" if url.lower().startswith(("s3://", "s3a://")) else "fsspec's package for it"
        raise ConfigError(f"{url} needs a package that is not installed ({error}): pip install {package}.") from error
    except ValueError as error:
        raise unknown(f"{url} is no address that fsspec knows: {error}.") from error


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
