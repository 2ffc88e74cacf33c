"""Search, which the three searches share, and the simplest of them: one greedy or drawn token per row and step.

B prompts, R decoded rows, T' prompt columns (audio expanded), L columns so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .constraints import LogitsProcessor
from .decode import Decoder
from .lengths import Lengths
from .options import Options
from .output import GenerateOutput, Trace
from .processors import process
from .sampling import draw
from .stopping import Criterion, met
from .streamers import Streamer


@dataclass
class Search:
    """One call of generate() with everything that the search needs."""

    options: Options
    lengths: Lengths
    decoder: Decoder
    input_ids: Tensor  # int64 [B, T], the prompts as passed, which are returned in front of the answers
    prompt_ids: Tensor  # int64 [R, T'], the prompts for processors and criteria
    processors: list[LogitsProcessor]
    criteria: Sequence[Criterion]
    trace: Trace
    streamer: Streamer | None = None
    generator: torch.Generator | None = None

    def choose(self, ids: Tensor, logits: Tensor) -> Tensor:
        """The next token [R] of rows `ids` [R, L], from the model's `logits` [R, V]."""
        scores = process(self.processors, ids, logits)
        self.trace.add(logits, scores)
        return draw(scores, bool(self.options.config.do_sample), self.generator)

    def finished(self, ids: Tensor) -> Tensor:
        """Bool [R]: which rows end with their newest token."""
        return met(self.criteria, ids, self.trace.scores_so_far)

    def stream(self, tokens: Tensor) -> None:
        if self.streamer is not None:
            self.streamer.put(tokens.cpu())

    def output(self, new_tokens: Tensor) -> GenerateOutput:
        """The result: the prompts as passed, each followed by its `new_tokens` [N, new]. N is a multiple of B."""
        prompts = self.input_ids.repeat_interleave(len(new_tokens) // len(self.input_ids), 0)
        return self.trace.output(torch.cat((prompts, new_tokens), 1), self.decoder.cache)


def sample(search: Search) -> GenerateOutput:
    """Greedy or sampled decoding. A finished row gets the pad id until all rows are finished."""
    ids, prompt = search.prompt_ids, search.lengths.prompt
    pad = search.options.config.pad_id
    unfinished = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
    logits = search.decoder.prefill(search.options.rows_per_prompt)
    while True:
        tokens = search.choose(ids, logits)
        if pad is not None:
            tokens = torch.where(unfinished, tokens, pad)
        ids = torch.cat((ids, tokens[:, None]), 1)
        search.stream(tokens)
        unfinished &= ~search.finished(ids)
        if not bool(unfinished.any()):
            return search.output(ids[:, prompt:])
        logits = search.decoder.step(tokens[:, None])[:, -1]
