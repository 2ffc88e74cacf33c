"""`qwen2-audio info`: a checkpoint's memory and this machine's choices for it, or a clip's length and audio tokens."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from . import terminal


def command(
    target: Annotated[
        str | None,
        typer.Argument(help="A checkpoint (folder, hub name) or a clip (file, URL); default the model in use."),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(help="File of the spectrogram; default NAME.png in this folder if new.", show_default=False),
    ] = None,
    no_png: Annotated[bool, typer.Option("--no-png", help="Do not draw the spectrogram.")] = False,
    json: terminal.Json = False,
) -> None:
    with terminal.waiting("Looking"):
        facts = _facts(target, png, no_png)
    if json:
        print(terminal.as_json(facts))
        return
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):<{width}}{_shown(value)}")


def _facts(target: str | None, png: Path | None, no_png: bool) -> dict[str, Any]:
    if target is not None and _is_sound(target):
        from .info_sound import facts_of_sound

        if png is not None:
            _refuse_overwriting(target, png)
        return facts_of_sound(target, None if no_png else png or _default_png(target))
    from .info_checkpoint import facts_of_checkpoint

    return facts_of_checkpoint(target)


def _is_sound(target: str) -> bool:
    """Whether `target` is a clip: an existing file, the name of a sound file, or a URL; else it is a checkpoint."""
    from .chat_input import SOUND_SUFFIXES

    if os.path.isdir(target):  # Path.is_dir would raise for a long data: URI
        return False
    if os.path.isfile(target) or re.match(r"(https?|file)://|data:", target, re.IGNORECASE):
        return True
    return target.lower().endswith(SOUND_SUFFIXES)


def _refuse_overwriting(target: str, png: Path) -> None:
    """Raises ConfigError if the picture would overwrite the clip."""
    from ..audio.io import local_path
    from ..errors import ConfigError

    try:
        same = os.path.samefile(png, local_path(target) if target[:7].lower() == "file://" else target)
    except (OSError, ValueError):  # one of them is not a file
        return
    if same:
        raise ConfigError(f"--png {png} is the sound itself; name another file for its picture.")


def _default_png(target: str) -> Path | None:
    """NAME.png; None, with a note, if it exists, because nothing is overwritten without --png."""
    name = "" if target[:5].lower() == "data:" else Path(target.split("?")[0]).stem
    png = Path(f"{name or 'sound'}.png")
    if not os.path.lexists(png):
        return png
    terminal.note(f"{png} is there already and stays as it is; --png names a file for the picture, this one included.")
    return None


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "none" if value is None else str(value)
