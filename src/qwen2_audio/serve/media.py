"""The clips of a request to the bytes of sound files: sent along, read from the allowed folder, or fetched."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..audio.fetch import read_data_uri
from ..audio.limits import Limits
from ..errors import AudioError
from ..types import Message
from .errors import ApiError
from .safe_fetch import fetch
from .settings import FetchPolicy, Settings


@dataclass(frozen=True)
class Link:
    """A clip that is named, not sent. `param` is its place in the request."""

    url: str
    param: str


def from_base64(data: str, param: str, limit: int) -> bytes:
    """The bytes of `data`; a data: URL is taken as well. ApiError where it is not base64, or too much."""
    if data[:5].lower() == "data:":
        return from_data_url(data, param, limit)
    _check_size(len(data) * 3 // 4 - 2, param, limit)
    text = data.strip()
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(f"{param} is not base64 ({error}); encode the bytes of the sound file.", param) from error


def from_data_url(url: str, param: str, limit: int) -> bytes:
    """The bytes in a data: URL."""
    try:
        return read_data_uri(url, Limits(max_bytes=limit))
    except AudioError as error:
        raise _refused(f"{param}: {error}", param) from error


def links_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The parts of a conversation whose clip is still to be fetched."""
    parts = [part for message in messages if not isinstance(message["content"], str) for part in message["content"]]
    return [part for part in parts if isinstance(part.get("audio"), Link)]


async def fetch_links(parts: Sequence[dict[str, Any]], settings: Settings, take: Callable[[int], None]) -> None:
    """Replace the Link of each part by its bytes; all are fetched at a time. ApiError where one cannot be.

    `take` is told of bytes before they are kept, and raises where there is no room for them.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_read(part["audio"], settings, take)) for part in parts]
    except ExceptionGroup as errors:  # the first one ended the others
        raise errors.exceptions[0] from errors
    for part, task in zip(parts, tasks, strict=True):
        part["audio"] = task.result()


async def _read(link: Link, settings: Settings, take: Callable[[int], None]) -> bytes:
    try:
        if link.url[:5].lower() != "file:":
            return await fetch(link.url, settings.fetch, settings.clip_bytes, take)
        path, size = await asyncio.to_thread(_find_file, link.url, settings.fetch)
        _check_size(size, path.name, settings.clip_bytes)
        take(size)
        return await asyncio.to_thread(_read_file, path, size)
    except ApiError as error:
        error.param = link.param
        raise


def _find_file(url: str, policy: FetchPolicy) -> tuple[Path, int]:
    """The file and its bytes. One sentence for whatever is wrong outside the folder: nobody learns what is there."""
    closed = _closed()
    parts = urlsplit(url)
    if policy.folder is None or parts.netloc not in ("", "localhost"):
        raise closed
    try:
        path = Path(unquote(parts.path)).resolve()
        if not path.is_relative_to(policy.folder):
            raise closed
        if not path.is_file():
            raise ApiError(f"There is no file {path.name} in the allowed folder.", code="invalid_audio_url")
        return path, path.stat().st_size
    except (OSError, ValueError) as error:  # names that no file can have
        raise closed from error


def _read_file(path: Path, size: int) -> bytes:
    """No more than the bytes that there is room for, though it may grow meanwhile."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise _closed() from error


def _closed() -> ApiError:
    return ApiError(
        "file: URLs are read from the folder that this server's operator allows, and nowhere else; "
        "send the sound itself, as input_audio or a data: URL.",
        code="invalid_audio_url",
    )


def _check_size(size: int, param: str, limit: int) -> None:
    if size > limit:
        raise ApiError(
            f"{param} is larger than {limit:,} bytes, the limit for a clip; send a shorter or a compressed one.",
            status=413,
            param=param,
            code="clip_too_large",
        )


def _refused(message: str, param: str) -> ApiError:
    return ApiError(message, param=param, code="invalid_audio")
