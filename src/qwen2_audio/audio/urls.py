"""http(s) URLs as browsers write them into a request: ASCII only. The loader and the server both use this."""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

# Besides letters and digits, what browsers leave as it is (the URL standard); a "%" may be part of a "%20".
_PATH = "/%:@!$&'()*+,;=~-._[]|"
_QUERY = "/%:@!$&()*+,;=~-._[]|?{}^`"
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_HOST = re.compile(r"[A-Za-z0-9._~%:-]+")


def browser_url(url: str) -> str:
    """`url` in ASCII: path and query percent-encoded as UTF-8 where they need it, the host by IDNA, no fragment.

    Raises ValueError where there is no host, or where the URL or its host has characters that are in no URL.
    """
    url = url.strip(" ")
    if _CONTROL.search(url):
        raise ValueError("it has control characters or backslashes")
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host.isascii():
        host = host.encode("idna").decode()
    if not _HOST.fullmatch(host):
        raise ValueError("it names no host" if not host else f"{host!r} is no host name")
    port = "" if parts.port is None else f":{parts.port}"
    user, at, _ = parts.netloc.rpartition("@")
    netloc = f"{quote(user, safe=':%')}{at}{f'[{host}]' if ':' in host else host}{port}"
    return urlunsplit((parts.scheme, netloc, quote(parts.path, safe=_PATH), quote(parts.query, safe=_QUERY), ""))


def redirect_target(url: str, location: str) -> str:
    """The URL that the Location header of a response from `url` names; `location` has its bytes as Latin-1 text.

    Servers write UTF-8 there. Raises ValueError as `browser_url`, for http(s) targets.
    """
    with suppress(UnicodeError):  # not UTF-8, or already decoded
        location = location.encode("latin-1").decode("utf-8")
    target = urljoin(url, location)
    return browser_url(target) if urlsplit(target).scheme in ("http", "https") else target
