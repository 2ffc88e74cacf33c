"""Prompt lookup decoding: propose the tokens that followed an earlier occurrence of the newest tokens.

One step of the model verifies all proposed tokens, and a token is accepted only if the model itself chooses it. The
answer is therefore that of plain decoding, token for token, also when sampled with the same seed. It is faster when
answers quote the prompt. One prompt at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ConfigError
from .output import GenerateOutput
from .search import Search


def sample_with_lookup(search: Search) -> GenerateOutput:
    """Greedy or sampled decoding with prompt lookup. Raises ConfigError for more than one prompt."""
    config, ids, prompt = search.options.config, search.prompt_ids, search.lengths.prompt
    if len(ids) > 1:
        raise ConfigError(
            f"prompt_lookup_num_tokens works on one prompt at a time and got {len(ids)}; "
            "call generate() for each, or leave the option out."
        )
    logits = search.decoder.prefill()[:, None]  # [1, 1 + proposed, V]
    proposed: list[int] = []
    while True:
        ids, finished = _accept(search, ids, logits, proposed)
        if finished:
            return search.output(ids[:, prompt:])
        search.decoder.crop(ids.shape[1] - 1)  # drop rejected tokens; the newest token is not in the cache yet
        remaining = search.lengths.max_length - ids.shape[1] - 1
        count = min(config.prompt_lookup_num_tokens or 0, remaining)
        proposed = propose_tokens(ids[0].tolist(), count, config.max_matching_ngram_size or 2, config.eos_ids)
        logits = search.decoder.step(torch.cat((ids[:, -1:], ids.new_tensor([proposed])), 1))


def _accept(search: Search, ids: Tensor, logits: Tensor, proposed: list[int]) -> tuple[Tensor, bool]:
    """Choose tokens from `logits` [1, 1 + proposed, V] up to the first that differs from the proposed token.

    Returns the ids [1, L] with the chosen tokens, and whether the row is finished.
    """
    for step in range(logits.shape[1]):
        token = search.choose(ids, logits[:, step])
        ids = torch.cat((ids, token[:, None]), 1)
        search.stream(token)
        if bool(search.finished(ids).all()):
            return ids, True
        if step < len(proposed) and int(token) != proposed[step]:
            break
    return ids, False


def propose_tokens(ids: list[int], count: int, longest_match: int, eos_ids: list[int]) -> list[int]:
    """Up to `count` tokens that followed an earlier occurrence of the newest tokens of `ids`.

    The longest match of at most `longest_match` tokens is used; of equally long matches, the earliest. The proposal
    ends before an end-of-text id.

    >>> propose_tokens([1, 2, 3, 4, 9, 1, 2], count=2, longest_match=2, eos_ids=[])
    [3, 4]
    """
    for size in range(min(longest_match, len(ids) - 1), 0, -1):
        ending = ids[-size:]
        for start in range(len(ids) - size):
            if ids[start : start + size] == ending:
                proposed = ids[start + size : start + size + count]
                end = next((i for i, token in enumerate(proposed) if token in eos_ids), len(proposed))
                return proposed[:end]
    return []
