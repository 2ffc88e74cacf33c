"""Settings of the server: access, limits, timeouts, and where clips may be fetched from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from ..errors import ConfigError

_MEGABYTE = 1 << 20


@dataclass(frozen=True)
class FetchPolicy:
    """Where a clip may come from if the request links to it. ConfigError for a value that cannot work."""

    web: bool = True  # whether http(s) URLs are fetched
    domains: tuple[str, ...] = ()  # hosts, with their subdomains, also of redirects; empty: any public host
    private_hosts: tuple[str, ...] = ()  # hosts whose addresses need not be public
    redirects: int = 3  # maximum to follow
    seconds: float = 10.0  # s for one clip, name resolution and redirects included
    folder: Path | None = None  # file: URLs may name files below it; None: no file is read

    def __post_init__(self) -> None:
        _at_least(self, redirects=0)
        _above_zero(self, "seconds")
        for name in ("domains", "private_hosts"):
            object.__setattr__(self, name, tuple(host.lower().rstrip(".") for host in getattr(self, name)))
            if not all(getattr(self, name)) or any("/" in host for host in getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)}; expected host names such as 'example.org'.")
        if self.folder is not None:
            object.__setattr__(self, "folder", Path(self.folder).resolve())
            if not self.folder.is_dir():
                raise ConfigError(f"{self.folder} is not a folder; clips are to be read below it.")


@dataclass(frozen=True)
class Settings:
    """Settings of the server except its address and certificates. ConfigError for a value that cannot work."""

    api_keys: tuple[str, ...] = ()  # empty: no key is needed
    names: tuple[str, ...] = ()  # names of the model in the API; responses carry the first; empty: its own
    origins: tuple[str, ...] = ()  # other origins whose web pages may send requests: "https://example.org", or "*"
    hosts: tuple[str, ...] = ()  # values allowed in the Host header, without the port; empty: any
    body_bytes: int = 35 * _MEGABYTE  # of one request: 25 MB of audio in base64, and some text
    max_reserved_bytes: int = 1024 * _MEGABYTE  # of all open requests: their bodies and the clips they link to
    clip_bytes: int = 25 * _MEGABYTE  # of one encoded clip; of a form's file, what is held in memory
    upload_bytes: int = 2048 * _MEGABYTE  # of one form with a file, which waits on disk
    max_spooled_bytes: int = 8192 * _MEGABYTE  # on disk, of all forms that are open
    clip_seconds: float = 4 * 3600.0  # of a clip to transcribe or translate
    stored_bytes: int = 256 * _MEGABYTE  # of responses that later requests may go on with, clips included
    clips: int = 64  # in one request
    answers: int = 16  # maximum of n
    logprobs: int = 20  # tokens named beside one, with their log-probabilities; -1: as many as are asked for
    concurrency: int = 256  # open requests, queued ones included
    connections: int = 1024  # open connections
    deadline: float = 600.0  # s from a request's arrival to the end of its answer
    body_seconds: float = 60.0  # for a request's body to arrive
    ping: float = 10.0  # s without an event before a stream sends a comment to stay open
    keep_alive: int = 30  # s that an idle connection stays open
    grace: float = 20.0  # s that running requests get to finish when the server stops
    retry: int = 2  # s that Retry-After tells a client to wait
    fetch: FetchPolicy = field(default_factory=FetchPolicy)

    def __post_init__(self) -> None:
        for name in ("hosts", "origins"):  # browsers send them in lower case
            object.__setattr__(self, name, tuple(value.lower() for value in getattr(self, name)))
        object.__setattr__(self, "hosts", tuple(_without_port(host) for host in self.hosts))
        _at_least(self, grace=0, logprobs=-1)
        numbers = [item.name for item in fields(self) if item.type in ("int", "float")]
        _above_zero(self, *(name for name in numbers if name not in ("grace", "logprobs")))
        if not all(self.api_keys):
            raise ConfigError("One of the API keys is empty; leave it out, or give it a value.")
        if not all(key.isascii() and key.isprintable() and " " not in key for key in self.api_keys):
            raise ConfigError("An API key has characters that no header carries; use letters, digits and -_. only.")


def _without_port(host: str) -> str:
    """A host name as `hosts` compares it: "example.org" for "example.org:8443", "::1" for "[::1]:8000"."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") > 1 else host.partition(":")[0].rstrip(".")


def _at_least(settings: FetchPolicy | Settings, **lowest: float) -> None:
    for name, low in lowest.items():
        if not getattr(settings, name) >= low:
            raise ConfigError(f"{name} is {getattr(settings, name)}; expected a number of at least {low:g}.")


def _above_zero(settings: FetchPolicy | Settings, *names: str) -> None:
    for name in names:
        if not getattr(settings, name) > 0:
            raise ConfigError(f"{name} is {getattr(settings, name)}; expected a number above 0.")
