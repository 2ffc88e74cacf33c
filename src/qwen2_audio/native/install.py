"""Put native layers into a model that is already built. Modules are replaced; names and weights stay."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import ConfigError
from ..model.encoder import Qwen2AudioEncoderLayer
from ..model.language_model import Qwen2DecoderLayer, Qwen2LanguageModel
from . import dense, fused
from .cache import check_kv_dtype
from .layers import DenseLanguageModel, Native, NativeDecoderLayer, NativeEncoderLayer, NativeLanguageModel

_LAYERS: dict[type[nn.Module], type[Native]] = {
    Qwen2DecoderLayer: NativeDecoderLayer,
    Qwen2AudioEncoderLayer: NativeEncoderLayer,
}


def accelerate(model: nn.Module, kv_cache: str | None = None) -> int:
    """Replace every layer whose linear layers are all quantised by a native one, and choose how the KV cache is stored.

    The other linear layers of the language model become `DenseLinear`s. A native layer computes as the layer that it
    replaced does in training, with gradients, in other dtypes, on other devices, and while it has hooks.

    Args:
        model: a Qwen2AudioModel, Qwen2AudioForConditionalGeneration or Qwen2AudioEncoder, quantised already if it is
            to be.
        kv_cache: "float16", "int8" or "float32". None: float16 if layers of the language model are native, else an
            ordinary cache in the model's dtype.

    Returns:
        How many layers are native now: 0 if there are no kernels or the model is not in float32 on the CPU.

    Raises:
        ConfigError: an unknown `kv_cache`, or one for a model that is not float32 on the CPU, or that has no cache.
    """
    parents = [module for module in model.modules() if isinstance(getattr(module, "language_model", None), nn.Module)]
    if kv_cache is not None:
        _check_kv_cache(check_kv_dtype(kv_cache), model, bool(parents))
    if not _computes_in_float32_on_cpu(model):
        return 0
    replaceable = [
        (parent, name, child, native)
        for parent in model.modules()
        for name, child in parent.named_children()
        if (native := _LAYERS.get(type(child))) is not None and native.fits(child)
    ]
    if replaceable and fused.kernels() is not None:
        for parent, name, child, native in replaceable:
            setattr(parent, name, native.adopt(child))
    for parent in parents:
        old = parent.get_submodule("language_model")
        dense.adopt(old)
        if kv_cache is None and not any(isinstance(module, NativeDecoderLayer) for module in old.modules()):
            if type(old) is Qwen2LanguageModel:
                parent.language_model = DenseLanguageModel.adopt(old)
            continue
        new = old if type(old) is NativeLanguageModel else NativeLanguageModel.adopt(old)
        assert isinstance(new, Qwen2LanguageModel)
        new.kv_cache_dtype = kv_cache or "float16"
        parent.language_model = new
    return sum(isinstance(module, NativeDecoderLayer | NativeEncoderLayer) for module in model.modules())


def _computes_in_float32_on_cpu(model: nn.Module) -> bool:
    return all(p.device.type == "cpu" and p.dtype == torch.float32 for p in model.parameters())


def _check_kv_cache(name: str, model: nn.Module, cached: bool) -> None:
    if not cached:
        raise ConfigError(f"kv_cache is {name!r}, but {type(model).__name__} keeps no KV cache; leave it out.")
    if not _computes_in_float32_on_cpu(model):
        first = next(model.parameters())
        dtype = str(first.dtype).removeprefix("torch.")
        raise ConfigError(
            f"kv_cache is {name!r}, which is for models that compute in float32 on the CPU; this one is {dtype} on "
            f"{first.device.type}. Leave it out."
        )
