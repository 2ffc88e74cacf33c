import time
from dataclasses import replace

import pytest

from kit.histories import play, request, sequences
from qwen2_audio.engine.block_manager import BlockManager
from qwen2_audio.engine.scheduler import Limits, Scheduler, SchedulerOutput, StepSizeController, share_out
from qwen2_audio.errors import BusyError, CapacityError

SIZE = 4


def scheduler(blocks=64, ready=lambda one: True, **limits):
    return Scheduler(BlockManager(blocks, SIZE), Limits(**limits), ready)


def put(over, number, keys, most=8, **more):
    """Add a request's sequences; keys: a list, or how many of them, unlike any other request's."""
    keys = [1000 * number + at for at in range(keys)] if isinstance(keys, int) else keys
    asked = request(number, keys, most, **more)
    over.check_capacity(asked)
    made = sequences(asked)
    for one in made:
        over.add(one)
    return made[0] if len(made) == 1 else made


def step(over, token=7):
    """Schedule and run; who is at its end takes a token."""
    plan = over.schedule()
    for copy in plan.copies:
        over.block_manager.copied(copy)
    over.mark_computed(plan)
    for part in (*plan.decodes, *plan.prefills):
        if part.last:
            right = len(part.sequence.draft_token_ids)
            part.sequence.prefix_keys += [*part.sequence.draft_token_ids, token]
            part.sequence.draft_token_ids = []
            over.accept_drafts(part.sequence, right)
    return plan


def shares(plan):
    return {part.sequence.request.number: part.count for part in plan.prefills}


class Scored:
    """Wants a row of logits for each position from `start` on."""

    with_logits = True

    def __init__(self, start=0):
        self.start = start

    def num_logits(self, start, end):
        return max(end - max(start, self.start), 0)


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        ([None, None], {0: 300, 1: 300}),
        ([0], {0: 128}),
        ([0, 0], {0: 112, 1: 16}),
        ([0, None], {0: 128, 1: 300}),
        ([290, None], {0: 300, 1: 300}),
        ([200, 0], {0: 300, 1: 28}),
    ],
    ids=["none", "one", "two share", "beside another", "at the end", "from the middle on"],
)
def test_rows_of_logits_are_shared_by_a_step_s_sequences(starts, expected):
    over = scheduler(blocks=400, max_num_batched_tokens=1000)
    for number, start in enumerate(starts):
        put(over, number, 300).prompt_output = None if start is None else Scored(start)
    assert shares(step(over)) == expected


def test_each_sequence_to_score_gets_a_position_however_many_there_are():
    over = scheduler(blocks=600, max_num_batched_tokens=4000, max_num_seqs=200)
    for number in range(150):
        put(over, number, 8, 2).prompt_output = Scored()
    assert set(shares(step(over)).values()) == {1}


# -- room


def test_what_can_never_fit_is_refused_in_one_sentence():
    over = scheduler(blocks=3)
    over.check_capacity(request(0, range(8), 4))
    with pytest.raises(CapacityError) as refused:
        over.check_capacity(request(0, range(8), 5))
    assert str(refused.value) == (
        "The request takes 8 positions and up to 5 new ones, and the KV cache holds 12; shorten it, ask for fewer "
        "tokens, or give the engine more memory (kv_tokens)."
    )


def test_more_than_may_be_under_way_are_refused():
    over = scheduler(max_num_seqs=2, max_waiting=3)
    for number in range(4):
        put(over, number, 4)
    with pytest.raises(CapacityError, match=r"^4 answers .* waiting already, 5 may, and the request wants 2;"):
        put(over, 4, 4, n=2)
    put(over, 4, 4)
    with pytest.raises(CapacityError, match=r"^The request wants n=6 answers, and 5 may be under way; ask for fewer\."):
        put(over, 5, 4, n=6)


def test_what_just_fits_is_computed_to_its_end_alone():
    over = scheduler(blocks=3)
    one = put(over, 0, 8, most=4)
    for _ in range(4):
        assert step(over).preempted == []
    assert len(one.prefix_keys) == 12
    over.remove(one)
    assert over.block_manager.used == over.num_running == over.num_waiting == 0


def test_who_waits_is_admitted_with_room_for_all_it_knows_and_a_block_for_each_that_runs():
    over = scheduler(blocks=6)
    put(over, 0, 8)
    put(over, 1, 8)
    put(over, 2, 8)  # two blocks are left, and would be; the two that run may ask for one each
    step(over)
    assert (over.num_running, over.num_waiting, over.block_manager.free) == (2, 1, 2)


def test_shared_blocks_are_not_asked_for_twice():
    over = scheduler(blocks=6)
    prompt = list(range(16))
    put(over, 0, [*prompt, 50], most=4)
    step(over)
    assert over.block_manager.free == 1
    put(over, 1, [*prompt, 60], most=4)
    assert step(over).prefills == [], "a block for itself, and one for the one that runs"
    over = scheduler(blocks=7)
    put(over, 0, [*prompt, 50])
    step(over)
    late = put(over, 1, [*prompt, 60])
    assert shares(step(over)) == {1: 1} and late.cached == 16


# -- order


def test_in_order_of_priority_then_of_arrival():
    over = scheduler(max_num_seqs=1)
    late, soon = put(over, 0, 4, priority=1), put(over, 1, 4)
    after = put(over, 2, 4)
    began = []
    for _ in range(3):
        (part,) = step(over).prefills
        began.append(part.sequence)
        over.remove(part.sequence)
    assert began == [soon, after, late]


def test_who_does_not_fit_is_not_overtaken_by_who_does():
    over = scheduler(blocks=5)
    first = put(over, 0, 12)
    step(over)
    put(over, 1, 16, most=4)
    put(over, 2, 4)  # would fit
    assert shares(step(over)) == {}
    over.remove(first)
    assert shares(step(over)) == {1: 16}


def test_who_is_not_ready_holds_up_nobody_and_then_goes_first():
    hearing = set()
    over = scheduler(ready=lambda one: one not in hearing, max_num_seqs=2)
    deaf = put(over, 0, 4, clips=1)
    hearing.add(deaf)
    first, _ = put(over, 1, 4), put(over, 2, 4)
    put(over, 3, 4)
    assert shares(step(over)) == {1: 4, 2: 4}
    hearing.clear()
    over.remove(first)
    assert shares(step(over)) == {0: 4}


def test_those_who_will_begin_next_are_asked_though_there_is_no_room():
    """So that their sounds are encoded by then; but not all of a long queue."""
    asked = []
    ready = lambda one: asked.append(one) or not one.request.prompt.clips  # noqa: E731
    over = scheduler(ready=ready, max_num_seqs=9, max_waiting=100)
    runs = [put(over, number, 4) for number in range(9)]
    step(over)
    assert asked == runs
    waiting = [put(over, number, 4, clips=1) for number in range(9, 60)]
    asked.clear()
    step(over)
    assert asked == waiting[:4]
    over.remove(runs[0])
    text = put(over, 70, 4)
    asked.clear()
    assert shares(step(over)) == {70: 4}
    assert asked == [*waiting[:9], text], "who hears nothing is not held up"


def test_later_answers_wait_for_the_first_ones_prompt_and_share_it():
    over = scheduler(max_num_batched_tokens=4)
    first, second, third = put(over, 0, 11, n=3)
    for _ in range(2):
        assert {part.sequence for part in step(over).prefills} == {first}
    assert over.num_running == 1
    step(over)
    plan = step(over)
    assert [part.sequence for part in plan.prefills] == [second, third]
    assert [part.count for part in plan.prefills] == [1, 1] and len(plan.copies) == 2, "to the prompt's very end"
    assert second.blocks[:2] == third.blocks[:2] == first.blocks[:2] and len({*second.blocks, *third.blocks}) == 4


def test_later_answers_do_not_wait_for_a_first_that_is_gone():
    over = scheduler(max_num_batched_tokens=4)
    first, second = put(over, 0, 11, n=2)
    step(over)
    over.remove(first)
    assert [part.sequence for part in step(over).prefills] == [second]


# -- a step's positions


@pytest.mark.parametrize(
    ("budget", "needs", "expected"),
    [
        (24, [100, 100, 100], [20, 2, 2]),
        (24, [9, 100, 100], [9, 13, 2]),
        (24, [1, 2, 100], [1, 2, 21]),
        (100, [3, 1, 2], [3, 1, 2]),
        (7, [5, 5, 5], [5, 1, 1]),
        (2, [1, 5], [1, 1]),
        (5, [], []),
    ],
)
def test_the_first_gets_most_and_the_others_a_little(budget, needs, expected):
    assert share_out(budget, needs) == expected


def test_a_short_prompt_does_not_wait_for_a_long_one():
    over = scheduler(max_num_batched_tokens=8)
    put(over, 0, 100)
    step(over)
    put(over, 1, 12)
    assert shares(step(over)) == {0: 1, 1: 7}
    assert shares(step(over)) == {0: 3, 1: 5}
    assert shares(step(over)) == {0: 7}, "the other decodes"


def test_a_short_prompt_waits_for_a_long_one_of_a_higher_priority():
    over = scheduler(max_num_batched_tokens=8)
    put(over, 0, 100, priority=-1)
    put(over, 1, 12)
    assert shares(step(over)) == {0: 7, 1: 1}


def test_decodes_all_go_first_and_prefill_gets_an_eighth_at_least():
    over = scheduler(max_num_batched_tokens=16, blocks=200)
    for number in range(20):
        put(over, number, 1)
    while len(step(over).decodes) < 20:
        pass
    put(over, 20, 50)
    plan = step(over)
    assert len(plan.decodes) == 20 and shares(plan) == {20: 2}


def test_of_more_in_prefill_than_positions_the_first_go_and_no_more_are_admitted():
    over = scheduler(max_num_batched_tokens=2)
    for number in range(4):
        put(over, number, 6)
    assert shares(step(over)) == {0: 1, 1: 1} and over.num_running == 2


def test_guesses_are_computed_as_far_as_step_and_blocks_go():
    over = scheduler(max_num_batched_tokens=6, blocks=5)
    one, other = put(over, 0, 3), put(over, 1, 3)
    step(over)  # four positions each now, and a block
    one.draft_token_ids, other.draft_token_ids = [1, 2, 3], [4, 5]
    plan = over.schedule()
    assert [(part.start, part.count, part.last) for part in plan.decodes] == [(3, 4, True), (3, 2, True)]
    assert one.draft_token_ids == [1, 2, 3] and other.draft_token_ids == [4], "what is not computed is not guessed"
    over.mark_computed(plan)
    assert (one.computed, other.computed) == (4, 4), "known ones only"
    one.prefix_keys += [1, 2, 9]  # two were right
    one.draft_token_ids = []
    over.accept_drafts(one, 2)
    assert one.computed == 6 and one.num_uncomputed == 1 and len(one.blocks) == 2
    other.prefix_keys += [9]
    other.draft_token_ids = []
    over.accept_drafts(other, 0)
    assert other.computed == 4 and len(other.blocks) == 2


def test_blocks_for_wrong_guesses_are_given_back():
    over = scheduler()
    one = put(over, 0, 3)
    step(over)
    one.draft_token_ids = [1, 2, 3, 4, 5]
    plan = over.schedule()
    assert len(one.blocks) == 3
    over.mark_computed(plan)
    one.prefix_keys, one.draft_token_ids = [*one.prefix_keys, 9], []
    over.accept_drafts(one, 0)
    assert len(one.blocks) == 2 and over.block_manager.used == 2


def test_nobody_is_sent_back_for_a_guess():
    over = scheduler(blocks=4)
    one, _ = put(over, 0, 3), put(over, 1, 3)
    step(over)
    hog = put(over, 2, 4)
    over.block_manager.allocate(hog)
    assert over.block_manager.extend(hog, 8) and over.block_manager.free == 0
    one.draft_token_ids = [1, 2]
    plan = over.schedule()
    assert plan.preempted == [] and one.draft_token_ids == [] and [part.count for part in plan.decodes] == [1, 1]
    over.block_manager.release(hog)


# -- no room


def test_who_runs_last_is_sent_back_and_comes_again_with_what_the_cache_kept():
    over = scheduler(blocks=4)
    first, last = put(over, 0, 4, most=12), put(over, 1, 4, most=4)
    step(over)
    step(over)
    last.draft_token_ids = [3]
    assert over.block_manager.free == 0
    while not (plan := step(over)).preempted:
        pass
    assert plan.preempted == [last] and (last.computed, last.blocks, last.draft_token_ids) == (0, [], [])
    assert [part.sequence for part in plan.decodes] == [first] and (over.num_running, over.num_waiting) == (1, 1)
    known = len(last.prefix_keys)
    over.remove(first)
    (part,) = step(over).prefills
    assert part.sequence is last and part.start + part.count == known and part.start > 0
    assert last.cached == 0, "what it found when it first began"


def test_the_first_in_order_is_not_sent_back_for_those_behind_it():
    over = scheduler(blocks=4)
    urgent, other = put(over, 1, 4, most=12, priority=-1), put(over, 0, 4, most=12)
    plans = [step(over) for _ in range(10)]
    assert all(gone is other for plan in plans for gone in plan.preempted) and any(plan.preempted for plan in plans)
    assert len(urgent.prefix_keys) == 14


def test_send_back_before_anything_was_computed_counts_as_not_begun():
    over = scheduler()
    put(over, 0, [*range(8)])
    step(over)
    late = put(over, 1, [*range(8), 9])
    over.schedule()
    assert late.cached == 8 and not late.begun
    over.preempt(late)
    assert over.num_waiting == 1 and late.computed == 0
    step(over)
    assert late.begun and late.cached == 8


def test_who_left_between_plan_and_ran_is_passed_over():
    over = scheduler()
    one = put(over, 0, 4)
    plan = over.schedule()
    over.remove(one, keep=False)
    over.mark_computed(plan)
    assert one.computed == 0 and over.block_manager.used == 0
    over.remove(one)  # for the second time: nothing


def test_a_step_with_nobody_is_empty():
    assert scheduler().schedule() == SchedulerOutput()


# -- histories


def test_random_histories_keep_every_promise():
    happened = play(0, 400)
    assert all(happened[what] > 20 for what in ("preempted", "copied", "guessed right", "failed", "kept", "refused"))


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
def test_many_more_random_histories():
    play(400, 10_000)


def test_a_plan_for_32_takes_no_time():
    over = scheduler(blocks=4000, max_waiting=2000)
    for number in range(1000):
        put(over, number, 40, most=300)
    while len(step(over).decodes) < 32:
        pass
    took = []
    for _ in range(200):
        started = time.perf_counter()
        plan = over.schedule()
        took.append(time.perf_counter() - started)
        over.mark_computed(plan)
        for part in plan.decodes:
            part.sequence.prefix_keys.append(7)
            over.accept_drafts(part.sequence, 0)
    assert len(plan.decodes) == 32 and sorted(took)[100] < 0.002  # 0.1 ms measured, on a quiet machine


def test_limits_may_change_between_steps():
    over = scheduler(max_num_batched_tokens=4)
    put(over, 0, 20)
    assert shares(step(over)) == {0: 4}
    over.limits = replace(over.limits, max_num_batched_tokens=6)
    assert shares(step(over)) == {0: 6}


def test_the_step_size_is_learnt_from_large_passes_within_bounds():
    step_size = StepSizeController(0.1)
    assert step_size.tokens == 128
    step_size.learn(31, 1e-6)
    assert step_size.tokens == 128
    step_size.learn(64, 0.2)  # 32 in 0.1 s
    assert step_size.tokens == 80
    for _ in range(20):
        step_size.learn(64, 1e-5)
    assert step_size.tokens == 1024
    for _ in range(20):
        step_size.learn(64, 100.0)
    assert step_size.tokens == 32
    fixed = StepSizeController(0.1, 17)
    fixed.learn(100, 0.001)
    assert fixed.tokens == 17


def test_a_sequence_waits_for_the_prefix_that_another_is_computing():
    """Requests about one clip that arrive together compute it once."""
    over = scheduler(max_num_batched_tokens=16)
    shared = list(range(100, 130))
    first, *others = (put(over, number, [*shared, 1000 + number, 2000 + number]) for number in range(5))
    total, steps = 0, 0
    while any(one.num_generated == 0 for one in (first, *others)):
        plan = step(over)
        total += sum(part.count for part in plan.prefills)
        steps += 1
        if first.computed < 30:
            assert {part.sequence for part in plan.prefills} == {first}, "the others wait"
        assert steps < 20
    assert total == 32 + 4 * 2, "the prefix once, and what differs"


def test_nobody_waits_for_a_prefix_that_will_not_come():
    over = scheduler(max_num_batched_tokens=16)
    shared = list(range(100, 130))
    first = put(over, 0, [*shared, 1])
    second = put(over, 1, [*shared, 2])
    step(over)
    assert first.blocks and not second.blocks
    over.remove(first, keep=False)
    step(over)
    assert second.blocks, "it computes the prefix itself"
    other = put(over, 2, [*range(500, 520)])
    step(over)
    assert other.blocks, "another prefix waits for nobody"


def test_sequences_that_wait_for_a_prefix_do_not_keep_clips_behind_them_waiting():
    over = scheduler(max_num_batched_tokens=16, max_num_seqs=2)
    shared = list(range(100, 130))
    first = put(over, 0, shared)
    waiting = [put(over, number, [*shared, number]) for number in (1, 2)]
    clip, text = put(over, 3, 5, clips=1), put(over, 4, 5)
    step(over)
    assert first.blocks and clip.blocks, "as many wait for a prefix as may run, and the clip is ready"
    assert not text.blocks and not any(one.blocks for one in waiting)


def test_a_request_is_refused_where_its_answers_and_those_that_are_here_are_too_many():
    over = scheduler(max_num_seqs=2, max_waiting=3)
    put(over, 0, 4, n=3)
    over.check_capacity(request(1, range(4), n=2))
    with pytest.raises(BusyError, match=r"^3 answers are running or waiting already, 5 may, and the request wants 3"):
        over.check_capacity(request(1, range(4), n=3))
    with pytest.raises(CapacityError, match=r"^The request wants n=6 answers, and 5 may be under way"):
        over.check_capacity(request(1, range(4), n=6))
