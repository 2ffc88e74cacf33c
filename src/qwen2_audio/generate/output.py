"""GenerateOutput, the result of `generate(return_dict_in_generate=True)`, and Trace, which collects it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..model.cache import KVCache
from ..model.outputs import LanguageModelOutput, Output
from .config import GenerationConfig

Steps = tuple[Tensor, ...]
LayerSteps = tuple[tuple[Tensor, ...], ...]


@dataclass
class GenerateOutput(Output):
    """N rows, and one tuple entry per new token. The first entry of hidden states and attentions is the prompt's."""

    sequences: Tensor  # int64 [N, T + new], prompt as given
    scores: Steps | None = None  # [N, V] each, after the processors
    logits: Steps | None = None  # [N, V] each, before the processors, fp32
    attentions: LayerSteps | None = None  # [N, heads, q, kv] per layer
    hidden_states: LayerSteps | None = None  # [N, q, H] per layer
    past_key_values: KVCache | None = None
    sequences_scores: Tensor | None = None  # beams: [N]
    beam_indices: Tensor | None = None  # beams: int64 [N, new], the row that each token continued; -1 after the end


@dataclass
class Trace:
    """Collects the per-step tensors that the options request."""

    config: GenerationConfig
    scores: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    attentions: list[tuple[Tensor, ...]] = field(default_factory=list)
    hidden_states: list[tuple[Tensor, ...]] = field(default_factory=list)

    @property
    def model_options(self) -> dict[str, bool]:
        """The language model's options for the outputs beside its logits."""
        names = ("output_attentions", "output_hidden_states") if self.config.return_dict_in_generate else ()
        return {name: True for name in names if getattr(self.config, name)}

    def add_states(self, out: LanguageModelOutput) -> None:
        if out.attentions is not None:
            self.attentions.append(out.attentions)
        if out.hidden_states is not None:
            self.hidden_states.append(out.hidden_states)

    def repeat_states(self, times: int) -> None:
        """Repeat the states of each prompt, which was run once, for its `times` rows."""
        for steps in (self.attentions, self.hidden_states):
            steps[:] = [tuple(layer.repeat_interleave(times, 0) for layer in step) for step in steps]

    def add(self, logits: Tensor, scores: Tensor) -> None:
        """Add one step's logits and scores, [N, V], if they are requested."""
        if self.config.output_logits:
            self.logits.append(logits)
        if self.config.output_scores:
            self.scores.append(scores)

    @property
    def scores_so_far(self) -> Steps | None:
        return tuple(self.scores) if self.config.output_scores else None

    def output(self, sequences: Tensor, cache: KVCache | None) -> GenerateOutput:
        return GenerateOutput(
            sequences,
            scores=tuple(self.scores) or None,
            logits=tuple(self.logits) or None,
            attentions=tuple(self.attentions) or None,
            hidden_states=tuple(self.hidden_states) or None,
            past_key_values=cache,
        )
