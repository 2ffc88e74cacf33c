import asyncio
import threading

import numpy as np
import pytest

from qwen2_audio.engine.request import Request, RequestHandle, Sequence, completions_of, when_free
from qwen2_audio.errors import BusyError, ShutdownError
from qwen2_audio.inputs.prompt import Prompt, digest
from qwen2_audio.types import Chunk, Heard, SamplingParams, TokenLogprob, Usage

USAGE = Usage(3, 0, 2)
AUDIO = 99


def handle(answers=1):
    return RequestHandle(answers, lambda one: None)


def sequence(keys, index=0, number=0, priority=0):
    prompt = Prompt([1, 2, 3], [], [], ())
    request = Request(number, prompt, [1, 2, 3], SamplingParams(), handle(), 8, "length", priority=priority)
    return Sequence(request, index, keys)


def prompt_of(*clips):
    ids = [1]
    for _, frames in clips:
        ids += [AUDIO] * (frames // 4) + [2]
    heard = tuple(Heard(frames / 100, frames // 4) for _, frames in clips)
    return Prompt(ids, [clip for clip, _ in clips], [frames for _, frames in clips], heard)


# -- waiting for room


def refusing(*errors):
    """A submit that raises these, one a call, then gives a handle; and how often it was called."""
    calls, left = [], list(errors)

    def submit():
        calls.append(1)
        if left:
            raise left.pop(0)
        return handle()

    return submit, calls


def test_a_full_queue_is_tried_again(monkeypatch):
    submit, calls = refusing(BusyError("full"), BusyError("full"))
    assert isinstance(when_free(submit), RequestHandle) and len(calls) == 3
    monkeypatch.setattr("qwen2_audio.engine.request.PATIENCE", 0.03)
    submit, calls = refusing(*[BusyError("full")] * 1000)
    with pytest.raises(BusyError, match="full"):
        when_free(submit)
    assert len(calls) > 1


def test_an_engine_that_shuts_down_is_not():
    submit, calls = refusing(BusyError("full"), ShutdownError("no more"))
    with pytest.raises(ShutdownError, match="no more"):
        when_free(submit)
    assert len(calls) == 2


# -- prompts


def test_equal_sounds_have_equal_digests_and_others_have_others():
    clip = np.arange(12, dtype=np.float32).reshape(2, 6)
    assert digest(clip, 6) == digest(clip.copy(), 6) < 0
    others = [digest(clip, 5), digest(clip.reshape(3, 4), 6), digest(clip + 1, 6), digest(clip.astype(np.float64), 6)]
    assert len({digest(clip, 6), *others}) == 5
    assert digest(np.ascontiguousarray(clip.T).T, 6) == digest(clip, 6), "however it lies in memory"


def test_keys_name_the_sound_in_each_of_its_positions():
    dog, cat = np.zeros((2, 8), np.float32), np.ones((2, 12), np.float32)
    prompt = prompt_of((dog, 8), (cat, 12))
    assert prompt.ids == [1, AUDIO, AUDIO, 2, AUDIO, AUDIO, AUDIO, 2] and prompt.audio_tokens == 5
    a, b = digest(dog, 8), digest(cat, 12)
    assert prompt.prefix_keys(AUDIO) == [1, a, a, 2, b, b, b, 2]
    assert prompt_of((cat, 12), (dog, 8)).prefix_keys(AUDIO) == [1, b, b, b, 2, a, a, 2]


# -- handles


def test_pieces_come_in_order_until_the_terminal_one():
    one = handle()
    one.put(Chunk("a"))
    assert not one.done
    one.put(Chunk("b", "stop", USAGE))
    assert one.done
    assert [chunk.text for chunk in one] == ["a", "b"]
    with pytest.raises(AssertionError, match="after the last terminal one"):
        one.put(Chunk("c"))


def test_a_reader_waits_for_what_another_thread_puts():
    one, read = handle(2), []
    reader = threading.Thread(target=lambda: read.extend(one), daemon=True)
    reader.start()
    for chunk in (Chunk("a"), Chunk("x", "stop", USAGE, index=1), Chunk("b", "length", USAGE)):
        one.put(chunk)
    reader.join(5)
    assert not reader.is_alive() and [chunk.text for chunk in read] == ["a", "x", "b"]


def test_asyncio_reads_what_was_put_before_and_what_another_thread_puts():
    async def all_of(one):
        return [chunk.text async for chunk in one]

    async def main():
        one = handle()
        one.put(Chunk("a"))

        def engine():
            for text in "bcdef":
                one.put(Chunk(text))
            one.put(Chunk("g", "stop", USAGE))

        thread = threading.Timer(0.02, engine)
        thread.start()
        texts = await asyncio.wait_for(all_of(one), 5)
        thread.join()
        return texts

    assert asyncio.run(main()) == list("abcdefg")


def test_a_reader_that_is_gone_does_not_hurt_who_puts():
    one = handle()

    async def leaves():
        reader = one.__aiter__()
        task = asyncio.create_task(reader.__anext__())
        await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(leaves())
    one.put(Chunk("late", "cancelled", USAGE))
    assert one.done


def test_cancel_names_the_ticket():
    cancelled = []
    one = RequestHandle(1, cancelled.append)
    one.cancel()
    one.cancel()
    assert cancelled == [one, one]


def test_completions_join_the_pieces_of_each_answer():
    one = handle(2)
    heard, logprob = (Heard(1.0, 25),), TokenLogprob(5, "b", b"b", -0.5)
    one.put(Chunk("a"))
    one.put(Chunk("x", "length", Usage(3, 0, 1), index=1))
    one.put(Chunk("b", logprobs=(logprob,)))
    one.put(Chunk("", "stop", USAGE, heard))
    first, second = one.completions()
    assert (first.text, first.finish_reason, first.usage, first.heard) == ("ab", "stop", USAGE, heard)
    assert first.logprobs == (logprob,) and second.logprobs == ()
    assert (second.text, second.finish_reason) == ("x", "length")


def test_an_answers_error_is_raised():
    pieces = [Chunk("a", "stop", USAGE), Chunk("b", "error", index=1, error=ValueError("why"))]
    with pytest.raises(ValueError, match=r"^why$"):
        completions_of(pieces, 2)


# -- sequences


def test_what_is_left_to_compute():
    one = sequence([1, 2, 3])
    assert one.num_uncomputed == 3 and not one.decoding
    one.computed = 2
    assert one.num_uncomputed == 1 and not one.decoding, "the end of its prompt"
    one.prefix_keys.append(7)
    one.computed = 3
    assert one.num_uncomputed == 1 and one.decoding
    one.computed = 0
    assert one.num_uncomputed == 4 and not one.decoding, "sent back"


def test_order_is_by_priority_then_arrival_then_answer():
    four = [sequence([1], 0, 5, -1), sequence([1], 0, 1), sequence([1], 1, 1), sequence([1], 0, 2)]
    assert [one.order for one in four] == sorted(one.order for one in four)


def test_sequences_are_told_apart_though_their_keys_are_equal():
    assert sequence([1]) != sequence([1]) and len({sequence([1]), sequence([1])}) == 2
