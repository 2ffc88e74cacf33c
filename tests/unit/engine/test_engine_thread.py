"""The engine's thread: who is cancelled, late or overtaken by `close` while the sound is still read."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

import pytest

from qwen2_audio.engine import thread as module
from qwen2_audio.engine.engine import Engine, EngineSettings
from qwen2_audio.engine.thread import EngineThread
from qwen2_audio.errors import BusyError, ConfigError, ShutdownError
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.types import SamplingParams

PROMPT = Prompt([1, 2, 3], [], [], ())
SHORT = SamplingParams(temperature=0, max_tokens=2, min_tokens=2)


@pytest.fixture
def thread(tiny_checkpoint):
    model = Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint)
    tokenizer = Qwen2AudioProcessor.from_pretrained(tiny_checkpoint).tokenizer
    running = EngineThread(Engine(model, tokenizer, EngineSettings(kv_tokens=256)))
    yield running
    running.close()


class Slow:
    """A `prepare` that takes as long as the test wants."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> Prompt:
        self.begun.set()
        self.go_on.wait(60)
        return PROMPT


def ends(handle):
    return [chunk.finish_reason for chunk in handle if chunk.finish_reason]


@pytest.fixture
def slow():
    both = [Slow(), Slow()]  # as many as there are workers
    yield both
    for one in both:
        one.go_on.set()


def test_close_does_not_wait_for_sounds_that_are_read(thread, slow):
    handles = [thread.submit(one, SHORT) for one in (*slow, *slow)]  # two are read, two wait
    for one in slow:
        assert one.begun.wait(10)
    started = time.monotonic()
    thread.close(grace=0.05)
    assert time.monotonic() - started < 5
    assert [ends(handle) for handle in handles] == [["cancelled"]] * 4
    for one in slow:
        one.go_on.set()  # what comes of it has nobody to hear it
    with pytest.raises(ShutdownError, match="shutting down"):
        thread.submit(lambda: PROMPT, SHORT)


def test_who_leaves_while_the_sound_is_read_is_gone_at_once(thread, slow):
    read, waiting = thread.submit(slow[0], SHORT), [thread.submit(one, SHORT) for one in (slow[1], slow[0])]
    assert slow[0].begun.wait(10)
    for handle in (read, *waiting):
        handle.cancel()
        handle.cancel()
        assert ends(handle) == ["cancelled"]
    assert not thread._open and not thread._unsubmitted


def test_a_deadline_holds_while_the_sound_is_read(thread, slow):
    handles = [thread.submit(one, SHORT, timeout=0.2) for one in (*slow, *slow)]
    started = time.monotonic()
    assert [ends(handle) for handle in handles] == [["deadline"]] * 4
    assert time.monotonic() - started < 5


def test_text_does_not_wait_for_sound(thread, slow):
    held = [thread.submit(one, SHORT) for one in slow]
    for one in slow:
        assert one.begun.wait(10)
    assert ends(thread.submit(lambda: PROMPT, SHORT, timeout=10, quick=True)) == ["length"], "before its deadline"
    assert not any(handle.done for handle in held)
    for one in slow:
        one.go_on.set()
    assert [ends(handle) for handle in held] == [["length"]] * 2


def test_a_request_that_comes_as_the_engine_closes_is_refused_or_ended(thread, monkeypatch):
    """`close` between a request's arrival and its way to a worker: neither of them hangs."""
    begun, go_on = threading.Event(), threading.Event()
    real, found = module.team_leaver(), []
    monkeypatch.setattr(module, "team_leaver", lambda: lambda: (begun.set(), go_on.wait(10), real()))

    def ask():
        try:
            found.append(ends(thread.submit(lambda: PROMPT, SHORT)))
        except BusyError as error:
            found.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert begun.wait(10)
    closing = threading.Thread(target=thread.close, daemon=True)
    closing.start()
    time.sleep(0.2)
    go_on.set()
    closing.join(10)
    asking.join(10)
    assert not closing.is_alive() and not asking.is_alive() and len(found) == 1


def test_the_gauges_say_so_when_the_last_one_leaves(thread):
    handle = thread.submit(lambda: PROMPT, SamplingParams(temperature=1.0, max_tokens=200, min_tokens=200, seed=1))
    for _ in handle:
        break
    handle.cancel()
    until = time.monotonic() + 10
    while thread.stats().running and time.monotonic() < until:
        time.sleep(0.01)
    stats = thread.stats()
    assert (stats.running, stats.waiting, stats.blocks_used) == (0, 0, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_is_told_so_at_once(thread):
    """The engine's thread is in the parent only; a child that waited for it would wait for ever."""
    thread.submit(lambda: PROMPT, SHORT).completions()
    child = multiprocessing.get_context("fork").Process(target=_asks_and_leaves, args=(thread,))
    child.start()
    child.join(30)
    alive = child.is_alive()
    child.kill()
    assert not alive and child.exitcode == 0
    assert thread.submit(lambda: PROMPT, SHORT).completions(), "the parent's goes on"


def _asks_and_leaves(thread):
    with pytest.raises(ConfigError, match="was forked from it"):
        thread.submit(lambda: None, SHORT)
    thread.close()
