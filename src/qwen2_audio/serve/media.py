"""Gets the bytes of a request's clips: inline as base64, from the allowed folder, or from the web."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..audio.fetch import decode_base64, read_data_uri
from ..audio.limits import Limits
from ..errors import AudioError
from ..types import Message
from .errors import ApiError
from .safe_fetch import fetch
from .settings import FetchPolicy, Settings


@dataclass(frozen=True)
class Link:
    """A clip that the request links to. `param`: the field with the URL, such as `messages[0].content[1].audio_url`."""

    url: str
    param: str


def from_base64(data: str, param: str, limit: int) -> bytes:
    """The bytes of `data`, base64 in any spelling or a data: URL. ApiError: no base64, or more than `limit` bytes."""
    text = data.strip()
    if text[:5].lower() == "data:":
        return from_data_url(text, param, limit)
    _check_size(len(text) * 3 // 4 - 2 - text.count("\n"), param, limit)
    try:
        return decode_base64(text)
    except ValueError as error:
        raise _refused(f"{param} is not base64 ({error}); encode the bytes of the audio file.", param) from error


def from_data_url(url: str, param: str, limit: int) -> bytes:
    """The bytes of a data: URL. ApiError if it is malformed, or more than `limit` bytes."""
    _check_size((len(url) - url.find(",") - 1) * 3 // 4 - 2, param, limit)
    try:
        return read_data_uri(url, Limits(max_bytes=limit))
    except AudioError as error:
        raise _refused(f"{param}: {error.sentence}", param) from error


def links_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The parts of a conversation whose clip is a Link."""
    parts = [part for message in messages if not isinstance(message["content"], str) for part in message["content"]]
    return [part for part in parts if isinstance(part.get("audio"), Link)]


async def fetch_links(parts: Sequence[dict[str, Any]], settings: Settings, reserve: Callable[[int], None]) -> None:
    """Replaces the Link of each part by its bytes, all concurrently. ApiError if one cannot be read.

    `reserve` is called with a number of bytes before they are read, and raises if memory is short.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_read(part["audio"], settings, reserve)) for part in parts]
    except ExceptionGroup as errors:  # the first error has cancelled the other tasks
        raise errors.exceptions[0] from errors
    for part, task in zip(parts, tasks, strict=True):
        part["audio"] = task.result()


async def _read(link: Link, settings: Settings, reserve: Callable[[int], None]) -> bytes:
    try:
        if link.url[:5].lower() != "file:":
            return await fetch(link.url, settings.fetch, settings.clip_bytes, reserve)
        path, size = await asyncio.to_thread(_find_file, link.url, settings.fetch)
        _check_size(size, path.name, settings.clip_bytes)
        reserve(size)
        return await asyncio.to_thread(_read_file, path, size)
    except ApiError as error:
        error.param = link.param
        raise


def _find_file(url: str, policy: FetchPolicy) -> tuple[Path, int]:
    """The file's path and size in bytes. Outside the folder all faults give one message, which reveals no files."""
    outside = _outside_folder()
    parts = urlsplit(url)
    if policy.folder is None or parts.netloc not in ("", "localhost"):
        raise outside
    try:
        path = Path(unquote(parts.path)).resolve()
        if not path.is_relative_to(policy.folder):
            raise outside
        if not path.is_file():
            raise ApiError(f"There is no file {path.name} in the allowed folder.", code="invalid_audio_url")
        return path, path.stat().st_size
    except (OSError, ValueError) as error:  # no file can have such a name
        raise outside from error


def _read_file(path: Path, size: int) -> bytes:
    """At most `size` bytes, which are reserved; the file may have grown since."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise _outside_folder() from error


def _outside_folder() -> ApiError:
    return ApiError(
        "file: URLs are read from the folder that this server's operator allows, and nowhere else; "
        "send the clip itself, as input_audio or a data: URL.",
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
