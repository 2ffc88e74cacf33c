"""An engine under everything at once for a while: every answer ends once and as it must, and nothing is left behind.

A few seconds, or ten minutes (`make test-all`).
"""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from qwen2_audio.audio.mel import num_audio_tokens
from qwen2_audio.engine.engine import Engine, EngineSettings
from qwen2_audio.engine.request import Request, RequestHandle, Sequence
from qwen2_audio.engine.thread import EngineThread
from qwen2_audio.errors import AudioError, CapacityError, ContextLengthError, NumericsError
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.types import Chunk, Heard, SamplingParams

OPEN = 40  # requests under way, about
NEW = 40
SETTINGS = EngineSettings(
    kv_tokens=352, encoder_cache_bytes=20_000, max_num_seqs=6, max_waiting=30, num_prompt_lookup_tokens=2
)
KINDS = {
    "plain": 8, "cancelled": 6, "late": 4, "several": 3, "too long": 1, "too large": 1, "bad audio": 1, "nan": 2,
}  # fmt: skip
ERRORS = {"too long": ContextLengthError, "too large": CapacityError, "bad audio": AudioError, "nan": NumericsError}


@dataclass
class Soak:
    """The requests of a run and what must come of them."""

    tokenizer: Tokenizer
    rng: random.Random = field(default_factory=lambda: random.Random(11))
    open: list[tuple[str, int, RequestHandle]] = field(default_factory=list)
    expected: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    ends: Counter = field(default_factory=Counter)

    def prompt(self, number: int, kind: str = "plain") -> Prompt:
        """Prompt `number`, the same at every call; some begin alike, some have clips."""
        rng = random.Random(number % 12)
        audio = self.tokenizer.convert_tokens_to_ids("<|AUDIO|>")
        if kind == "bad audio":
            raise AudioError("This is no sound.")
        if kind in ("too long", "too large"):
            return Prompt([rng.randrange(300) for _ in range(2100 if kind == "too long" else 700)], [], [], ())
        ids = [number % 3] * 40 + [rng.randrange(300) for _ in range(rng.randrange(3, 30))]
        clips, frames, heard = [], [], []
        for _ in range(1 if kind == "nan" else rng.randrange(3)):
            length = rng.randrange(20, 160)
            clip = np.random.default_rng(length).standard_normal((128, length + length % 2 + 2)).astype(np.float32)
            if kind == "nan":
                clip[:] = np.nan
            ids += [audio] * num_audio_tokens(length) + [rng.randrange(300)]
            clips.append(clip)
            frames.append(length)
            heard.append(Heard(length / 100, num_audio_tokens(length)))
        return Prompt(ids, clips, frames, tuple(heard))

    def params(self, kind: str, number: int) -> SamplingParams:
        if kind == "several":
            return SamplingParams(temperature=1.0, seed=number, n=3, max_tokens=NEW, logprobs=2)
        return SamplingParams(temperature=0, max_tokens=NEW, stop=("never said",) if number % 4 == 0 else ())

    def send(self, thread: EngineThread) -> None:
        (kind,) = self.rng.choices(list(KINDS), list(KINDS.values()))
        number = self.rng.randrange(12)
        timeout = self.rng.choice([0.0, 0.005, 0.05]) if kind == "late" else None
        priority = self.rng.randrange(3)
        params = self.params(kind, number)
        handle = thread.submit(lambda: self.prompt(number, kind), params, timeout=timeout, priority=priority)
        self.open.append((kind, number, handle))

    def cancel_some(self) -> None:
        for kind, _, handle in self.open:
            if kind == "cancelled" and self.rng.random() < 0.1:
                handle.cancel()

    def collect(self) -> None:
        """Check those that are done."""
        done = [one for one in self.open if one[2].done]
        self.open = [one for one in self.open if not one[2].done]
        for kind, number, handle in done:
            chunks = list(handle)
            for index in range(handle.answers):
                self.check(kind, (kind, number), index, [chunk for chunk in chunks if chunk.index == index])

    def check(self, kind: str, key: tuple[str, int], index: int, chunks: list[Chunk]) -> None:
        reasons = [chunk.finish_reason for chunk in chunks]
        assert reasons[-1] is not None and reasons[:-1] == [None] * (len(reasons) - 1)
        end, error = reasons[-1], chunks[-1].error
        self.ends[kind, end] += 1
        text = "".join(chunk.text for chunk in chunks)
        if end == "error" and isinstance(error, CapacityError) and "waiting already" in str(error):
            assert text == ""  # the engine was full, and says so
        elif kind in ERRORS:
            assert end == "error" and isinstance(error, ERRORS[kind]), (kind, end, error)
        else:
            assert end in {"cancelled": ("cancelled", "stop", "length"), "late": ("deadline", "stop", "length")}.get(
                kind, ("stop", "length")
            ), (kind, end, error)
            whole = self.expected[("several", key[1]) if kind == "several" else ("plain", key[1])][index]
            assert whole.startswith(text.rstrip("\ufffd")), (kind, key, text, whole)  # half a character may be its end
            assert text == whole or end in ("cancelled", "deadline")


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint: Path):
    model = Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype="float32")
    return model, Qwen2AudioProcessor.from_pretrained(tiny_checkpoint).tokenizer


def alone(soak: Soak, model, tokenizer) -> None:
    """What each request says when nobody else asks."""
    for kind in ("plain", "several"):
        for number in range(12):
            engine = Engine(model, tokenizer, EngineSettings(kv_tokens=2048))
            params = soak.params(kind, number)
            handle = RequestHandle(params.n, engine.cancel)
            engine.submit(soak.prompt(number), params, handle)
            while not engine.idle:
                engine.step()
            soak.expected[kind, number] = [one.text for one in handle.completions()]


def resident() -> float:
    """MB of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def drive(soak: Soak, thread: EngineThread, seconds: float) -> list[float]:
    """Keep the engine busy; megabytes of memory over time."""
    memory, until, full = [], time.monotonic() + seconds, 0
    while time.monotonic() < until:
        while len(soak.open) < OPEN + soak.rng.randrange(5):
            try:
                soak.send(thread)
            except CapacityError:
                full += 1
                break
        soak.cancel_some()
        soak.collect()
        memory.append(resident())
        time.sleep(0.002)
    assert full, "the queue was never full: too little was asked"
    return memory


def left_behind(kind: type) -> int:
    gc.collect()
    return sum(type(one) is kind for one in gc.get_objects())


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seconds", [4, pytest.param(600, marks=pytest.mark.exhaustive)])
def test_everything_at_once_for_a_while(loaded, seconds: float) -> None:
    model, tokenizer = loaded
    soak = Soak(tokenizer)
    alone(soak, model, tokenizer)
    held = left_behind(Request), left_behind(Sequence)
    time.sleep(0.2)  # encoder threads of engines that nobody closed end now
    before = threading.active_count(), *held
    engine = Engine(model, tokenizer, SETTINGS)
    thread = EngineThread(engine)
    memory = drive(soak, thread, seconds)
    until = time.monotonic() + 60
    while soak.open and time.monotonic() < until:
        soak.collect()
        time.sleep(0.01)
    assert not soak.open, f"{len(soak.open)} requests have not ended"
    thread.close()

    for kind in KINDS:
        assert any(one == kind for one, _ in soak.ends), f"no {kind} request was sent: ask for longer"
    assert soak.ends["cancelled", "cancelled"] and soak.ends["late", "deadline"] and soak.ends["plain", "length"]
    assert engine.stats.preemptions and engine.stats.cached_tokens and engine.stats.clips_cached
    check_nothing_is_held(engine, thread)
    del thread, engine
    soak.open.clear()
    assert (threading.active_count(), left_behind(Request), left_behind(Sequence)) == before
    check_flat(memory)


def check_nothing_is_held(engine: Engine, thread: EngineThread) -> None:
    assert engine.idle and not engine._responses._of_handle and not engine._encoder_errors
    assert (
        engine._scheduler.block_manager.used == 0
        and engine._scheduler.block_manager.free == engine._scheduler.block_manager.blocks
    )
    assert (engine._scheduler.num_waiting, engine._scheduler.num_running) == (0, 0)
    sounds = engine._encoder_cache
    assert not sounds._users and not sounds._queue and not sounds._failed
    assert sounds.nbytes <= sounds.budget
    assert not thread._open and not thread._unsubmitted and not thread._inbox


def check_flat(memory: list[float]) -> None:
    """No more at the end than when all had been warm for a while, but for what an allocator keeps."""
    part = len(memory) // 4
    before, after = sorted(memory[part : 2 * part])[part // 2], sorted(memory[-part:])[part // 2]
    assert after - before < 24, f"memory grew from {before:.0f} to {after:.0f} MB"
