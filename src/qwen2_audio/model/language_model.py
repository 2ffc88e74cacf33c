"""The language model: Qwen2, with biases on q, k, v only.

B batch, q new positions, kv positions in cache and new, H width, D head width, V vocabulary.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..checkpoint.config import Qwen2Config
from ..errors import ConfigError
from .attention import ALL, AttentionMask, attend, causal_mask
from .cache import KVCache
from .outputs import LanguageModelOutput
from .paged import DecodeBatch, PagedAttentionBatch, PagedStorage
from .recompute import RecomputedLayer

Rope = tuple[torch.Tensor, torch.Tensor]
Cache = KVCache | PagedAttentionBatch | DecodeBatch


class RMSNorm(nn.Module):
    """weight * (x / rms(x)); x / rms(x) is computed in fp32 and cast back before the product."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normalized = x.float()
        normalized = normalized * torch.rsqrt(normalized.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * normalized.to(x.dtype)


class RotaryEmbedding:
    """cos and sin of position times frequency: RoPE, https://arxiv.org/abs/2104.09864. Not a module: no weights."""

    def __init__(self, config: Qwen2Config) -> None:
        self.theta, self.dim = config.rope_theta, config.head_dim
        self._inv_freq: torch.Tensor | None = None  # fp32 [D / 2], made on first use on the device of the positions

    def __call__(self, position_ids: torch.Tensor, dtype: torch.dtype) -> Rope:
        """Positions [B, q] -> cos, sin [B, 1, q, D] in `dtype`; the angles are fp32."""
        if self._inv_freq is None or self._inv_freq.device != position_ids.device:
            exponents = torch.arange(0, self.dim, 2, dtype=torch.int64).float() / self.dim
            self._inv_freq = (1.0 / self.theta**exponents).to(position_ids.device)
        angles = position_ids[:, None, :, None].float() * self._inv_freq  # [B, 1, q, D / 2]
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: torch.Tensor, rope: Rope) -> torch.Tensor:
    """Apply RoPE to [B, heads, q, D]; element i of the first half is paired with element i of the second."""
    cos, sin = rope
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Qwen2Attention(nn.Module):
    def __init__(self, config: Qwen2Config, layer: int) -> None:
        super().__init__()
        self.config, self.layer, self.head_dim = config, layer, config.head_dim
        width, kv_width = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, width)
        self.k_proj = nn.Linear(config.hidden_size, kv_width)
        self.v_proj = nn.Linear(config.hidden_size, kv_width)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=False)

    def forward(
        self, x: torch.Tensor, rope: Rope, visible: AttentionMask, cache: Cache | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x [B, q, H] -> [B, q, H], and the weights [B, heads, q, kv] if eager. k is cached after its rotation."""
        heads = (*x.shape[:2], -1, self.head_dim)
        q = rotate(self.q_proj(x).view(heads).transpose(1, 2), rope)  # [B, heads, q, D]
        k = rotate(self.k_proj(x).view(heads).transpose(1, 2), rope)
        v = self.v_proj(x).view(heads).transpose(1, 2)
        out, weights = (attend if cache is None else partial(cache.attend, self.layer))(
            self.config._attn_implementation,
            q,
            k,
            v,
            visible,
            scale=self.head_dim**-0.5,
            dropout=self.config.attention_dropout if self.training else 0.0,
            softmax_dtype=torch.float32,
        )
        return self.o_proj(out.transpose(1, 2).reshape(*x.shape[:2], -1)), weights


class Qwen2MLP(nn.Module):
    """SwiGLU feed-forward, https://arxiv.org/abs/2002.05202."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class Qwen2DecoderLayer(RecomputedLayer):
    def __init__(self, config: Qwen2Config, layer: int) -> None:
        super().__init__()
        self.self_attn = Qwen2Attention(config, layer)
        self.mlp = Qwen2MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, x: torch.Tensor, rope: Rope, visible: AttentionMask, cache: Cache | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attended, weights = self.self_attn(self.input_layernorm(x), rope, visible, cache)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), weights


class Qwen2Model(nn.Module):
    """Embedding, layers and final norm: the checkpoint's `language_model.model`."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([Qwen2DecoderLayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Qwen2LanguageModel(nn.Module):
    """`model` and, with `head`, `lm_head`."""

    _supports_sdpa = True  # asked by transformers' tools, here and in the encoder

    def __init__(self, config: Qwen2Config, *, head: bool = True, tied: bool = False) -> None:
        super().__init__()
        self.config = config
        self.cached = config  # the config for KV caches; with tensor parallelism it has this process's heads only
        self.model = Qwen2Model(config)
        self.rotary = RotaryEmbedding(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False) if head else None
        if tied and self.lm_head is not None:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        *,
        inputs_embeds: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> LanguageModelOutput:
        """Run new positions through the layers and append them to `past_key_values`, if given.

        Args:
            input_ids: int64 [B, q]; or inputs_embeds.
            inputs_embeds: [B, q, H].
            attention_mask: 0/1 [B, kv], for cached and new positions. None: every position is valid.
            position_ids: int64 [B, q]. None: counts from the cache's length.
            past_key_values: a cache, which is written in place.
            logits_to_keep: the positions that get logits. 0: all; n: the last n; int64 [B]: one per row; bool [B, q]:
                the N true ones, as logits [N, V].
            output_attentions: return the attention weights of each layer; needs attn_implementation "eager".
            output_hidden_states: return the input of the first layer and the output of each layer.

        Raises:
            ConfigError: output_attentions with an implementation other than "eager", or a mask of another length.
        """
        if output_attentions and self.config._attn_implementation != "eager":
            raise ConfigError("output_attentions needs attn_implementation='eager'; load the model with it.")
        x = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        past = past_key_values.length if past_key_values is not None else 0
        if position_ids is None:
            position_ids = torch.arange(past, past + x.shape[1], device=x.device)[None]
        rope = self.rotary(position_ids, x.dtype)
        visible = self._make_mask(attention_mask, x.shape[1], past, x.device)
        states: list[torch.Tensor] = []
        attentions: list[torch.Tensor] = []
        x = self.run_layers(
            x,
            rope,
            visible,
            past_key_values,
            states=states if output_hidden_states else None,
            attentions=attentions if output_attentions else None,
        )
        x = self.model.norm(x)
        states.append(x)
        return LanguageModelOutput(
            logits=None if self.lm_head is None else self.lm_head(keep_positions(x, logits_to_keep)),
            last_hidden_state=x,
            past_key_values=past_key_values,
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )

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
        """Run x [B, q, H] through all layers. Appends their inputs to `states` and their weights to `attentions`."""
        for layer in self.model.layers:
            if states is not None:  # without the list, a layer's input is freed as soon as the next layer has run
                states.append(x)
            x, weights = layer(x, rope, visible, cache)
            if attentions is not None:
                attentions.append(weights)
        return x

    def new_cache(self, batch: int, capacity: int = 0) -> KVCache:
        """An empty KV cache for `batch` rows that holds `capacity` positions before it grows."""
        like = self.model.norm.weight
        return KVCache(self.cached, batch, dtype=like.dtype, device=like.device, capacity=capacity)

    def new_paged(self, blocks: int) -> PagedStorage:
        """A paged KV cache of `blocks` blocks for many sequences."""
        like = self.model.norm.weight
        return PagedStorage(self.cached, blocks, dtype=like.dtype, device=like.device)

    @staticmethod
    def _make_mask(attention_mask: torch.Tensor | None, queries: int, past: int, device: torch.device) -> AttentionMask:
        """The mask of `queries` new positions after `past` cached ones; `attention_mask` 0/1 [B, past + queries]."""
        if attention_mask is None:
            causal = causal_mask(queries, past + queries, device) if past and queries > 1 else None
            return AttentionMask(causal=True, mask=causal) if queries > 1 else ALL
        keys = attention_mask.bool().to(device)  # [B, kv]
        if keys.shape[1] != past + queries:
            raise ConfigError(
                f"attention_mask covers {keys.shape[1]} positions; expected {past + queries} "
                f"({past} cached and {queries} new)."
            )
        mask = keys[:, None, None, :]  # [B, 1, 1, kv]
        if queries > 1:
            # A padded query has no valid key, and a softmax over no keys is NaN: let every query attend to itself.
            diagonal = torch.ones(queries, past + queries, dtype=torch.bool, device=device).tril(past).triu(past)
            mask = mask & causal_mask(queries, past + queries, device) | diagonal  # [B, 1, q, kv]
        return AttentionMask(causal=queries > 1, mask=mask, keys=keys)


def keep_positions(x: torch.Tensor, keep: int | torch.Tensor) -> torch.Tensor:
    """The positions of [B, q, H] that get logits: all (0), the last n, one per row (int64 [B]), or the N true ones.

    Returns [B, kept, H], or [N, H] for a bool mask.
    """
    if isinstance(keep, torch.Tensor):
        keep = keep.to(x.device)
        return x[keep] if keep.dtype == torch.bool else x[torch.arange(x.shape[0], device=x.device), keep][:, None]
    return x[:, -keep:] if keep else x
