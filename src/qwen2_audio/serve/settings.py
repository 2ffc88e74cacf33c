"""What whoever runs the server decides: who may ask, and how much."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from ..errors import ConfigError

_MEGABYTE = 1 << 20


@dataclass(frozen=True)
class FetchPolicy:
    """Where a clip that is named, not sent, may come from. ConfigError where a field cannot work."""

    web: bool = True  # http and https at all
    domains: tuple[str, ...] = ()  # these hosts and what lies below them, on every redirect too; empty: any public host
    private_hosts: tuple[str, ...] = ()  # these may have addresses that are not public
    redirects: int = 3  # followed at most
    seconds: float = 10.0  # for one clip, names and redirects included
    folder: Path | None = None  # file: URLs below it are read; None: none are

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
    """How the server behaves, address and certificates apart. ConfigError where a field cannot work."""

    api_keys: tuple[str, ...] = ()  # empty: everybody may ask
    names: tuple[str, ...] = ()  # the model's names in the API, in place of its own; the first is told to clients
    origins: tuple[str, ...] = ()  # web pages of other origins that may ask: "https://example.org", or "*"
    hosts: tuple[str, ...] = ()  # what the Host header may say, without the port; empty: anything
    body_bytes: int = 35 * _MEGABYTE  # of one request; 25 MB of sound in base64, and room
    held_bytes: int = 1024 * _MEGABYTE  # of all request bodies, and the clips that they name, at a time
    clip_bytes: int = 25 * _MEGABYTE  # of one encoded clip
    clips: int = 64  # in one request
    answers: int = 16  # n at most
    concurrency: int = 256  # requests at a time, waiting ones included
    connections: int = 1024  # open at a time
    deadline: float = 600.0  # s from a request's arrival to the end of its answer
    body_seconds: float = 60.0  # for a request's body to arrive
    ping: float = 10.0  # s of silence on a stream before a comment says that it is alive
    grace: float = 20.0  # s that running requests get when the server is told to stop
    retry: int = 2  # s after which a client that was turned away may come back
    fetch: FetchPolicy = field(default_factory=FetchPolicy)

    def __post_init__(self) -> None:
        for name in ("hosts", "origins"):  # browsers write them in lower case
            object.__setattr__(self, name, tuple(one.lower() for one in getattr(self, name)))
        _at_least(self, grace=0)
        _above_zero(
            self, *(item.name for item in fields(self) if item.type in ("int", "float") and item.name != "grace")
        )
        if not all(self.api_keys):
            raise ConfigError("One of the API keys is empty; leave it out, or give it a value.")
        if not all(key.isascii() and key.isprintable() and " " not in key for key in self.api_keys):
            raise ConfigError("An API key has characters that no header carries; use letters, digits and -_. only.")


def _at_least(settings: FetchPolicy | Settings, **lowest: float) -> None:
    for name, low in lowest.items():
        if not getattr(settings, name) >= low:
            raise ConfigError(f"{name} is {getattr(settings, name)}; expected a number of at least {low:g}.")


def _above_zero(settings: FetchPolicy | Settings, *names: str) -> None:
    for name in names:
        if not getattr(settings, name) > 0:
            raise ConfigError(f"{name} is {getattr(settings, name)}; expected a number above 0.")
