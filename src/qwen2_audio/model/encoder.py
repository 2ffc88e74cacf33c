"""The audio encoder: Whisper's, with a pooling by two before the last LayerNorm.

A clips, F mel frames, E = ceil(F / 2) encoder frames, N = E // 2 audio tokens, d model width.

Two entry points share the layers:

    forward(window)  as the reference: every clip is padded to the full window, and padded keys are masked
    encode(clips)    computes only the valid frames, clips concatenated; the result is the same, because the mask
                     hides padded frames from every valid frame

Through the two convolutions, encoder frame j depends on mel frames 2j-2 .. 2j+2. The last valid frame therefore depends
on up to two mel frames after the clip: `encode` needs `frames_needed(L)` mel frames, not L.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..audio.mel import num_audio_tokens, num_encoder_frames
from ..checkpoint.config import Qwen2AudioConfig, Qwen2AudioEncoderConfig
from ..errors import AudioError, ConfigError
from .attention import ALL, AttentionMask, attend, attend_spans
from .outputs import EncoderOutput, as_asked, chosen
from .recompute import RecomputedLayer


def frames_needed(mel_frames: int, window: int) -> int:
    """Mel frames that the valid encoder frames of a clip depend on; at most `window`."""
    return min(2 * num_encoder_frames(mel_frames) + 1, window)


def listened_to(*modules: nn.Module) -> bool:
    """Whether `modules` or their parts have hooks, not counting torch's own (FSDP's, parametrizations') and ours."""
    hooks = [
        hook
        for root in modules
        for module in root.modules()
        for kind in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        for hook in tuple(kind.values())  # at once: another thread may add one
    ]
    ours = f"{__package__.partition('.')[0]}."
    return any(not str(getattr(hook, "__module__", "")).startswith(("torch.", ours)) for hook in hooks)


def pad_to_window(input_features: torch.Tensor, lengths: list[int], window: int) -> torch.Tensor:
    """Log-mel [A, mel bins, F] as it would be had the clips been padded with silence: [A, mel bins, window].

    The log-mel of silence is 8 decades below the clip's loudest value, divided by 4, and at least that of 1e-10: -1.5
    (whisper, `audio.py`). The two frames after a clip's `lengths` still see its end.
    """
    if input_features.shape[-1] >= window:
        return input_features
    padded = F.pad(input_features, (0, window - input_features.shape[-1]))
    needed = torch.tensor(lengths, device=padded.device)[:, None, None] + 2
    own = torch.arange(window, device=padded.device) < needed  # [A, 1, window]
    loudest = padded.masked_fill(~own, float("-inf")).amax((1, 2), keepdim=True)
    return torch.where(own, padded, (loudest - 2.0).clamp(min=-1.5))


class Qwen2AudioAttention(nn.Module):
    """Self-attention among the frames of a clip. k_proj has no bias."""

    def __init__(self, config: Qwen2AudioEncoderConfig) -> None:
        super().__init__()
        d = config.d_model
        self.config = config
        self.num_heads = config.encoder_attention_heads
        self.head_dim = d // self.num_heads
        self.k_proj = nn.Linear(d, d, bias=False)
        self.v_proj = nn.Linear(d, d)
        self.q_proj = nn.Linear(d, d)
        self.out_proj = nn.Linear(d, d)

    def forward(
        self, x: torch.Tensor, visible: AttentionMask, spans: list[int] | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x [A, T, d], or [1, sum(spans), d] with clips concatenated -> the same shape, and the weights if eager."""
        heads = (*x.shape[:2], self.num_heads, self.head_dim)
        # q is scaled after its projection, as in the reference, so that the attention's own scale is 1.
        q = (self.q_proj(x) * self.head_dim**-0.5).view(heads).transpose(1, 2)  # [A, heads, T, head_dim]
        k = self.k_proj(x).view(heads).transpose(1, 2)
        v = self.v_proj(x).view(heads).transpose(1, 2)
        implementation = self.config._attn_implementation
        dropout = self.config.attention_dropout if self.training else 0.0
        if spans is not None:
            out, weights = attend_spans(implementation, q, k, v, spans, scale=1.0, dropout=dropout), None
        else:
            out, weights = attend(implementation, q, k, v, visible, scale=1.0, dropout=dropout)
        return self.out_proj(out.transpose(1, 2).reshape(x.shape)), weights


class Qwen2AudioEncoderLayer(RecomputedLayer):
    """A pre-LayerNorm transformer layer: attention, then a feed-forward with GELU."""

    def __init__(self, config: Qwen2AudioEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.self_attn = Qwen2AudioAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, config.encoder_ffn_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def forward(
        self, x: torch.Tensor, visible: AttentionMask = ALL, spans: list[int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attended, weights = self.self_attn(self.self_attn_layer_norm(x), visible, spans)
        x = x + self._drop(attended, self.config.dropout)
        hidden = self._drop(F.gelu(self.fc1(self.final_layer_norm(x))), self.config.activation_dropout)
        x = x + self._drop(self.fc2(hidden), self.config.dropout)
        if x.dtype == torch.float16:  # as the reference does, against overflow
            limit = torch.finfo(x.dtype).max - 1000
            x = x.clamp(-limit, limit)
        return x, weights

    def _drop(self, x: torch.Tensor, p: float) -> torch.Tensor:
        return F.dropout(x, p) if self.training and p else x


class Qwen2AudioEncoder(nn.Module):
    """Log-mel to audio embeddings, before the projector."""

    _supports_sdpa = True

    def __init__(self, config: Qwen2AudioEncoderConfig) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        self.conv1 = nn.Conv1d(config.num_mel_bins, d, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(d, d, kernel_size=3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(config.max_source_positions, d)
        self.embed_positions.requires_grad_(False)
        self.layers = nn.ModuleList([Qwen2AudioEncoderLayer(config) for _ in range(config.encoder_layers)])
        self.layer_norm = nn.LayerNorm(d)

    @property
    def window(self) -> int:
        """Mel frames of a window: 3000 in the official checkpoints."""
        return 2 * self.config.max_source_positions

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Encode full windows, padded frames included; returns an EncoderOutput.

        Args:
            input_features: [A, mel bins, window], any float dtype.
            attention_mask: the encoder frames to attend to: 0/1 [A, E], or bool [A, 1, 1 or E, E]. None: all of them,
                as in some other runtimes.
            output_attentions: return the attention weights of each layer; needs attn_implementation "eager".
            output_hidden_states: return the input of the first layer and the output of each layer.
            return_dict: False returns a tuple of the values that are not None. What is None here is as the config says.

        Raises:
            AudioError: the features are not as long as the window.
            ConfigError: output_attentions with an implementation other than "eager".
        """
        if input_features.shape[-1] != self.window:
            raise AudioError(
                f"The encoder expects log-mel features of length {self.window}, but found "
                f"{input_features.shape[-1]}; pad them to {self.window}, or use encode(), which needs no padding."
            )
        output_hidden_states = chosen(output_hidden_states, self.config, name="output_hidden_states")
        output_attentions = chosen(output_attentions, self.config, name="output_attentions")
        if output_attentions and self.config._attn_implementation != "eager":
            raise ConfigError("output_attentions needs attn_implementation='eager'; load the model with it.")
        x = self._embed(input_features, self.config.max_source_positions)
        visible = ALL
        if attention_mask is not None:
            mask = attention_mask.bool().to(x.device)
            visible = AttentionMask(
                mask=mask[:, None, None] if mask.dim() == 2 else mask, keys=mask if mask.dim() == 2 else None
            )
        states: list[torch.Tensor] = []
        attentions: list[torch.Tensor] = []
        for layer in self._layers_to_run():
            if output_hidden_states:
                states.append(x)
            x, weights = layer(x, visible)
            if output_attentions:
                attentions.append(weights)
        states.append(x)
        out = EncoderOutput(
            self._pool(x),
            tuple(states) if output_hidden_states else None,
            tuple(attentions) if output_attentions else None,
        )
        return as_asked(out, return_dict, self.config)

    def encode(self, input_features: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """Encode only the valid frames of each clip.

        Args:
            input_features: [A, mel bins, F] with F at least `frames_needed` of the longest clip.
            lengths: valid mel frames L of each clip.

        Returns:
            [sum of N_a, d]: the N_a audio tokens of each clip, concatenated.

        Raises:
            AudioError: F is too short for the clips, or a clip is longer than the window.
        """
        steps = self.encode_in_steps(input_features, lengths)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]

    def encode_in_steps(
        self, input_features: torch.Tensor, lengths: list[int], *, states: list[torch.Tensor] | None = None
    ) -> Generator[None, None, torch.Tensor]:
        """`encode` as a generator that yields before each layer, so that the caller can do other work in between.

        `states` gets the input of the first layer and the output of each layer, as the layers have them.
        """
        needed = max((frames_needed(n, self.window) for n in lengths), default=0)
        if input_features.shape[-1] < needed:
            raise AudioError(
                f"The features have {input_features.shape[-1]} mel frames, but clips of up to {max(lengths)} valid "
                f"frames need {needed}: the convolutions see two frames beyond the clip. Make them with log_mel()."
            )
        if max(lengths, default=0) > self.window:
            raise AudioError(
                f"A clip has {max(lengths)} mel frames; the encoder's window holds {self.window}. Split it."
            )
        nonempty = [i for i, n in enumerate(lengths) if num_audio_tokens(n)]  # a clip of at most 20 ms has no tokens
        if not nonempty:
            return input_features.new_zeros((0, self.config.d_model), dtype=self.conv1.weight.dtype)
        features = input_features if len(nonempty) == len(input_features) else input_features[nonempty]
        frames = [num_encoder_frames(lengths[i]) for i in nonempty]
        if len(set(frames)) == 1:  # equal lengths: a batch without padding
            x, spans = self._embed(features, frames[0]), None
        else:
            clips = [self._embed(clip[None], n) for clip, n in zip(features, frames, strict=True)]
            x, spans = torch.cat(clips, dim=1), frames  # [1, sum of E, d]
        for layer in self._layers_to_run():
            yield
            if states is not None:
                states.append(x)
            x, _ = layer(x, ALL, spans)
        if states is not None:
            states.append(x)
        if spans is None:
            return self._pool(x).flatten(0, 1)
        return torch.cat([self._pool(clip)[0] for clip in x.split(frames, dim=1)])

    def states(self, input_features: torch.Tensor, length: int, layers: Collection[int]) -> dict[int, torch.Tensor]:
        """What some layers say of one clip, before the pooling: 50 frames a second.

        Args:
            input_features: [1, mel bins, F], as `encode` takes them.
            length: valid mel frames L, at most the window.
            layers: 0 for the convolutions, k for the k-th layer. No layer behind the last of them is computed.

        Returns:
            For each of `layers` its output [E, d].
        """
        x = self._embed(input_features, num_encoder_frames(length))
        found = {0: x[0]} if 0 in layers else {}
        for number, layer in enumerate(self.layers[: max(layers)], 1):
            x, _ = layer(x, ALL, None)
            if number in layers:
                found[number] = x[0]
        return found

    def _embed(self, mel: torch.Tensor, frames: int) -> torch.Tensor:
        """Convolutions and position embeddings: [A, mel bins, F] -> [A, frames, d]."""
        mel = mel[..., : frames * 2 + 1].to(self.conv1.weight)
        x = F.gelu(self.conv1(mel))[..., : frames * 2]  # drop the last frame, whose right neighbour was cut off
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        x = x + self.embed_positions.weight[:frames]
        return F.dropout(x, self.config.dropout) if self.training and self.config.dropout else x

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        """[A, E, d] -> [A, E // 2, d]: the mean of pairs of frames, then LayerNorm. Whisper has no pooling."""
        x = F.avg_pool1d(x.transpose(1, 2), 2, 2).transpose(1, 2)
        return self.layer_norm(x)  # type: ignore[no-any-return]

    def _layers_to_run(self) -> list[nn.Module]:
        drop = self.config.encoder_layerdrop
        if not (self.training and drop):
            return list(self.layers)
        return [layer for layer in self.layers if torch.rand(()) >= drop]


class Qwen2AudioMultiModalProjector(nn.Module):
    """One Linear from the encoder's width to the language model's."""

    def __init__(self, config: Qwen2AudioConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.audio_config.d_model, config.text_config.hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)  # type: ignore[no-any-return]
