"""Reads a request's body within the limits of size and time: JSON in memory, the file of a form on disk."""

from __future__ import annotations

import asyncio
import codecs
import math
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from .errors import ApiError, ClientGoneError
from .settings import Settings

T = TypeVar("T")
FORM = "multipart/form-data"
PARSE_IN_THREAD = 64 << 10  # bytes; a larger body is parsed in a thread, so that other requests need not wait
_FIELDS = 64  # of a form
_FIELD_BYTES = 64 << 10
_SLOWEST = 100_000  # bytes a second that an upload keeps after its first minute
_MAY_BE_TOO_LARGE = re.compile(rb"\d[eE]\+?\d|\d{309}")  # a float goes to 1.8e308
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # of zlib, by Content-Encoding


@dataclass(frozen=True)
class Form:
    """A multipart form with one file, which belongs to whoever has the form: it is gone when it is closed."""

    fields: dict[str, str | list[str]]  # a field whose name ends in [] is a list
    file: BinaryIO  # seekable, at its start; over 1 MB it is a temporary file without a name
    size: int  # bytes of the file


async def read_body(request: Request, settings: Settings) -> bytes:
    """The body. ApiError if it is too large (413) or too slow (408); ClientGoneError if the client disconnects."""
    body = bytearray()
    async with _in_time(settings):
        async for block in _blocks(request, settings.body_bytes):
            body += block
    return bytes(body)


async def read_json(
    request: Request,
    settings: Settings,
    convert: Callable[[Any, Settings], T],
    *,
    slow: Callable[[Any], bool] = lambda _: False,
) -> T:
    """`convert(the body's JSON, settings)`, of a large body in a thread. `slow`: whether it takes one for this JSON
    however small.

    Raises as `check_content_type`, `read_body` and `parse_json`, and what `convert` raises.
    """
    check_content_type(request, "application/json")
    body = await read_body(request, settings)
    if len(body) > PARSE_IN_THREAD:
        return await asyncio.to_thread(lambda: convert(parse_json(body), settings))
    fields = parse_json(body)
    return await asyncio.to_thread(convert, fields, settings) if slow(fields) else convert(fields, settings)


@asynccontextmanager
async def _in_time(settings: Settings) -> AsyncIterator[asyncio.Timeout]:
    try:
        async with asyncio.timeout(settings.body_seconds) as limit:
            yield limit
    except TimeoutError as error:
        waited = f"within {settings.body_seconds:g} s"
        raise ApiError(
            f"The body did not arrive {waited}.", status=408, code="body_timeout", headers={"Connection": "close"}
        ) from error
    except ClientDisconnect as error:
        raise ClientGoneError from error


async def _blocks(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The body as it comes, without its Content-Encoding. ApiError (413) where it is larger than `limit` bytes."""
    size, inflate = 0, _inflater(request, limit)
    async for block in request.stream():
        data = inflate(block, size)
        size += len(data)
        check_length(size, limit)
        yield data


def _inflater(request: Request, limit: int) -> Callable[[bytes, int], bytes]:
    """(block, bytes before it) -> its bytes without the Content-Encoding: never much more than `limit` in all."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return lambda block, _: block
    if encoding not in _WINDOW_BITS:
        message = f"The Content-Encoding is {encoding[:40]!r}; expected gzip, deflate or none."
        raise ApiError(message, status=415, code="unsupported_media_type")
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])

    def inflate(block: bytes, before: int) -> bytes:
        try:
            return stream.decompress(block, limit + 1 - before)
        except zlib.error as error:
            message = f"The body is not {encoding}, which its Content-Encoding says: {error}."
            raise ApiError(message, code="invalid_encoding") from error

    return inflate


def check_length(length: int, limit: int) -> None:
    """ApiError (413) if a body of `length` bytes is too large."""
    if length > limit:
        raise ApiError(
            f"The body is larger than {limit:,} bytes, the limit for a request.",
            status=413,
            code="body_too_large",
            headers={"Connection": "close"},
        )


def content_type_of(header: str) -> str:
    """A Content-Type without its parameters, in lower case."""
    return header.partition(";")[0].strip().lower()


def check_content_type(request: Request, expected: str) -> None:
    """ApiError (415) for any other Content-Type. A page of another origin can send JSON only if CORS allows it."""
    content_type = request.headers.get("content-type", "")
    if content_type_of(content_type) != expected:
        message = f"The Content-Type is {content_type[:80]!r}; expected {expected}."
        raise ApiError(message, status=415, code="unsupported_media_type")


def parse_json(body: bytes) -> Any:
    """The body's JSON value. ApiError if it is not JSON, which NaN and Infinity are not."""
    from pydantic_core import from_json

    try:
        value = from_json(body.removeprefix(codecs.BOM_UTF8), allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(f"The body is not JSON: {error}.", code="invalid_json") from error
    if _MAY_BE_TOO_LARGE.search(body) and _has_infinity(value):
        raise ApiError("The body has a number that no float holds, such as 1e999; give another.", code="invalid_json")
    return value


def _has_infinity(value: Any) -> bool:
    """Whether a number of a JSON value was too large for a float."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, float) and math.isinf(item):
            return True
        left += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return False


async def read_form(request: Request, settings: Settings) -> Form:
    """The form's fields and its file, which is written to disk as it comes. Raises as `read_body`, and ApiError where
    the form is malformed, or has no file or several, or where the disk is full (507). Nothing is left on disk then."""
    async with _in_time(settings) as limit:
        parsed = await _parsed(request, settings, limit)
    try:
        return _form_of(parsed)
    except BaseException:
        await parsed.close()
        raise


async def _parsed(request: Request, settings: Settings, limit: asyncio.Timeout) -> FormData:
    """Starlette's form of the request, parsed as it comes."""
    started = asyncio.get_running_loop().time()

    async def blocks() -> AsyncGenerator[bytes, None]:
        received = 0
        async for block in _blocks(request, settings.upload_bytes):
            received += len(block)
            limit.reschedule(started + settings.body_seconds + received / _SLOWEST)
            yield block

    stream = blocks()
    parser = MultiPartParser(request.headers, stream, max_files=1, max_fields=_FIELDS, max_part_size=_FIELD_BYTES)
    try:
        parsed = await _closing_its_files(parser)
    except (MultiPartException, ValueError, KeyError, LookupError) as error:
        await _drain(stream)
        said = getattr(error, "message", None) or "it breaks off or is malformed"
        raise ApiError(f"The form cannot be read: {str(said).rstrip('.')}.", code="invalid_form") from error
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise
        await _drain(stream)
        raise ApiError(
            f"The server cannot keep this upload ({error.strerror or error}); send a compressed file, or try later.",
            status=507,
            code="insufficient_storage",
        ) from error
    if not any(isinstance(value, UploadFile) for _, value in parsed.multi_items()):  # its part may have broken off
        _close_files(parser)
    return parsed


async def _closing_its_files(parser: MultiPartParser) -> FormData:
    """What it parses. Where that fails its files are closed at once: the rest of a body may take minutes to come, and a
    disk that is full has no room as long."""
    try:
        return await parser.parse()
    except BaseException:
        _close_files(parser)
        raise


def _close_files(parser: MultiPartParser) -> None:
    for file in parser._files_to_close_on_error:
        with suppress(OSError):  # what it could not write before, it cannot write now; it is closed all the same
            file.close()


async def _drain(stream: AsyncGenerator[bytes, None]) -> None:
    """Drop the rest of a body: many clients send all of it before they read a response."""
    async for _ in stream:
        pass


def _form_of(parsed: FormData) -> Form:
    fields: dict[str, str | list[str]] = {}
    file: UploadFile | None = None
    for name, value in parsed.multi_items():
        if isinstance(value, UploadFile):
            if name != "file":
                raise ApiError(f"The form has a file called {name[:40]!r}; expected 'file'.", param=name[:40])
            file = value
        elif name.endswith("[]"):
            fields.setdefault(name, [])
            fields[name].append(value)  # type: ignore[union-attr]
        elif name in fields:
            raise ApiError(f"The form has {name[:40]!r} twice.", param=name[:40])
        else:
            fields[name] = value
    if file is None:
        raise ApiError("The form has no file: send the clip as the file 'file'.", param="file", code="missing_file")
    return Form(fields, file.file, file.size or 0)
