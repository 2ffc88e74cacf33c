"""`qwen2-audio merge`: a checkpoint and its adapter become one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError
from .terminal import note, waiting

if TYPE_CHECKING:
    from ..train.compare import Difference

Model = Annotated[str, typer.Argument(help="The checkpoint the adapter was made for: folder, hub name, or nano.")]
Adapter = Annotated[Path, typer.Argument(help="Folder with adapter_config.json and adapter_model.safetensors.")]
To = Annotated[Path, typer.Option(help="Folder for the merged checkpoint; new, or empty.")]
Check = Annotated[
    bool, typer.Option("--check", help="Compare the logits before, after and from the folder; status 1 if they differ.")
]
DIFFERENT = 1


def command(model: Model, adapter: Adapter, to: To, check: Check = False) -> int:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"{to} is not empty; name a new folder, so that nothing is overwritten.")
    with waiting("Merging"):
        differences = merge(model, adapter, to, check=check)
    for what, found in differences.items():
        note(f"{what}: {found}")
    print(to)
    return 0 if all(found.passed for found in differences.values()) else DIFFERENT


def merge(model: str, adapter: Path, to: Path, *, check: bool) -> dict[str, Difference]:
    """Write the merged checkpoint; what `check` compared, by name. Raises WeightsError, ConfigError."""
    from .. import lora
    from ..checkpoint.locate import find
    from ..inputs.processor import Qwen2AudioProcessor
    from ..pretrained import Qwen2AudioForConditionalGeneration
    from ..train.checkpoint import write_result

    to = to.absolute()
    where = find(model)
    processor = Qwen2AudioProcessor.from_pretrained(where)
    merged = Qwen2AudioForConditionalGeneration.from_pretrained(where)
    lora.attach(merged, adapter)

    def save(folder: Path) -> None:
        merged.save_pretrained(folder)
        processor.save_pretrained(folder)

    if not check:
        lora.merge(merged)
        write_result(to, save)
        return {}
    from ..train.compare import difference, logits_of

    attached = logits_of(merged, processor)
    lora.merge(merged)
    together = logits_of(merged, processor)
    write_result(to, save)
    loaded = logits_of(Qwen2AudioForConditionalGeneration.from_pretrained(to), Qwen2AudioProcessor.from_pretrained(to))
    return {
        "attached and merged": difference(attached, together, merged.dtype),
        "merged and loaded again": difference(together, loaded, merged.dtype),
    }
