"""`qwen2-audio merge`: adds an adapter to its checkpoint, as a new checkpoint."""

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
DIFFERENT = 1  # exit status


def command(model: Model, adapter: Adapter, to: To, check: Check = False) -> int:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"{to} is not empty; name a new folder, so that nothing is overwritten.")
    with waiting("Merging"):
        differences = merge(model, adapter, to, check=check)
    for what, difference in differences.items():
        note(f"{what}: {difference}")
    print(to)
    return 0 if all(difference.passed for difference in differences.values()) else DIFFERENT


def merge(model: str, adapter: Path, to: Path, *, check: bool) -> dict[str, Difference]:
    """Write the merged checkpoint; with `check`, returns the comparisons by name. Raises WeightsError, ConfigError."""
    from .. import lora
    from ..checkpoint.locate import find
    from ..inputs.processor import Qwen2AudioProcessor
    from ..pretrained import Qwen2AudioForConditionalGeneration
    from ..train.checkpoint import write_result
    from ..train.start import stop_at_turn_end

    to = to.absolute()
    base = find(model)
    processor = Qwen2AudioProcessor.from_pretrained(base)
    merged = Qwen2AudioForConditionalGeneration.from_pretrained(base)
    lora.attach(merged, adapter)
    stop_at_turn_end(merged, processor)

    def save(folder: Path) -> None:
        merged.save_pretrained(folder)
        processor.save_pretrained(folder)

    if not check:
        lora.merge(merged)
        write_result(to, save)
        return {}
    from ..train.compare import difference, logits_of

    logits_attached = logits_of(merged, processor)
    lora.merge(merged)
    logits_merged = logits_of(merged, processor)
    write_result(to, save)
    logits_loaded = logits_of(
        Qwen2AudioForConditionalGeneration.from_pretrained(to), Qwen2AudioProcessor.from_pretrained(to)
    )
    return {
        "attached and merged": difference(logits_attached, logits_merged, merged.dtype),
        "merged and loaded again": difference(logits_merged, logits_loaded, merged.dtype),
    }
