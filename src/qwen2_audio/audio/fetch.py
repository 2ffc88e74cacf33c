"""Audio files from http(s) URLs and data: URIs. FFmpeg is never given a URL; every download happens here.

This module fetches any URL that its caller chose. Which hosts a client may send a server to is decided in serve/.
"""

from __future__ import annotations

import base64
import http.client
import tempfile
import urllib.error
import urllib.request
from typing import IO, Any
from urllib.parse import unquote_to_bytes, urlsplit

from ..errors import AudioError
from .limits import Deadline, Limits
from .urls import browser_url, redirect_target

_BLOCK = 1 << 16  # bytes
IN_MEMORY = 32 << 20  # bytes; a longer download, or pipe, goes to a temporary file


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http and https only; urllib itself would also follow them to ftp."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        newurl = redirect_target(req.full_url, newurl)
        if urlsplit(newurl).scheme not in ("http", "https"):
            fp.close()
            raise AudioError(f"{req.full_url} redirects to {newurl!r}; expected an http or https URL.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, limits: Limits, deadline: Deadline) -> IO[bytes]:
    """The body of `url` as a seekable file, which is removed when closed.

    Raises AudioError, with the URL and the HTTP status, when the body cannot be fetched or exceeds `limits`.
    """
    request = _request(url)
    body: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  handed to the caller
    try:
        with _opener().open(request, timeout=limits.timeout) as response:
            _copy(response, body, url, limits, deadline)
    except BaseException as error:
        body.close()
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        if isinstance(error, AudioError) or not isinstance(error, (OSError, ValueError, http.client.HTTPException)):
            raise
        raise AudioError(f"{url} could not be fetched: {_reason(error, limits)}") from error
    return body


def _opener() -> urllib.request.OpenerDirector:
    """urllib's opener without its ftp:, file: and data: handlers."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _WebRedirects,
    ):
        opener.add_handler(handler())
    return opener


def _reason(error: BaseException, limits: Limits) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"{f'HTTP {error.code} {error.reason}'.rstrip()}; check the address and your access to it."
    cause = getattr(error, "reason", None) or error  # URLError wraps the socket's own error
    if isinstance(cause, TimeoutError):
        return f"no answer within {limits.timeout:g} s; try again, or raise the timeout."
    return f"{str(cause) or repr(cause)}; check the address and the network."


def _request(url: str) -> urllib.request.Request:
    try:
        return urllib.request.Request(
            browser_url(url), headers={"User-Agent": "qwen2-audio", "Accept": "audio/*, */*;q=0.8"}
        )
    except ValueError as error:
        raise AudioError(f"{url} is not a URL that can be fetched: {error}.") from error


def _copy(response: Any, body: IO[bytes], url: str, limits: Limits, deadline: Deadline) -> None:
    announced = response.headers.get("Content-Length", "")
    expected = int(announced) if announced.isdecimal() else None
    limits.check_bytes(expected or 0, url)
    size = 0
    while block := response.read1(_BLOCK):
        size += len(block)
        limits.check_bytes(size, url)
        deadline.check(url)
        body.write(block)
    if expected is not None and size < expected:
        raise AudioError(f"{url} broke off after {size:,} of {expected:,} bytes; try again.")


def read_data_uri(uri: str, limits: Limits) -> bytes:
    """The bytes of `data:[type][;base64],payload` (RFC 2397). Raises AudioError when malformed or too large."""
    header, comma, payload = uri[len("data:") :].partition(",")
    if not comma:
        raise AudioError("The data: URI has no comma; expected data:audio/wav;base64,... or data:audio/wav,...")
    limits.check_bytes(len(payload) * 3 // 4 - 2, "The data: URI")
    data = unquote_to_bytes(payload)
    if header.lower().replace(" ", "").endswith(";base64"):
        try:
            return decode_base64(data)
        except ValueError as error:
            raise AudioError(
                f"The data: URI is not valid base64 ({error}); encode the sound file's bytes anew."
            ) from error
    return data


def decode_base64(text: str | bytes) -> bytes:
    """The bytes of base64 as people send it: in lines, URL-safe, without padding. Raises ValueError for any other."""
    data = text.encode("ascii") if isinstance(text, str) else text
    data = b"".join(data.split()).rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
