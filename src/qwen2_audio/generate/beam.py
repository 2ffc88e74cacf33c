"""Beam search: decode the K best continuations of each prompt in parallel.

The rules are the reference's (transformers 5.23). A score is a sum of log-probabilities. Of the C best candidates,
those that end and rank among the best K become answers, and the best K that do not end continue. An answer's final
score is divided by its length to the power of `length_penalty`.

B prompts, K beams, C candidates, N new tokens at most, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .output import GenerateOutput
from .processors import process
from .search import Search

OUT = -1.0e9  # added to the score of an excluded hypothesis


@dataclass
class Beams:
    """M hypotheses for each prompt."""

    scores: Tensor  # [B, M]
    tokens: Tensor  # int64 [B, M, N], new tokens
    origins: Tensor  # int64 [B, M, N], the row that each token continued; -1: no token

    def select(self, index: Tensor) -> Beams:
        """The hypotheses `index`, int64 [B, M'], of each prompt."""
        columns = index[..., None].expand(-1, -1, self.tokens.shape[2])
        return Beams(self.scores.gather(1, index), self.tokens.gather(1, columns), self.origins.gather(1, columns))

    def joined(self, other: Beams) -> Beams:
        """The hypotheses of both, [B, M + M']."""
        return Beams(
            torch.cat((self.scores, other.scores), 1),
            torch.cat((self.tokens, other.tokens), 1),
            torch.cat((self.origins, other.origins), 1),
        )


@dataclass
class State:
    """The state of a beam search between two steps."""

    running: Beams  # M = K
    answers: Beams  # M = K, best first
    done: Tensor  # bool [B, K], False for the entries of `answers` that are still empty
    can_improve: Tensor  # bool [B, 1], whether a running beam could still beat the worst answer


@dataclass(frozen=True)
class Rules:
    """The options of beam search."""

    beams: int
    candidates: int
    max_new: int
    length_penalty: float
    early_stopping: bool | str

    def divisor(self, length: int) -> float:
        """The divisor of the summed log-probability of `length` tokens."""
        return float(length**self.length_penalty)

    @classmethod
    def from_search(cls, search: Search) -> Rules:
        config, beams = search.options.config, search.options.num_beams
        # Enough candidates for K beams to continue even if the best tokens of every beam are all end-of-text ids.
        candidates = max(2, 1 + len(config.eos_ids)) * beams
        penalty = 1.0 if config.length_penalty is None else config.length_penalty
        return cls(beams, candidates, search.lengths.max_new, penalty, config.early_stopping or False)


def beam_search(search: Search) -> GenerateOutput:
    """Beam search, or beam sampling with do_sample. Returns num_return_sequences answers per prompt, best first."""
    rules, decoder = Rules.from_search(search), search.decoder
    state = _start(search, rules)
    logits = decoder.prefill(rules.beams)
    for step in range(rules.max_new):
        candidates = _candidates(search, rules, state.running, logits, step)
        ends = _ends(search, candidates, step)
        _advance(state, rules, candidates, ends, step)
        if _over(state, rules, ends):
            break
        decoder.select(state.running.origins[:, :, step].flatten())
        logits = decoder.step(state.running.tokens[:, :, step].flatten()[:, None])[:, -1]
    return _output(search, state.answers)


def _start(search: Search, rules: Rules) -> State:
    prompts = len(search.prompt_ids) // rules.beams
    device = search.prompt_ids.device
    shape = (prompts, rules.beams)
    pad = search.options.config.pad_id
    empty = Beams(
        torch.full(shape, OUT, dtype=torch.float32, device=device),
        torch.full((*shape, rules.max_new), -1 if pad is None else pad, device=device),
        torch.full((*shape, rules.max_new), -1, device=device),
    )
    first = empty.scores.clone()
    first[:, 0] = 0  # the K rows of a prompt are equal at first: only the first may be continued
    return State(
        Beams(first, empty.tokens, empty.origins),
        empty,
        torch.zeros(shape, dtype=torch.bool, device=device),
        torch.ones((prompts, 1), dtype=torch.bool, device=device),
    )


def _candidates(search: Search, rules: Rules, running: Beams, logits: Tensor, step: int) -> Beams:
    """The C best (or drawn) one-token continuations of `running`, given the model's `logits` [B*K, V]."""
    ids = torch.cat((search.prompt_ids, running.tokens[:, :, :step].flatten(0, 1)), 1)
    log_p = process(search.processors, ids, logits.log_softmax(-1))
    search.trace.add(logits, log_p)
    prompts, vocabulary = len(running.scores), logits.shape[1]
    totals = (log_p.view(prompts, rules.beams, vocabulary) + running.scores[..., None]).flatten(1)  # [B, K * V]
    if search.options.config.do_sample:
        index = torch.multinomial(totals.softmax(-1), rules.candidates, generator=search.generator)
        scores = totals.gather(1, index)
    else:
        scores, index = totals.topk(rules.candidates)
    beam = index // vocabulary
    out = running.select(beam)
    out.scores = scores
    out.tokens[:, :, step] = index % vocabulary
    out.origins[:, :, step] = beam + torch.arange(prompts, device=beam.device)[:, None] * rules.beams
    return out


def _ends(search: Search, candidates: Beams, step: int) -> Tensor:
    """Bool [B, C]: which candidates end with their newest token."""
    prompts = search.prompt_ids[:: search.options.num_beams]
    count = candidates.scores.shape[1]
    new = candidates.tokens[:, :, : step + 1].flatten(0, 1)
    ids = torch.cat((prompts.repeat_interleave(count, 0), new), 1)
    return search.finished(ids).view(-1, count)


def _advance(state: State, rules: Rules, candidates: Beams, ends: Tensor, step: int) -> None:
    """Continue the best K candidates that do not end; those that end and rank among the best K become answers."""
    unended = Beams(candidates.scores + ends * OUT, candidates.tokens, candidates.origins)
    state.running = unended.select(unended.scores.topk(rules.beams).indices)

    new_answers = ends.clone()
    new_answers[:, rules.beams :] = False
    stopped = state.done.all(1, keepdim=True) & (rules.early_stopping is True)
    final = candidates.scores / rules.divisor(step + 1)
    final = final + stopped * OUT + ~state.can_improve * OUT + ~new_answers * OUT
    merged = state.answers.joined(Beams(final, candidates.tokens, candidates.origins))
    best = merged.scores.topk(rules.beams).indices
    state.answers = merged.select(best)
    state.done = torch.cat((state.done, new_answers), 1).gather(1, best)
    state.can_improve = state.can_improve & _can_improve(state, rules, step + 1)


def _can_improve(state: State, rules: Rules, length: int) -> Tensor:
    """Bool [B, 1]: whether the best running beam's score, divided for `length` tokens, beats the worst answer's.

    With early_stopping "never" and a positive length penalty, the score is divided for the greatest length.
    """
    if rules.early_stopping == "never" and rules.length_penalty > 0:
        length = rules.max_new
    best = state.running.scores[:, :1] / rules.divisor(length)
    worst = torch.where(state.done, state.answers.scores.amin(1, keepdim=True), OUT)  # [B, K]
    return (best > worst).any(1, keepdim=True)


def _over(state: State, rules: Rules, ends: Tensor) -> bool:
    enough = rules.early_stopping is True and bool(state.done.all())
    return enough or bool(ends.all()) or not bool(state.can_improve.any())


def _output(search: Search, answers: Beams) -> GenerateOutput:
    count = search.options.config.num_return_sequences or 1
    tokens, origins = (x[:, :count].flatten(0, 1) for x in (answers.tokens, answers.origins))
    longest = int((origins >= 0).sum(1).max())
    out = search.output(tokens[:, :longest])
    out.sequences_scores = answers.scores[:, :count].flatten()
    out.beam_indices = origins[:, :longest]
    return out
