"""Find the checkpoint of a name: a folder, a repository of the hub, or nano, the checkpoint of the package."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import WeightsError

MODEL_VARIABLE = "QWEN2_AUDIO_MODEL"
NANO = "nano"
FOR_REAL_RECORDINGS = "Qwen/Qwen2-Audio-7B-Instruct"


def nano_path() -> Path:
    """The folder of nano, the checkpoint of the package. Raises WeightsError if it is missing."""
    folder = _nano_folder()
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"The bundled checkpoint nano is not in this installation ({folder} has no config.json); install the "
            f"package again, or name another checkpoint, such as {FOR_REAL_RECORDINGS}."
        )
    return folder


def default_model() -> str:
    """The checkpoint that is loaded without a name: $QWEN2_AUDIO_MODEL, else nano."""
    return os.environ.get(MODEL_VARIABLE) or NANO


def find(name: str | Path | None) -> str | Path:
    """The folder or hub name that `name` stands for: None is the default, "nano" the bundled checkpoint."""
    name = name or default_model()
    return nano_path() if name == NANO and not Path(NANO).is_dir() else name


def api_name(where: str | Path) -> str:
    """What a checkpoint is called in the API: nano, owner/name, or the last part of its folder."""
    folder = Path(where)
    if folder == _nano_folder():
        return NANO
    return folder.resolve().name if folder.is_dir() else str(where)


def about(where: str | Path) -> str:
    """One line on a checkpoint: its name, or what nano is for."""
    if not isinstance(where, Path) or where != _nano_folder():
        return f"{where}"
    size = sum(path.stat().st_size for path in Path(where).glob("*.safetensors")) / 10**6
    return (
        f"nano: a {size:.0f}-MB toy trained on synthetic sounds, to try things out with; "
        f"for real recordings load {FOR_REAL_RECORDINGS}."
    )


def _nano_folder() -> Path:
    return Path(__file__).parent.parent / "nano"
