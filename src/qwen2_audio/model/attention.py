"""Attention in three equivalent implementations: eager (readable, returns weights), sdpa (default), flash_attention_2
(CUDA).

Shapes: q [B, H, Q, D]; k, v [B, KVH, K, D] with H a multiple of KVH; out [B, H, Q, D].
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from ..errors import ConfigError

IMPLEMENTATIONS = ("eager", "sdpa", "flash_attention_2")


@dataclass(frozen=True)
class Packing:
    """The indices of the valid positions of padded rows [B, S], for kernels that take rows concatenated."""

    index: tuple[torch.Tensor, ...]  # rows and columns, int64 [N] each
    ends: torch.Tensor  # int32 [B + 1] cumulative lengths
    longest: int  # valid positions of the longest row

    @classmethod
    def from_mask(cls, valid: torch.Tensor) -> Packing:
        """From bool [B, S]. Synchronizes with the device twice."""
        lengths = valid.sum(1)
        ends = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        return cls(valid.nonzero(as_tuple=True), ends, int(lengths.max()))


@dataclass(frozen=True)
class AttentionMask:
    """Which keys each query attends to. One object serves all layers of a forward pass."""

    causal: bool = False  # query i of Q attends to the first K - Q + i + 1 keys
    mask: torch.Tensor | None = None  # bool, broadcasts to [B, 1, Q, K]; True: attend. Includes causality
    keys: torch.Tensor | None = None  # bool [B, K]; the mask without causality, which flash attention takes
    _packed: dict[int, Packing] = field(default_factory=dict, compare=False)

    def packed(self, last: int) -> Packing:
        """The packing of the last `last` columns of `keys`; computed once for all layers."""
        assert self.keys is not None
        if last not in self._packed:
            self._packed[last] = Packing.from_mask(self.keys[:, self.keys.shape[1] - last :])
        return self._packed[last]


ALL = AttentionMask()


def check_implementation(name: str) -> str:
    """Return `name` if this machine can run it. Raises ConfigError with what is missing."""
    if name not in IMPLEMENTATIONS:
        known = ", ".join(IMPLEMENTATIONS)
        raise ConfigError(f'Specified `attn_implementation="{name}"` is not supported; expected one of {known}.')
    if name == "flash_attention_2":
        if importlib.util.find_spec("flash_attn") is None:
            raise ConfigError(
                "attn_implementation 'flash_attention_2' needs the package flash-attn, which is not installed; "
                "install it or use 'sdpa'."
            )
        if not torch.cuda.is_available():
            raise ConfigError(
                "attn_implementation 'flash_attention_2' needs a CUDA device, and none is visible; use 'sdpa'."
            )
    return name


def attend(
    implementation: str,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    visible: AttentionMask = ALL,
    *,
    scale: float,
    dropout: float = 0.0,
    softmax_dtype: torch.dtype | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """softmax(q k^T * scale) v: [B, H, Q, D], and the weights [B, H, Q, K] if `implementation` is "eager".

    `softmax_dtype` is the dtype of the eager softmax; None: the dtype of the scores.
    """
    if implementation == "eager":
        return _eager(q, k, v, visible, scale, dropout, softmax_dtype)
    if implementation == "flash_attention_2":
        return _flash(q, k, v, visible, scale, dropout), None
    return _sdpa(q, k, v, visible, scale, dropout), None


def causal_mask(queries: int, keys: int, device: torch.device) -> torch.Tensor:
    """Bool [Q, K]: each of the last `queries` of `keys` positions attends to itself and all before it."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def _eager(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    visible: AttentionMask,
    scale: float,
    dropout: float,
    softmax_dtype: torch.dtype | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = q @ k.transpose(-1, -2) * scale  # [B, H, Q, K]
    mask = visible.mask
    if mask is None and visible.causal:
        mask = causal_mask(q.shape[2], k.shape[2], q.device)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1, dtype=softmax_dtype).to(q.dtype)
    weights = F.dropout(weights, dropout) if dropout else weights
    return weights @ v, weights


def _sdpa(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, visible: AttentionMask, scale: float, dropout: float
) -> torch.Tensor:
    queries, keys = q.shape[2], k.shape[2]
    mask, causal = visible.mask, False
    if mask is None and visible.causal and queries > 1:
        # torch aligns its causal triangle at the top left, which is right without a cache only. While torch.jit traces,
        # sizes are tensors.
        causal = bool(queries == keys)
        mask = None if causal else causal_mask(queries, keys, q.device)
    gqa = bool(q.shape[1] != k.shape[1])
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, scale=scale, dropout_p=dropout, enable_gqa=gqa
    )


def _flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, visible: AttentionMask, scale: float, dropout: float
) -> torch.Tensor:
    from flash_attn import flash_attn_func, flash_attn_varlen_func

    options = {"dropout_p": dropout, "softmax_scale": scale, "causal": visible.causal}
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # [B, S, heads, D]
    if visible.keys is None:
        return flash_attn_func(q, k, v, **options).transpose(1, 2)  # type: ignore[no-any-return]
    # Remove padding: concatenate the valid positions of all rows, and scatter the results back. The queries are the
    # last positions of the keys.
    queries, keys = visible.packed(q.shape[1]), visible.packed(k.shape[1])
    packed = flash_attn_varlen_func(
        q[queries.index],
        k[keys.index],
        v[keys.index],
        queries.ends,
        keys.ends,
        queries.longest,
        keys.longest,
        **options,
    )
    out = torch.zeros_like(q)
    out[queries.index] = packed
    return out.transpose(1, 2)


def attend_spans(
    implementation: str,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    spans: list[int],
    *,
    scale: float,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attention within each of several concatenated clips: q, k, v and out `[1, H, sum(spans), D]`."""
    if implementation == "flash_attention_2":
        from flash_attn import flash_attn_varlen_func

        ends = F.pad(torch.tensor(spans).cumsum(0), (1, 0)).to(torch.int32).to(q.device)
        packed = (t[0].transpose(0, 1) for t in (q, k, v))  # [N, H, D]
        out = flash_attn_varlen_func(
            *packed, ends, ends, max(spans), max(spans), dropout_p=dropout, softmax_scale=scale, causal=False
        )
        return out.transpose(0, 1)[None]  # type: ignore[no-any-return]
    parts = zip(q.split(spans, 2), k.split(spans, 2), v.split(spans, 2), strict=True)
    return torch.cat([attend(implementation, *part, scale=scale, dropout=dropout)[0] for part in parts], dim=2)
