"""How many draft tokens are asked for, of whom, and what is learnt from those that were right."""

from __future__ import annotations

import pytest

from qwen2_audio.engine.metrics import Stats
from qwen2_audio.engine.request import Request, RequestHandle, Sequence
from qwen2_audio.engine.speculative.decoder import SpeculativeDecoder
from qwen2_audio.engine.speculative.forced_tokens import ForcedTokens
from qwen2_audio.engine.speculative.prompt_lookup import PromptLookup
from qwen2_audio.engine.speculative.proposer import MAX_MISSES, AcceptanceHistory, DraftHistory
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.types import SamplingParams


def sequence(generated=1, computed=None, max_new_tokens=100, prompt=(1, 2, 3)):
    """One that decodes: all of its tokens are computed but the last."""
    keys = list(prompt)
    request = Request(
        0, Prompt(keys, [], [], ()), keys, SamplingParams(), RequestHandle(1, lambda _: None), max_new_tokens, "length"
    )
    known = [*keys, *range(50, 50 + generated)]
    return Sequence(request, 0, known, computed=len(known) - 1 if computed is None else computed)


class Scripted:
    """A proposer with a token for each sequence it is named; it writes down what it was asked."""

    def __init__(self, tokens=(), busy=False, history=lambda: AcceptanceHistory(4)):
        self.tokens, self.busy, self.new_history = list(tokens), busy, history
        self.asked, self.counted, self.forgotten, self.encoded = [], [], [], []

    def propose(self, wanted):
        self.asked.append(list(wanted.values()))
        for one, count in wanted.items():
            if count > 0:
                one.draft_token_ids = self.tokens[:count]

    def count(self, num_proposed, num_accepted):
        self.counted.append((num_proposed, num_accepted))

    def forget(self, one):
        self.forgotten.append(one)

    def encode(self, seconds):
        self.encoded.append(seconds)


def test_a_draft_grows_by_one_more_than_was_right_and_by_two_where_all_was():
    history = DraftHistory(limit=6)
    assert history.length == 6, "before anything is known, the most"
    for proposed, accepted, length in ((6, 0, 1), (1, 1, 3), (3, 2, 3), (3, 3, 5), (5, 5, 6), (6, 6, 6), (6, 3, 4)):
        history.update(proposed, accepted)
        assert history.length == length, (proposed, accepted)


def test_a_lookup_always_asks_for_as_many():
    history = AcceptanceHistory(limit=5)
    for accepted in (0, 5, 2):
        history.update(5, accepted)
        assert history.length == history.num_to_propose(1) == 5


def test_after_misses_in_a_row_only_every_sixteenth_token_is_tried():
    history = AcceptanceHistory(limit=3)
    for _ in range(MAX_MISSES - 1):
        history.update(3, 0)
    assert history.num_to_propose(17) == 3
    history.update(3, 0)
    assert [number for number in range(1, 50) if history.num_to_propose(number)] == [16, 32, 48]
    history.update(3, 1)
    assert history.num_to_propose(17) == 3, "one that was right, and all is as at first"


def test_the_second_is_asked_for_what_the_first_has_nothing_for():
    with_tokens, empty = Scripted([7, 8, 9, 10, 11]), Scripted()
    first, second = sequence(), sequence()
    SpeculativeDecoder([empty, with_tokens]).propose([first, second])
    assert empty.asked == with_tokens.asked == [[4, 4]]
    assert first.draft_token_ids == [7, 8, 9, 10]
    later = Scripted([1])
    SpeculativeDecoder([with_tokens, later]).propose([first, second])
    assert later.asked == [[0, 0]], "named, so that what it holds for them stays"
    assert first.draft_token_ids == [7, 8, 9, 10], "and not touched"


def test_only_sequences_that_decode_are_drafted_for_and_never_beyond_the_last_token():
    proposer, prefill = Scripted([7] * 9), sequence(generated=1, computed=1)
    SpeculativeDecoder([proposer]).propose([prefill, sequence(generated=5, max_new_tokens=8)])
    assert proposer.asked == [[2]], "8 - 5, and the last one is sampled anyway"
    assert prefill.draft_token_ids == []


def test_old_draft_tokens_are_dropped():
    one = sequence()
    one.draft_token_ids = [9]
    SpeculativeDecoder([Scripted()]).propose([one])
    assert one.draft_token_ids == []


def test_what_was_right_is_told_the_proposer_it_came_from():
    empty, drafts = Scripted(), Scripted([7, 8, 9, 10], history=lambda: DraftHistory(4))
    decoder, one = SpeculativeDecoder([empty, drafts]), sequence()
    decoder.propose([one])
    decoder.update(one, 4, 1)
    assert (empty.counted, drafts.counted) == ([], [(4, 1)])
    decoder.propose([one])
    assert drafts.asked[-1] == [2]
    decoder.update(one, 0, 0)  # none of them fitted into the step
    assert drafts.counted == [(4, 1)]
    decoder.forget(one)
    assert empty.forgotten == drafts.forgotten == [one]
    decoder.propose([one])
    assert drafts.asked[-1] == [4], "as for one that is new"


def test_only_those_that_have_clips_are_given_time_to_encode():
    busy, idle = Scripted(busy=True), Scripted()
    SpeculativeDecoder([idle, busy]).encode(0.05)
    assert (idle.encoded, busy.encoded) == ([], [0.05])


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ([1, 2, 3, 4, 5, 1, 2], [3, 4, 5]),
        ([1, 2, -7, -7, 3, 1, 2], []),  # what followed is a clip
        ([1, 2, 3, -7, 1, 2], [3]),
        ([1, 2, 3], []),
    ],
)
def test_lookup_proposes_what_followed_the_newest_tokens_before(keys, found):
    lookup, one = PromptLookup(3, Stats()), sequence(generated=0, prompt=keys, computed=0)
    lookup.propose({one: 3})
    assert one.draft_token_ids == found
    one.draft_token_ids = [1]
    lookup.propose({one: 0})
    assert one.draft_token_ids == [1]


def test_lookup_counts_its_own():
    stats = Stats()
    PromptLookup(3, stats).count(3, 2)
    assert (stats.lookup_tokens_proposed, stats.lookup_tokens_accepted, stats.draft_tokens_proposed) == (3, 2, 0)


class Accepting:
    """A matcher that takes these tokens in order, and has to go on with them."""

    def __init__(self, tokens):
        self.tokens = tokens

    def forced_tokens(self, most):
        return self.tokens[:most]

    def num_accepted(self, tokens):
        pairs = zip(tokens, self.tokens, strict=False)
        return next((number for number, (one, other) in enumerate(pairs) if one != other), len(tokens))


def test_what_a_grammar_forces_goes_first_and_what_does_not_fit_it_is_cut():
    forced, lookup = ForcedTokens(), Scripted([7, 8, 9])
    free, held, open_ = sequence(), sequence(), sequence()
    forced.matchers |= {held: Accepting([5, 6]), open_: Accepting([])}
    fitting = {**forced.matchers, open_: Accepting([7, 8, 1])}
    SpeculativeDecoder([forced, lookup], fitting).propose([free, held, open_])
    assert (free.draft_token_ids, held.draft_token_ids) == ([7, 8, 9], [5, 6])
    assert open_.draft_token_ids == [7, 8]
    forced.forget(held)
    assert set(forced.matchers) == {open_}
