"""Layers that run in native code where they can, and otherwise as their readable parents do.

    few rows with a native cache    all layers of the step in one call
    other passes                    native matrix products (one call for those that share an input), norm, RoPE, SwiGLU;
                                    attention is native over a native cache, else torch's

A native cache is a NativeKVCache, or a PagedAttentionBatch over a NativePagedStorage. With one, a sequence's result
does not depend, in any bit, on what it is batched with or on how its new positions are split into passes.

Native code needs: float32 on the CPU, attn_implementation "sdpa", no gradients, no training, no hooks (but those of
adapters by request, layer by layer), and all linear layers quantised (for the one call, all may have float32 weights
instead).

B rows, Q new positions (1 and N of a PagedAttentionBatch), H hidden width, D head width.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

from ..model.attention import ALL, AttentionMask, attend, attend_spans
from ..model.cache import KVCache
from ..model.encoder import Qwen2AudioEncoderLayer
from ..model.language_model import Cache, Qwen2DecoderLayer, Qwen2LanguageModel, Rope
from ..model.paged import PagedAttentionBatch, PagedStorage
from . import dense, fused, library
from .bound_weights import DECODER_LINEARS, BoundWeights, LayerTable, quantized
from .cache import NativeKVCache
from .cache_slot import CacheSlot
from .dense import DenseLinear
from .paged import NativePagedStorage


class Native(nn.Module):
    """What the native layers share. A native layer has the modules of the layer that it was made from, by name."""

    LINEARS: tuple[str, ...] = ()
    config: Any
    _bound_weights: BoundWeights | None

    @classmethod
    def adopt(cls, layer: nn.Module) -> Self:
        """A native layer with the modules and attributes of `layer`."""
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        new.__dict__.update(layer.__dict__)
        new._bound_weights = None
        return new

    @classmethod
    def fits(cls, layer: nn.Module) -> bool:
        """Whether all its linear layers are quantised."""
        return all(quantized(layer.get_submodule(path)) for path in cls.LINEARS)

    def bound_weights(self) -> BoundWeights | None:
        """The linear layers, bound again if they changed. None if one is not quantised any more, or is listened to."""
        if self._bound_weights is None or not self._bound_weights.is_current():
            self._bound_weights = BoundWeights(self, self.LINEARS) if self.fits(self) else None
        bound = self._bound_weights
        return bound if bound is not None and not bound.listened_to else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bound_weights": None}  # a copy has other addresses


def runs_natively(x: torch.Tensor, module: nn.Module, norm: torch.Tensor, implementation: str) -> bool:
    """Whether native code may compute `module`, whose first operation is a norm with weight `norm`, for x."""
    return (
        library.has_memory(x)
        and x.dtype == norm.dtype == torch.float32
        and x.device.type == norm.device.type == "cpu"
        and not module.training
        and implementation == "sdpa"
        and not (torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in module.parameters())))
        and x.numel() > 0
        and x.shape[-1] == norm.numel()
        and fused.kernels() is not None
    )


class NativeDecoderLayer(Native, Qwen2DecoderLayer):
    """`Qwen2DecoderLayer` on the kernels."""

    LINEARS = DECODER_LINEARS

    def forward(
        self, x: torch.Tensor, rope: Rope, visible: AttentionMask, cache: Cache | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        norm, implementation = self.input_layernorm.weight, self.self_attn.config._attn_implementation
        bound = self.bound_weights() if runs_natively(x, self, norm, implementation) else None
        if bound is None:
            return super().forward(x, rope, visible, cache)
        normed = fused.rms_norm(x, norm, self.input_layernorm.eps)
        q, k, v = bound.products(("q_proj", "k_proj", "v_proj"), normed)
        (out,) = bound.products(("o_proj",), self._attend(q, k, v, rope, visible, cache))
        x = out.add_(x)  # not x.add_(out): the caller may still need x
        normed = fused.rms_norm(x, self.post_attention_layernorm.weight, self.post_attention_layernorm.eps)
        gate, up = bound.products(("gate_proj", "up_proj"), normed)
        (out,) = bound.products(("down_proj",), fused.silu_mul_(gate, up))
        return out.add_(x), None

    def _attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        rope: Rope,
        visible: AttentionMask,
        cache: Cache | None,
    ) -> torch.Tensor:
        """q, k, v [B, Q, heads * D] before RoPE -> [B, Q, heads * D]."""
        attention = self.self_attn
        config, shape = attention.config, (q.shape[0], q.shape[1])
        slot = CacheSlot.reserve(config, cache, attention.layer, shape, rope, visible)
        step = slot.step if slot is not None else fused.Step(config, (*shape, 0), rope)
        fused.rotate_(step, q)
        fused.rotate_(step, k)
        if slot is not None:
            fused.write_kv(step, slot.address, k, v)
            slot.advance()
            return fused.attention(step, slot.address, q)
        query, key, value = (t.view(*t.shape[:2], -1, attention.head_dim).transpose(1, 2) for t in (q, k, v))
        run = attend if cache is None else partial(cache.attend, attention.layer)
        out, _ = run("sdpa", query, key, value, visible, scale=attention.head_dim**-0.5)
        return out.transpose(1, 2).reshape(q.shape)


class NativeLanguageModel(Native, Qwen2LanguageModel):
    """`Qwen2LanguageModel` with native layers, or with float32 weights: one call takes few rows through all layers."""

    kv_cache_dtype: str  # "float32", "float16" or "int8"
    _layer_table: LayerTable | None

    @classmethod
    def adopt(cls, layer: nn.Module) -> Self:
        new = super().adopt(layer)
        new._layer_table = None
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_layer_table": None}

    def new_cache(self, batch: int, capacity: int = 0) -> KVCache:
        """A NativeKVCache in `kv_cache_dtype` for a float32 model on the CPU, else the ordinary one."""
        if not self._computes_in_float32_on_cpu():
            return super().new_cache(batch, capacity)
        return NativeKVCache(self.config, batch, kv_dtype=self.kv_cache_dtype, capacity=capacity)

    def new_paged(self, blocks: int) -> PagedStorage:
        """A NativePagedStorage in `kv_cache_dtype` for a float32 model on the CPU, else the ordinary one."""
        if not self._computes_in_float32_on_cpu():
            return super().new_paged(blocks)
        return NativePagedStorage(self.config, blocks, kv_dtype=self.kv_cache_dtype)

    def _computes_in_float32_on_cpu(self) -> bool:
        like = self.model.norm.weight
        return like.device.type == "cpu" and like.dtype == torch.float32

    def run_layers(
        self,
        x: torch.Tensor,
        rope: Rope,
        visible: AttentionMask,
        cache: Cache | None,
        *,
        states: list[torch.Tensor] | None = None,
        attentions: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        few = x.shape[0] * x.shape[1] <= fused.SMALL_ROWS and states is None and attentions is None
        norm, implementation = self.model.norm.weight, self.config._attn_implementation
        table = self.layer_table() if few and runs_natively(x, self, norm, implementation) else None
        slot = CacheSlot.reserve(self.config, cache, 0, (x.shape[0], x.shape[1]), rope, visible) if table else None
        if table is None or slot is None:
            return super().run_layers(x, rope, visible, cache, states=states, attentions=attentions)
        out, layers = x.clone(memory_format=torch.contiguous_format), len(self.model.layers)
        fused.layers_(table.address, slot.address, layers, slot.step, out)
        slot.advance(layers)
        return out

    def layer_table(self) -> LayerTable | None:
        """All layers for one call, bound again if they changed. None if a layer cannot run natively."""
        layers: Any = self.model.layers
        if self._layer_table is None or not self._layer_table.is_current(layers):
            weights: list[BoundWeights] = []
            for layer in layers:
                if (bound := self.bound_weights_of(layer)) is None:
                    break
                weights.append(bound)
            self._layer_table = LayerTable(layers, weights) if len(weights) == len(layers) else None
        # A table is kept while there are hooks: those of an adapter come and go with the passes that need it.
        return self._layer_table if self._layer_table is not None and not self._layer_table.hooked else None

    @staticmethod
    def bound_weights_of(layer: nn.Module) -> BoundWeights | None:
        if isinstance(layer, NativeDecoderLayer):
            return layer.bound_weights()
        linears = [layer.get_submodule(path) for path in DECODER_LINEARS]
        all_dense = all(isinstance(linear, DenseLinear) and linear.fits() for linear in linears)
        bound = BoundWeights(layer, DECODER_LINEARS) if all_dense and dense.worthwhile() else None
        return bound if bound is not None and not bound.hooked else None


class DenseLanguageModel(NativeLanguageModel):
    """`NativeLanguageModel` for packed passes only, the engine's steps; otherwise, and in its caches, the parent."""

    new_cache = Qwen2LanguageModel.new_cache
    new_paged = Qwen2LanguageModel.new_paged

    def run_layers(
        self, x: torch.Tensor, rope: Rope, visible: AttentionMask, cache: Cache | None, **kept: Any
    ) -> torch.Tensor:
        parent = NativeLanguageModel if isinstance(cache, PagedAttentionBatch) else Qwen2LanguageModel
        return parent.run_layers(self, x, rope, visible, cache, **kept)


class NativeEncoderLayer(Native, Qwen2AudioEncoderLayer):
    """`Qwen2AudioEncoderLayer` on the kernels: q, k and v in one call, the sums in place."""

    LINEARS = (*(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj")), "fc1", "fc2")

    def forward(
        self, x: torch.Tensor, visible: AttentionMask = ALL, spans: list[int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        norm, implementation = self.self_attn_layer_norm.weight, self.config._attn_implementation
        bound = self.bound_weights() if runs_natively(x, self, norm, implementation) else None
        if bound is None:
            return super().forward(x, visible, spans)
        attention = self.self_attn
        normed = self.self_attn_layer_norm(x)
        projected = bound.products(("q_proj", "k_proj", "v_proj"), normed)
        heads = (*x.shape[:2], attention.num_heads, attention.head_dim)
        q, k, v = (t.view(heads).transpose(1, 2) for t in projected)
        scale = attention.head_dim**-0.5
        if spans is not None:
            out = attend_spans("sdpa", q, k, v, spans, scale=scale)
        else:
            out, _ = attend("sdpa", q, k, v, visible, scale=scale)
        (x_new,) = bound.products(("out_proj",), out.transpose(1, 2).reshape(x.shape))
        x = x_new.add_(x)  # not x.add_(x_new): the caller may still need x
        (hidden,) = bound.products(("fc1",), self.final_layer_norm(x))
        (out,) = bound.products(("fc2",), F.gelu(hidden))
        return out.add_(x), None
