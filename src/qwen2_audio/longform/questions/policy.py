"""How a question about a clip of more than a window is answered: the values of `long`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...errors import ConfigError, did_you_mean

Kind = Literal["refuse", "parts", "native", "transcript"]
KINDS: tuple[Kind, ...] = ("refuse", "parts", "native", "transcript")
NATIVE_WINDOWS, MOST_NATIVE_WINDOWS = 4, 9  # in one prompt: ten of 755 positions leave no room for an answer in 8,192


@dataclass(frozen=True)
class Policy:
    """A value of `long`. `windows`: how many `native` puts into one prompt, at most."""

    kind: Kind
    windows: int = NATIVE_WINDOWS

    @property
    def value(self) -> str:
        """As `parse_policy` takes it."""
        return self.kind if self.windows == NATIVE_WINDOWS else f"{self.kind}:{self.windows}"


BY_PARTS = Policy("parts")


def parse_policy(value: str) -> Policy:
    """ "parts", "native", "native:9", "transcript" or "refuse". Raises ConfigError for any other value."""
    name, colon, number = value.partition(":") if isinstance(value, str) else ("", "", "")
    for kind in KINDS:
        if name == kind and not colon:
            return Policy(kind)
    if name == "native" and number.isascii() and number.isdecimal() and 1 <= int(number) <= MOST_NATIVE_WINDOWS:
        return Policy("native", int(number))
    raise ConfigError(
        f"long is {value!r}; expected {', '.join(KINDS)}, or native:1 to native:{MOST_NATIVE_WINDOWS}."
        f"{did_you_mean(name, KINDS)}"
    )
