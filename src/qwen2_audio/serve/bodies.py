"""Reads a request's body within the limits of size and time, and parses it as JSON or as a form."""

from __future__ import annotations

import asyncio
import codecs
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from .errors import ApiError, ClientGoneError
from .settings import Settings

_FIELDS = 64  # of a form
_FIELD_BYTES = 64 << 10
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # of zlib, by Content-Encoding


@dataclass(frozen=True)
class Form:
    """A multipart form with one file."""

    fields: dict[str, str | list[str]]  # a field whose name ends in [] is a list
    file: bytes


async def read_body(request: Request, settings: Settings) -> bytes:
    """The body. ApiError if it is too large (413) or too slow (408); ClientGoneError if the client disconnects."""
    body, inflate = bytearray(), _inflater(request, settings)
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for block in request.stream():
                body += inflate(block, len(body))
                check_length(len(body), settings)
    except TimeoutError as error:
        message = f"The body did not arrive within {settings.body_seconds:g} s."
        raise ApiError(message, status=408, code="body_timeout", headers={"Connection": "close"}) from error
    except ClientDisconnect as error:
        raise ClientGoneError from error
    return bytes(body)


def _inflater(request: Request, settings: Settings) -> Callable[[bytes, int], bytes]:
    """(block, bytes before it) -> its bytes without the Content-Encoding: never much more than the limit of a body."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return lambda block, _: block
    if encoding not in _WINDOW_BITS:
        message = f"The Content-Encoding is {encoding[:40]!r}; expected gzip, deflate or none."
        raise ApiError(message, status=415, code="unsupported_media_type")
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])

    def inflate(block: bytes, before: int) -> bytes:
        try:
            return stream.decompress(block, settings.body_bytes + 1 - before)
        except zlib.error as error:
            message = f"The body is not {encoding}, which its Content-Encoding says: {error}."
            raise ApiError(message, code="invalid_encoding") from error

    return inflate


def check_length(length: int, settings: Settings) -> None:
    """ApiError (413) if a body of `length` bytes is too large."""
    if length > settings.body_bytes:
        raise ApiError(
            f"The body is larger than {settings.body_bytes:,} bytes, the limit for a request.",
            status=413,
            code="body_too_large",
            headers={"Connection": "close"},
        )


def check_content_type(request: Request, expected: str) -> None:
    """ApiError (415) for any other Content-Type. A page of another origin can send JSON only if CORS allows it."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != expected:
        message = f"The Content-Type is {content_type[:80]!r}; expected {expected}."
        raise ApiError(message, status=415, code="unsupported_media_type")


def parse_json(body: bytes) -> Any:
    """The body's JSON value. ApiError if it is not JSON, which NaN and Infinity are not."""
    from pydantic_core import from_json

    try:
        return from_json(body.removeprefix(codecs.BOM_UTF8), allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(f"The body is not JSON: {error}.", code="invalid_json") from error


async def parse_form(request: Request, body: bytes, settings: Settings) -> Form:
    """The form's fields and its file. ApiError where it is malformed, or has no file, or several.

    `body` is what `read_body` took from the request: it is handed to Starlette again.
    """

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    again = Request(request.scope, receive)
    try:
        parsed = await again.form(max_files=1, max_fields=_FIELDS, max_part_size=_FIELD_BYTES)
    except (HTTPException, ValueError, KeyError, LookupError) as error:
        said = getattr(error, "message", None) or getattr(error, "detail", None) or "it breaks off or is malformed"
        raise ApiError(f"The form cannot be read: {str(said).rstrip('.')}.", code="invalid_form") from error
    fields: dict[str, str | list[str]] = {}
    file: bytes | None = None
    for name, value in parsed.multi_items():
        if isinstance(value, UploadFile):
            if name != "file":
                raise ApiError(f"The form has a file called {name[:40]!r}; expected 'file'.", param=name[:40])
            file = await value.read()
            await value.close()
        elif name.endswith("[]"):
            fields.setdefault(name, [])
            fields[name].append(value)  # type: ignore[union-attr]
        elif name in fields:
            raise ApiError(f"The form has {name[:40]!r} twice.", param=name[:40])
        else:
            fields[name] = value
    if file is None:
        raise ApiError("The form has no file: send the clip as the file 'file'.", param="file", code="missing_file")
    if len(file) > settings.clip_bytes:
        message = f"The file is larger than {settings.clip_bytes:,} bytes, the limit for a clip."
        raise ApiError(message, status=413, param="file", code="clip_too_large")
    return Form(fields, file)
