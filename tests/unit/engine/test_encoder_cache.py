"""The order in which clips are encoded, a layer a slice, and what is kept of them."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from kit.tiny import tiny_config, tiny_model
from qwen2_audio.engine import encoder_cache
from qwen2_audio.engine.encoder_cache import EncoderCache, is_small
from qwen2_audio.engine.metrics import Stats
from qwen2_audio.engine.request import Request, RequestHandle
from qwen2_audio.errors import AudioError
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.types import SamplingParams

LAYERS = 2
SLICES = LAYERS + 1  # a job's: one before each layer, and the one that finishes it


@pytest.fixture(scope="module")
def model():
    return tiny_model(tiny_config({"max_source_positions": 1500}))


@pytest.fixture
def cache(model):
    return EncoderCache(model, budget=1 << 20, stats=Stats())


@pytest.fixture
def no_sound_in_120(monkeypatch):
    """Clips of 120 frames cannot be encoded."""
    make = encoder_cache.encode_in_steps

    def broken(model, clips, frames):
        if 120 in frames:
            raise AudioError("no sound")
        return (yield from make(model, clips, frames))

    monkeypatch.setattr(encoder_cache, "encode_in_steps", broken)


@pytest.fixture
def go(monkeypatch):
    """Nothing is encoded before this event."""
    event, make = threading.Event(), encoder_cache.encode_in_steps

    def held(model, clips, frames):
        assert event.wait(60)
        return (yield from make(model, clips, frames))

    monkeypatch.setattr(encoder_cache, "encode_in_steps", held)
    return event


def request(*frames, seed=0):
    """A request with a clip of each of so many mel frames; other seeds give other clips."""
    rng = np.random.default_rng(seed)
    clips = [rng.standard_normal((8, n + n % 2 + 2)).astype(np.float32) for n in frames]
    return of_prompt(Prompt([], clips, list(frames), ()))


def of_prompt(prompt):
    return Request(0, prompt, [], SamplingParams(), RequestHandle(1, lambda handle: None), 1, "length")


def need(cache, *frames, seed=0):
    wanted = request(*frames, seed=seed)
    cache.acquire(wanted)
    cache.ready(wanted)
    return wanted


@torch.no_grad()
def slices(cache, count):
    for _ in range(count):
        cache.encode(0.0)


def expected(model, wanted):
    with torch.no_grad():
        embeds = [
            model.multi_modal_projector(model.audio_tower.encode(torch.from_numpy(clip)[None], [frames]))
            for clip, frames in zip(wanted.prompt.clips, wanted.prompt.frames, strict=True)
        ]
    return torch.cat(embeds).view(-1, embeds[0].shape[-1])


def test_a_slice_of_no_time_is_one_layer_and_one_of_much_time_is_all(cache, model):
    first = need(cache, 200)
    slices(cache, SLICES - 1)
    assert cache.busy and not cache.has_all(first)
    slices(cache, 1)
    assert cache.has_all(first) and not cache.busy
    torch.testing.assert_close(cache.embeddings(first), expected(model, first))
    second = need(cache, 100, 900, 1500, seed=1)  # no job of all three: a short clip does not wait for long ones
    with torch.no_grad():
        cache.encode(60.0)
    assert cache.has_all(second) and not cache.busy
    torch.testing.assert_close(cache.embeddings(second), expected(model, second))


def test_a_shorter_clip_goes_first(cache):
    long = need(cache, 2000)
    slices(cache, 1)
    short = need(cache, 50)
    slices(cache, SLICES)  # one of them belongs to the oldest, at most
    assert not cache.has_all(long)
    slices(cache, 1)
    assert cache.has_all(short)


def test_a_long_clip_is_encoded_though_shorter_ones_keep_coming(cache):
    """Every fourth slice is the oldest job's."""
    long = need(cache, 2000)
    for number in range(4 * SLICES):
        assert not cache.has_all(long), number
        need(cache, 50, seed=1 + number)
        slices(cache, 1)
    assert cache.has_all(long)
    assert cache._stats.clips_encoded == 1 + 3, "the other nine slices were the shorter clips'"


def test_clips_of_like_length_are_encoded_together(cache):
    lengths = (50, 200, 201, 1400, 1450, 1500)
    many = need(cache, *lengths)
    cache._start_jobs()
    jobs = [[clip.frames for clip in job.clips] for job in cache._jobs]
    assert jobs == [[50, 200], [201], [1400, 1450], [1500]]  # up to 2 x 50 + 100 frames; up to 3000 together
    slices(cache, SLICES * len(jobs))
    assert cache.has_all(many)


def test_a_clip_that_cannot_be_encoded_fails_alone(cache, model, no_sound_in_120):
    good, bad = request(100, seed=1), request(120, seed=2)
    for wanted in (good, bad):
        cache.acquire(wanted)
        cache.ready(wanted)
    with torch.no_grad():
        cache.encode(60.0)
    torch.testing.assert_close(cache.embeddings(good), expected(model, good))
    assert cache.has_all(good) and not cache.has_all(bad)
    with pytest.raises(AudioError, match="no sound"):
        cache.ready(bad)
    cache.release(bad)
    assert not cache.ready(bad), "asked again, it is tried again"
    assert cache.busy


def test_what_nobody_needs_goes_when_room_is_needed_the_least_recently_used_first(model):
    size = 25 * 32 * 4  # bytes of a clip of 100 frames: tokens x width x float32
    cache = EncoderCache(model, budget=2 * size, stats=Stats())
    kept, first, second, third = (need(cache, 100, seed=seed) for seed in range(4))
    with torch.no_grad():
        cache.encode(60.0)
    assert cache.nbytes == 4 * size, "all of them are needed"
    cache.release(second)
    cache.release(first)
    assert [cache.has_all(one) for one in (kept, first, second, third)] == [True, False, False, True]
    assert cache.nbytes == 2 * size
    cache.release(kept)
    cache.release(third)
    assert cache.nbytes == 2 * size, "within the budget they stay"
    cache.acquire(kept)  # used again, so that the other one is the least recently used
    cache.release(kept)
    need(cache, 100, seed=9)
    with torch.no_grad():
        cache.encode(60.0)
    assert cache.has_all(kept) and not cache.has_all(third)
    assert cache._stats.clips_cached == 1 and cache._stats.clips_encoded == 5


def test_a_clip_that_nobody_waits_for_is_not_encoded(cache):
    queued = need(cache, 100)
    cache.release(queued)
    assert not cache.busy
    begun, other = need(cache, 100), need(cache, 100)
    slices(cache, 1)
    cache.release(begun)
    assert cache.busy, "another request needs the same clip"
    cache.release(other)
    assert not cache.busy


def test_after_clear_everything_is_encoded_anew(cache):
    done = need(cache, 100)
    slices(cache, SLICES)
    begun, _queued = need(cache, 200, seed=1), request(300, seed=2)
    slices(cache, 1)
    cache.acquire(_queued)
    cache.ready(_queued)
    cache.clear()
    assert not cache.busy and cache.nbytes == 0
    assert not cache.has_all(done) and not cache.has_all(begun)
    assert not cache.ready(done) and cache.busy


def test_the_model_of_whole_windows_is_asked_in_one_go(cache, model, monkeypatch):
    """An encoder that attends to padding, as some checkpoints ask for, has no layers to stop between."""
    monkeypatch.setattr(model, "encoder_mask", False)
    window = np.random.default_rng(0).standard_normal((8, 3000)).astype(np.float32)
    wanted = of_prompt(Prompt([], [window], [100], ()))
    cache.acquire(wanted)
    cache.ready(wanted)
    slices(cache, 1)
    assert not cache.has_all(wanted)
    slices(cache, 1)
    with torch.no_grad():
        whole, tokens = model.encode_audio(torch.from_numpy(window)[None], (torch.arange(3000) < 100)[None])
    assert tokens == [25]
    torch.testing.assert_close(cache.embeddings(wanted), whole)


# A small encoder, with a thread of its own


@pytest.fixture
def apart(model):
    cache = EncoderCache(model, budget=1 << 20, stats=Stats(), apart=True)
    yield cache
    cache.close()
    assert not any(thread.name.startswith("qwen2-audio-encode") for thread in threading.enumerate())


@pytest.fixture
def threads(monkeypatch):
    """The names of the threads that encode, job by job."""
    names, make = [], encoder_cache.encode_in_steps

    def noted(model, clips, frames):
        names.append(threading.current_thread().name)
        return (yield from make(model, clips, frames))

    monkeypatch.setattr(encoder_cache, "encode_in_steps", noted)
    return names


@torch.no_grad()
def encoded(cache, wanted, **how):
    until = time.monotonic() + 60
    while not cache.has_all(wanted):
        assert time.monotonic() < until
        cache.encode(0.05, **how)


def test_several_jobs_are_for_the_encoders_thread_and_one_is_done_here(apart, model, threads):
    one = need(apart, 200)
    encoded(apart, one)
    assert threads == [threading.current_thread().name]
    many = need(apart, 100, 900, 1500, seed=1)
    encoded(apart, many)
    torch.testing.assert_close(apart.embeddings(many), expected(model, many))
    beside = need(apart, 300, seed=2)
    encoded(apart, beside, beside=True)
    assert [name.split("_")[0] for name in threads[1:]] == ["qwen2-audio-encode"] * 3
    assert not apart.busy and apart._stats.clips_encoded == 5 and apart._stats.seconds_encoder > 0


def test_beside_other_work_nothing_is_waited_for(apart, go):
    wanted = need(apart, 100)
    apart.encode(60.0, beside=True)
    assert apart.computing and apart.busy and not apart.has_all(wanted)
    go.set()
    encoded(apart, wanted)
    assert not apart.computing


def test_a_clip_that_cannot_be_encoded_fails_alone_on_the_encoders_thread(apart, model, no_sound_in_120):
    good, bad = request(100, seed=1), request(120, seed=2)
    for wanted in (good, bad):
        apart.acquire(wanted)
        apart.ready(wanted)
    encoded(apart, good, beside=True)
    torch.testing.assert_close(apart.embeddings(good), expected(model, good))
    until = time.monotonic() + 60
    while apart.busy and time.monotonic() < until:
        apart.encode(0.05, beside=True)
    with pytest.raises(AudioError, match="no sound"):
        apart.ready(bad)


@pytest.mark.parametrize("end", [lambda cache, wanted: cache.release(wanted), lambda cache, wanted: cache.clear()])
def test_what_nobody_waits_for_any_more_is_dropped_while_it_is_computed(apart, go, end):
    dropped = need(apart, 100)
    apart.encode(0.0, beside=True)
    end(apart, dropped)
    assert not apart.busy and not apart.computing
    go.set()
    other = need(apart, 200, seed=3)
    encoded(apart, other, beside=True)
    assert not apart.has_all(dropped) and apart.nbytes == 50 * 32 * 4


def test_an_encoder_with_hooks_is_called_on_the_engines_thread(apart, model, threads):
    hook = model.audio_tower.register_forward_hook(lambda module, inputs, out: None)
    try:
        encoded(apart, need(apart, 100, 1500), beside=True)
    finally:
        hook.remove()
    assert set(threads) == {threading.current_thread().name}


def test_only_a_small_encoder_on_a_cpu_with_cores_to_spare_gets_a_thread(model, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert is_small(model)
    monkeypatch.setattr(encoder_cache, "SMALL_WIDTH", 8)
    assert not is_small(model), "it is wider"
    monkeypatch.undo()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert not is_small(model), "there is one thread"
