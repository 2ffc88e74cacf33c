"""Every logits processor against the reference's class, on random scores with ties and banned tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2_audio.generate import constraints as c
from qwen2_audio.generate import sampling as s

theirs = pytest.importorskip("transformers.generation.logits_process")

VOCABULARY, LENGTH = 24, 9
EOS = [2, 5]
PADDING = torch.tensor([0, 3, 8])
PROMPT = torch.randint(VOCABULARY, (3, 6), generator=torch.Generator().manual_seed(1))
BIASES = {(3,): 1.0, (4, 6): 2.5, (1, 6): -1.0, (0, 1, 2): 4.0, (7,) * 12: 3.0}
WORDS = [[3], [2], [4, 6], [0, 1, 2]]


def first_or_last(batch, ids):
    return [batch, 5, int(ids[-1])]


# name -> (ours, the reference's)
PAIRS = {
    "repetition": (c.RepetitionPenalty(1.3), theirs.RepetitionPenaltyLogitsProcessor(1.3)),
    "repetition reversed": (c.RepetitionPenalty(0.7), theirs.RepetitionPenaltyLogitsProcessor(0.7)),
    "repetition, padded": (
        c.RepetitionPenalty(1.3, PADDING),
        theirs.RepetitionPenaltyLogitsProcessor(1.3, prompt_ignore_length=PADDING),
    ),
    "prompt repetition": (
        c.PromptRepetitionPenalty(1.3, PROMPT),
        theirs.EncoderRepetitionPenaltyLogitsProcessor(1.3, PROMPT),
    ),
    **{f"ngram {n}": (c.NoRepeatNGram(n), theirs.NoRepeatNGramLogitsProcessor(n)) for n in (1, 2, 3, 9, 12)},
    "prompt ngram": (
        c.NoRepeatNGramOfPrompt(2, None, PROMPT),
        theirs.EncoderNoRepeatNGramLogitsProcessor(2, PROMPT),
    ),
    "bias": (c.SequenceBias(BIASES), theirs.SequenceBiasLogitsProcessor(BIASES)),
    "bias, as in a file": (
        c.SequenceBias([[list(k), v] for k, v in BIASES.items()]),
        theirs.SequenceBiasLogitsProcessor([[list(k), v] for k, v in BIASES.items()]),
    ),
    "bad words": (c.NoBadWords(WORDS, EOS), theirs.NoBadWordsLogitsProcessor(WORDS, EOS)),
    "min length": (c.MinLength(10, EOS), theirs.MinLengthLogitsProcessor(10, EOS)),
    "min length reached": (c.MinLength(9, EOS), theirs.MinLengthLogitsProcessor(9, EOS)),
    "min new": (c.MinNewTokens(6, 4, EOS), theirs.MinNewTokensLengthLogitsProcessor(6, 4, EOS)),
    "min new reached": (c.MinNewTokens(6, 3, EOS), theirs.MinNewTokensLengthLogitsProcessor(6, 3, EOS)),
    "prefix": (c.PrefixAllowed(first_or_last), theirs.PrefixConstrainedLogitsProcessor(first_or_last, 1)),
    "prefix, beams": (c.PrefixAllowed(first_or_last, 3), theirs.PrefixConstrainedLogitsProcessor(first_or_last, 3)),
    "forced bos": (c.ForcedBos(3), theirs.ForcedBOSTokenLogitsProcessor(3)),
    "forced eos": (c.ForcedEos(10, EOS), theirs.ForcedEOSTokenLogitsProcessor(10, EOS)),
    "forced eos later": (c.ForcedEos(11, EOS), theirs.ForcedEOSTokenLogitsProcessor(11, EOS)),
    "remove invalid": (c.RemoveInvalid(), theirs.InfNanRemoveLogitsProcessor()),
    "decay": (c.ExponentialDecayLength(1, 1.3, EOS, 6), theirs.ExponentialDecayLengthPenalty((1, 1.3), EOS, 6)),
    "decay later": (c.ExponentialDecayLength(3, 1.3, EOS, 6), theirs.ExponentialDecayLengthPenalty((3, 1.3), EOS, 6)),
    "suppress": (c.SuppressTokens([1, 4, 99]), theirs.SuppressTokensLogitsProcessor([1, 4, 99])),
    "suppress at begin": (c.SuppressAtBegin([1, 4], 9), theirs.SuppressTokensAtBeginLogitsProcessor([1, 4], 9)),
    "suppress begun": (c.SuppressAtBegin([1, 4], 8), theirs.SuppressTokensAtBeginLogitsProcessor([1, 4], 8)),
    "temperature": (s.Temperature(0.7), theirs.TemperatureLogitsWarper(0.7)),
    **{f"top_h {h}": (s.TopH(h), theirs.TopHLogitsWarper(h)) for h in (0.01, 0.4, 0.9)},
    **{f"top_k {k}": (s.TopK(k), theirs.TopKLogitsWarper(k)) for k in (1, 5, 24, 50)},
    "top_k, keeping": (s.TopK(1, 3), theirs.TopKLogitsWarper(1, min_tokens_to_keep=3)),
    **{f"top_p {p}": (s.TopP(p), theirs.TopPLogitsWarper(p)) for p in (0.0, 0.3, 0.5, 0.95, 1.0)},
    "top_p, keeping": (s.TopP(0.1, 3), theirs.TopPLogitsWarper(0.1, min_tokens_to_keep=3)),
    **{f"min_p {p}": (s.MinP(p), theirs.MinPLogitsWarper(p)) for p in (0.0, 0.1, 1.0)},
    "min_p, keeping": (s.MinP(0.9, 3), theirs.MinPLogitsWarper(0.9, min_tokens_to_keep=3)),
    **{f"typical {p}": (s.Typical(p), theirs.TypicalLogitsWarper(p)) for p in (0.1, 0.5, 0.95)},
    "typical, keeping": (s.Typical(0.1, 3), theirs.TypicalLogitsWarper(0.1, min_tokens_to_keep=3)),
    "epsilon": (s.Epsilon(0.05), theirs.EpsilonLogitsWarper(0.05)),
    "epsilon, keeping": (s.Epsilon(0.9, 3), theirs.EpsilonLogitsWarper(0.9, min_tokens_to_keep=3)),
    "eta": (s.Eta(0.1), theirs.EtaLogitsWarper(0.1)),
    "eta, keeping": (s.Eta(0.9, 3), theirs.EtaLogitsWarper(0.9, min_tokens_to_keep=3)),
    "renormalise": (s.Renormalise(), theirs.LogitNormalization()),
}


@pytest.mark.parametrize("name", PAIRS)
@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**31), length=st.sampled_from([1, 5, LENGTH]), kind=st.sampled_from(["plain", "ties", "bans"])
)
def test_same_scores(name, seed, length, kind):
    mine, other = PAIRS[name]
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(8, (3, length), generator=generator)
    scores = torch.randn(3, VOCABULARY, generator=generator) * 3
    if kind == "ties":
        scores = scores.round()
    if kind == "bans":
        scores[torch.rand(scores.shape, generator=generator) < 0.3] = float("-inf")
        scores[:, 0] = 0.5  # something is left
    before = scores.clone()
    found = mine(ids, scores)
    assert torch.equal(scores, before), "the scores passed in were changed"
    expected = other(ids, before.clone())
    assert torch.equal(found.isneginf(), expected.isneginf())
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_remove_invalid_handles_nan_and_infinities():
    scores = torch.tensor([[float("nan"), float("inf"), float("-inf"), 1.0]])
    ids = torch.zeros(1, 1, dtype=torch.long)
    expected = theirs.InfNanRemoveLogitsProcessor()(ids, scores)
    assert torch.equal(c.RemoveInvalid()(ids, scores), expected)


def test_prefix_that_leaves_nothing_is_forced():
    ids = torch.zeros(2, 3, dtype=torch.long)
    scores = torch.full((2, VOCABULARY), float("-inf"))
    expected = theirs.PrefixConstrainedLogitsProcessor(first_or_last, 2)(ids, scores)
    assert torch.equal(c.PrefixAllowed(first_or_last, 2)(ids, scores), expected)
    assert expected.max() == 0


def test_top_p_keeps_what_lies_above_the_boundary():
    """Probabilities 1/2, 1/4, 1/8, 1/8 with p = 1/2: the mass below the best is exactly 1 - p and goes."""
    scores = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    ids = torch.zeros(1, 1, dtype=torch.long)
    assert s.TopP(0.5)(ids, scores).isfinite().tolist() == theirs.TopPLogitsWarper(0.5)(ids, scores).isfinite().tolist()
