"""What Trainer, peft, accelerate and users' own code call on a model: the reference's methods beside loading and
`generate`. Nothing here runs in a forward pass."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from ..model.initialize import initialize
from ..model.recompute import is_recomputing, recomputed_layers
from ..quantize.linear import QuantizedEmbedding, QuantizedLinear


class ModelMethods(nn.Module):
    """Mixin of all public classes."""

    config: Any
    base_model_prefix: ClassVar[str] = ""
    main_input_name: ClassVar[str] = "input_ids"
    model_tags: ClassVar[list[str] | None] = None
    supports_gradient_checkpointing: ClassVar[bool] = True
    is_parallelizable: ClassVar[bool] = False
    _no_split_modules: ClassVar[list[str]] = ["Qwen2AudioEncoderLayer", "Qwen2DecoderLayer"]  # accelerate, FSDP
    _supports_sdpa: ClassVar[bool] = True
    _supports_flash_attn: ClassVar[bool] = True
    _keys_to_ignore_on_load_missing: ClassVar[list[str] | None] = None
    _keys_to_ignore_on_save: ClassVar[list[str] | None] = None
    _keep_in_fp32_modules: ClassVar[list[str] | None] = None

    @property
    def name_or_path(self) -> str:
        """The name or folder that the config was read from; "" for one that was made."""
        return str(self.config.name_or_path)

    @property
    def base_model(self) -> nn.Module:
        """The model without its head; of a model that has none, itself."""
        return self

    @classmethod
    def can_generate(cls) -> bool:
        """Whether it has `generate`."""
        return hasattr(cls, "generate")

    # Parameters

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """The number of parameters, a tied one once. Quantised weights, which cannot be trained, count as weights."""
        embeddings = {
            id(module.weight) for module in self.modules() if exclude_embeddings and isinstance(module, nn.Embedding)
        }
        counted = [p for p in self.parameters() if id(p) not in embeddings and (p.requires_grad or not only_trainable)]
        codes = 0 if only_trainable else sum(_num_quantized(module, exclude_embeddings) for module in self.modules())
        return sum(p.numel() for p in counted) + codes

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the parameters and, unless told otherwise, of the buffers."""
        tensors = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(t.numel() * t.element_size() for t in tensors)

    def init_weights(self) -> None:
        """Draw all weights again, as at first; see `model/initialize.py`."""
        initialize(self, self.config)

    # Gradient checkpointing

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, every_n_layers: int = 1, offload: bool = False
    ) -> None:
        """Compute the activations inside layers again in the backward pass instead of keeping them.

        Gradients are the same. Of `gradient_checkpointing_kwargs` nothing is used: layers are always recomputed in the
        non-reentrant way, which needs no inputs with gradients; `offload` keeps nothing elsewhere. Layers that are no
        multiple of `every_n_layers` keep their activations.
        """
        for number, layer in enumerate(recomputed_layers(self)):
            layer.gradient_checkpointing = number % every_n_layers == 0

    def gradient_checkpointing_disable(self) -> None:
        """Keep the activations again."""
        for layer in recomputed_layers(self):
            layer.gradient_checkpointing = False

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, every_n_layers: int = 1, offload: bool = False
    ) -> None:
        """The newer name of `gradient_checkpointing_enable`."""
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs, every_n_layers, offload)

    def activation_checkpointing_disable(self) -> None:
        """The newer name of `gradient_checkpointing_disable`."""
        self.gradient_checkpointing_disable()

    @property
    def is_gradient_checkpointing(self) -> bool:
        return is_recomputing(self)

    @property
    def is_activation_checkpointing(self) -> bool:
        return is_recomputing(self)

    def enable_input_require_grads(self) -> None:
        """Give the output of the embedding a gradient, for adapters on a frozen model."""
        self.disable_input_require_grads()
        embedding = self.get_input_embeddings()
        self._require_grads_hook = embedding.register_forward_hook(lambda module, inputs, out: out.requires_grad_(True))

    def disable_input_require_grads(self) -> None:
        """Undo `enable_input_require_grads`."""
        hook = getattr(self, "_require_grads_hook", None)
        if hook is not None:
            hook.remove()
            self._require_grads_hook = None

    def get_input_embeddings(self) -> nn.Module:
        raise NotImplementedError


def _num_quantized(module: nn.Module, exclude_embeddings: bool) -> int:
    """The weights of a quantised layer, whose codes are no parameters."""
    if isinstance(module, QuantizedLinear):
        return module.out_features * (module.in_features + (module.bias is not None))
    if isinstance(module, QuantizedEmbedding) and not exclude_embeddings:
        return module.num_embeddings * module.embedding_dim
    return 0
