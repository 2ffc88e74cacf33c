"""Schemes: the format of each part of the model, and its description in config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from ..checkpoint.config import Qwen2AudioConfig
from ..errors import ConfigError, WeightsError, did_you_mean
from .linear import QuantizedEmbedding, QuantizedLinear
from .packing import BITS, GROUPS, Format

METHOD, VERSION = "qwen2-audio", 1
SCHEMES = ("int4", "int8")
KEY = "quantization_config"  # in config.json
EMBEDDING, HEAD = "language_model.model.embed_tokens", "language_model.lm_head"
# The encoder and the head have 8 bits in every scheme; the projector, which all audio passes through, has 16.
_INT8, _ROWS, _HALF = Format(8, 32), Format(8, 64), Format(16)
_DEFAULT_GROUPS = {"int4": 64, "int8": 32}


@dataclass(frozen=True)
class Scheme:
    """A name and the format of every quantised Linear and embedding, by its path in the complete model."""

    name: str
    modules: dict[str, Format]

    def to_config(self) -> dict[str, Any]:
        """The quantization_config object of config.json."""
        modules = {
            path: {"bits": form.bits} | ({"group": form.group} if form.group else {})
            for path, form in self.modules.items()
        }
        return {"quant_method": METHOD, "version": VERSION, "scheme": self.name, "modules": modules}

    @classmethod
    def for_model(cls, model: nn.Module, name: str, group: int | None = None, prefix: str = "") -> Scheme:
        """The formats of scheme `name` for `model`; `prefix` + a path of `model` is a path of the complete model.

        `group` is the group size of the language model's Linears. Raises ConfigError for an unknown name or group.
        """
        check_name(name)
        if group is not None and group not in GROUPS:
            raise ConfigError(f"group is {group!r}; expected 32 or 64 inputs that share a scale.")
        form = Format(4 if name == "int4" else 8, group or _DEFAULT_GROUPS[name])
        paths = {prefix + path: module for path, module in model.named_modules()}
        modules = {path: _format_of(path, form) for path, module in paths.items() if isinstance(module, nn.Linear)}
        if EMBEDDING in paths:
            modules[EMBEDDING] = _ROWS
        return cls(name, modules)

    @classmethod
    def from_config(cls, data: Any, where: Any) -> Scheme:
        """Read the result of `to_config`; `where` is the folder, for messages.

        Raises WeightsError for another method, another layout version, or an unknown scheme or format.
        """
        method = data.get("quant_method", "unknown") if isinstance(data, dict) else data
        if method != METHOD or not isinstance(data, dict):
            raise WeightsError(
                f"{where} is quantised ({method}); this package loads fp32, fp16 and bf16 checkpoints, and those that "
                "qwen2-audio quantize wrote. Take the checkpoint that this one was made from."
            )
        version = data.get("version")
        if version != VERSION:
            newer = isinstance(version, int) and version > VERSION
            advice = "update this package" if newer else "quantise the original checkpoint again"
            raise WeightsError(
                f"{where} is quantised in layout {version!r}, and this package reads layout {VERSION}; {advice}."
            )
        name, modules = data.get("scheme"), data.get("modules")
        if name not in SCHEMES or not isinstance(modules, dict):
            raise WeightsError(
                f"{where}: {KEY} has the scheme {name!r} and {len(modules) if isinstance(modules, dict) else 'no'} "
                f"modules; expected {' or '.join(SCHEMES)} and the format of each module. Fetch config.json again."
            )
        return cls(str(name), {path: _read_format(path, entry, where) for path, entry in modules.items()})

    def install(self, model: nn.Module, prefix: str = "") -> None:
        """Replace the model's layers by empty quantised layers on the meta device.

        Skips paths outside `prefix`, and the head if the model has none.
        Raises WeightsError for a path that is neither a Linear nor an embedding of the model.
        """
        layers = dict(model.named_modules())
        for path, form in self.modules.items():
            own_path = path.removeprefix(prefix)
            if not path.startswith(prefix) or (path == HEAD and HEAD not in layers):
                continue
            old = layers.get(own_path)
            if path == EMBEDDING and isinstance(old, nn.Embedding) and form.bits == 8:
                sizes = (old.num_embeddings, old.embedding_dim)
                new: nn.Module = QuantizedEmbedding(*sizes, form, device="meta")
            elif isinstance(old, nn.Linear):
                sizes = (old.in_features, old.out_features)
                new = QuantizedLinear(*sizes, form, bias=old.bias is not None, device="meta")
            else:
                raise WeightsError(
                    f"{KEY} names {path} with {form.bits} bits, which this model has no such layer for; "
                    "check that config.json belongs to these weights."
                )
            replace(model, own_path, new.train(old.training))


def check_name(name: Any) -> None:
    """Raise ConfigError unless `name` is a scheme."""
    if name not in SCHEMES:
        raise ConfigError(
            f"quantize is {name!r}; expected None, 'int4' or 'int8'.{did_you_mean(str(name), list(SCHEMES))}"
        )


def untied(config: Qwen2AudioConfig) -> Qwen2AudioConfig:
    """Set `config` to untied head and embedding, in place, and return it: quantised, they are always two tensors."""
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    return config


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` at `path` of `model`."""
    owner, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(owner), leaf, module)


def _format_of(path: str, form: Format) -> Format:
    if path.startswith("multi_modal_projector."):
        return _HALF
    return form if path.startswith("language_model.") and path != HEAD else _INT8


def _read_format(path: str, entry: Any, where: Any) -> Format:
    bits, group = (entry.get("bits"), entry.get("group", 0)) if isinstance(entry, dict) else (entry, 0)
    if bits not in BITS or (bits != 16 and group not in GROUPS):
        raise WeightsError(
            f"{where}: {path} has {bits!r} bits in groups of {group!r}; expected 4 or 8 bits in groups of 32 or 64, or "
            "16 bits. Fetch config.json again, or update this package."
        )
    return Format(bits, 0 if bits == 16 else group)
