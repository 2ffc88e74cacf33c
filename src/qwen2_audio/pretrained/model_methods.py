"""What Trainer, peft, accelerate and users' own code call on a model: the reference's methods beside loading and
`generate`. Nothing here runs in a forward pass."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import ConfigError
from ..model.encoder import Qwen2AudioEncoder
from ..model.initialize import initialize
from ..model.recompute import is_recomputing, recomputed_layers
from ..quantize.linear import QuantizedEmbedding, QuantizedLinear


class ModelMethods(nn.Module):
    """Mixin of all public classes."""

    config: Any
    base_model_prefix = ""
    main_input_name = "input_ids"
    model_tags = None
    supports_gradient_checkpointing = True
    is_parallelizable = False
    # What accelerate, FSDP's wrapping policies and transformers' own tools read.
    _no_split_modules = ("Qwen2AudioEncoderLayer", "Qwen2DecoderLayer")
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = False
    _can_compile_fullgraph = False
    _is_stateful = False
    _keep_in_fp32_modules = ()
    _keep_in_fp32_modules_strict = ()
    _keys_to_ignore_on_load_missing = ()
    _keys_to_ignore_on_load_unexpected = ()
    _keys_to_ignore_on_save = ()

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if getattr(config, "gradient_checkpointing", False):  # how it was switched on before there was a method
            self.gradient_checkpointing_enable()

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

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return False

    def post_init(self) -> None:
        """Nothing: subclasses of users call it last in their constructor, and weights are drawn before."""

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
        self,
        gradient_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Compute the activations inside layers again in the backward pass instead of keeping them.

        Args:
            gradient_checkpointing_kwargs: options of `torch.utils.checkpoint.checkpoint`. `use_reentrant` is False
                unless it is set; True needs inputs with gradients, which are then asked for.
            every_n_layers: 2 recomputes every second layer, and so on.
            offload: refused; what is saved for the backward pass stays where it is.

        Raises:
            ConfigError: `offload`.
        """
        if offload:
            raise ConfigError("offload is not offered for gradient checkpointing; leave it out.")
        options = {"use_reentrant": False, **(gradient_checkpointing_kwargs or {})}
        for number, layer in enumerate(recomputed_layers(self)):
            layer._gradient_checkpointing_func = partial(checkpoint, **options)
            layer.gradient_checkpointing = number % every_n_layers == 0
        if options["use_reentrant"]:
            self.enable_input_require_grads()

    def gradient_checkpointing_disable(self) -> None:
        """Keep the activations again."""
        for layer in recomputed_layers(self):
            layer.gradient_checkpointing = False

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
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
        """Give the outputs of embedding and first convolution a gradient: for adapters on a frozen model."""
        self.disable_input_require_grads()
        embedding = self.get_input_embeddings()  # type: ignore[operator]  # each class has one
        first = [embedding, *(m.conv1 for m in self.modules() if isinstance(m, Qwen2AudioEncoder))]
        self._require_grads_hooks = [module.register_forward_hook(_require_grad) for module in first]

    def disable_input_require_grads(self) -> None:
        """Undo `enable_input_require_grads`."""
        for hook in getattr(self, "_require_grads_hooks", ()):
            hook.remove()
        self._require_grads_hooks = []


def _require_grad(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
    output.requires_grad_(True)


def _num_quantized(module: nn.Module, exclude_embeddings: bool) -> int:
    """The weights of a quantised layer, whose codes are no parameters."""
    if isinstance(module, QuantizedLinear):
        return module.out_features * (module.in_features + (module.bias is not None))
    if isinstance(module, QuantizedEmbedding) and not exclude_embeddings:
        return module.num_embeddings * module.embedding_dim
    return 0
