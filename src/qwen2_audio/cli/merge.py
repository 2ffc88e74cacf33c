"""`qwen2-audio merge`: a checkpoint and its adapter become one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from .terminal import waiting

Model = Annotated[str, typer.Argument(help="The checkpoint the adapter was made for: folder, hub name, or nano.")]
Adapter = Annotated[Path, typer.Argument(help="Folder with adapter_config.json and adapter_model.safetensors.")]
To = Annotated[Path, typer.Option(help="Folder for the merged checkpoint; new, or empty.")]


def command(model: Model, adapter: Adapter, to: To) -> None:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"{to} is not empty; name a new folder, so that nothing is overwritten.")
    with waiting("Merging"):
        from .. import lora
        from ..api.loading import find
        from ..pretrained import Qwen2AudioForConditionalGeneration
        from ..processor import Qwen2AudioProcessor

        where = find(model)
        processor = Qwen2AudioProcessor.from_pretrained(where)
        merged = Qwen2AudioForConditionalGeneration.from_pretrained(where)
        lora.attach(merged, adapter)
        lora.merge(merged)
        merged.save_pretrained(to)
        processor.save_pretrained(to)
    print(to)
