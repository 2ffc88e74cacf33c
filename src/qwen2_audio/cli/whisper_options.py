"""Whisper's spellings of options of `transcribe`, for hands that know them."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigError

# Whisper's option -> ours, with the same value.
SAME = {
    "--output_dir": "--output",
    "--output_format": "--format",
    "--initial_prompt": "--prompt",
    "--max_line_width": "--max-line-width",
    "--max_line_count": "--max-line-count",
}
# Whisper's option -> what it becomes when it is true, and when it is false; None: it cannot be had.
BOOLEAN: dict[str, tuple[list[str] | None, list[str] | None]] = {
    "--vad_filter": ([], ["--no-vad"]),
    "--word_timestamps": (["--word-timestamps"], []),
    "--verbose": ([], ["--quiet"]),
    "--condition_on_previous_text": (None, []),
    "--fp16": ([], []),
}
_TRUTH = {"true": True, "1": True, "false": False, "0": False, "none": False}


def from_whisper(command: str, arguments: Sequence[str]) -> list[str]:
    """`arguments` with Whisper's options spelled as ours. Raises ConfigError for a value that means nothing here."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    taken, rest = list(arguments[:end]), list(arguments[end:])
    replaced: list[str] = []
    while taken:
        option, equals, value = taken.pop(0).partition("=")
        if option in SAME:
            replaced.append(SAME[option] + equals + value)
        elif option in BOOLEAN or option == "--task":
            value = value if equals else taken.pop(0) if taken else ""
            if option in BOOLEAN:
                replaced += _boolean(option, value)
            elif value != command:
                raise ConfigError(f"--task {value} is another command; use qwen2-audio translate or transcribe.")
        else:
            replaced.append(option + equals + value)
    return replaced + rest


def _boolean(option: str, value: str) -> list[str]:
    truth = _TRUTH.get(value.lower())
    if truth is None:
        raise ConfigError(f"{option} is {value!r}; expected True or False.")
    ours = BOOLEAN[option][0 if truth else 1]
    if ours is None:
        raise ConfigError(f"{option} {value} is not done here: windows do not hear each other's texts; leave it out.")
    return ours
