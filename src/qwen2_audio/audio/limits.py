"""Ceilings for one source of audio, so that a small hostile file cannot fill the memory or block a worker."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields

from ..errors import AudioError, ConfigError

LONGEST_PATH = 4096  # characters; a longer string is not a path


@dataclass(frozen=True)
class Limits:
    """Ceilings for one source. Raises ConfigError when a field is not above 0."""

    max_bytes: int = 2 * 1024**3  # bytes of an encoded file; three hours of 44.1 kHz stereo WAV are 1.9e9
    max_seconds: float = 3 * 3600.0  # s, counted from the decoded samples
    max_channels: int = 8  # 7.1 surround
    min_rate: int = 4_000  # Hz
    max_rate: int = 384_000  # Hz
    timeout: float = 30.0  # s that a web server may take before it sends the next bytes
    deadline: float = 300.0  # s for fetching and decoding one source

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
                raise ConfigError(f"Limits.{item.name} is {value!r}; expected a number above 0.")
        if self.min_rate > self.max_rate:
            raise ConfigError(f"Limits.min_rate ({self.min_rate} Hz) is above Limits.max_rate ({self.max_rate} Hz).")

    def check_bytes(self, size: int, name: str) -> None:
        """Raises AudioError when an encoded file of `size` bytes is too large."""
        if size > self.max_bytes:
            raise AudioError(
                f"{name} is larger than the limit of {self.max_bytes:,} bytes; cut it", in_python=" or raise max_bytes."
            )

    def check_seconds(self, seconds: float, name: str) -> None:
        """Raises AudioError when `seconds` exceed `max_seconds`."""
        if seconds > self.max_seconds:
            raise AudioError(
                f"{name} holds more than {self.max_seconds:,g} s of sound, which is the limit; cut it into parts",
                in_python=" or raise max_seconds.",
            )

    def check_form(self, channels: int, rate: float, name: str) -> None:
        """Raises AudioError when the channel count or the sampling rate (Hz) is out of range."""
        if not 1 <= channels <= self.max_channels:
            raise AudioError(f"{name} has {channels} channels; expected 1 to {self.max_channels}. Mix it down first.")
        if not self.min_rate <= rate <= self.max_rate:
            raise AudioError(
                f"{name} has a sampling rate of {rate:,g} Hz; "
                f"expected {self.min_rate:,} to {self.max_rate:,} Hz. Check the rate, or resample it first."
            )


@dataclass(frozen=True)
class Deadline:
    """The time limit of one source: the clock starts on construction and is checked between blocks of work."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    def check(self, name: str) -> None:
        """Raises AudioError when `seconds` have passed."""
        if time.monotonic() - self.started > self.seconds:
            raise AudioError(
                f"{name} took longer to read than the limit of {self.seconds:g} s; give a shorter sound",
                in_python=" or raise the deadline.",
            )
