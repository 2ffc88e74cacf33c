"""The engine's counters, gauges and histograms, and how a step updates them."""

from __future__ import annotations

import copy
import time
from bisect import bisect_left
from dataclasses import dataclass, field

from ..types import FinishReason, Usage

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


@dataclass
class Histogram:
    """Counts of values up to each bound, and above the last."""

    bounds: tuple[float, ...] = SECONDS
    counts: list[int] = field(default_factory=list)
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclass
class Stats:
    """Counters since the engine began, gauges of its last step, histograms."""

    submitted: int = 0
    finished: dict[str, int] = field(default_factory=dict)  # answers, by reason
    prompt_tokens: int = 0
    cached_tokens: int = 0
    audio_tokens: int = 0
    completion_tokens: int = 0
    seconds_heard: float = 0.0
    steps: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    seconds_prefill: float = 0.0
    seconds_decode: float = 0.0
    seconds_encoder: float = 0.0
    seconds_overhead: float = 0.0  # of steps, outside the models and the encoder
    preemptions: int = 0
    clips_encoded: int = 0
    clips_cached: int = 0
    lookup_tokens_proposed: int = 0  # by prompt lookup
    lookup_tokens_accepted: int = 0
    draft_tokens_proposed: int = 0  # by the draft model
    draft_tokens_accepted: int = 0
    draft_cache_full: int = 0  # times that an answer found no room in the draft model's cache
    draft_failures: int = 0  # answers that go on without the draft model
    seconds_draft: float = 0.0
    waiting: int = 0
    running: int = 0
    blocks_used: int = 0
    blocks_cached: int = 0
    blocks_total: int = 0
    encoder_cache_bytes: int = 0
    adapters_loaded: int = 0
    adapter_bytes: int = 0
    queue_wait: Histogram = field(default_factory=Histogram)
    first_token: Histogram = field(default_factory=Histogram)
    inter_token: Histogram = field(default_factory=Histogram)
    end_to_end: Histogram = field(default_factory=Histogram)
    step_seconds: Histogram = field(default_factory=Histogram)
    prompt_size: Histogram = field(default_factory=lambda: Histogram(TOKENS))

    def finish(self, reason: FinishReason, usage: Usage, seconds: float, index: int) -> None:
        """An answer has ended. The prompt's cost is counted once a request."""
        self.finished[reason] = self.finished.get(reason, 0) + 1
        self.completion_tokens += usage.completion_tokens
        if index == 0:
            self.cached_tokens += usage.cached_tokens
            self.prompt_tokens += usage.prompt_tokens
            self.audio_tokens += usage.audio_tokens
            self.seconds_heard += seconds
            self.prompt_size.add(usage.prompt_tokens)

    def snapshot(self) -> Stats:
        return copy.deepcopy(self)

    @property
    def seconds_computing(self) -> float:
        """Seconds in the models and the encoder."""
        return self.seconds_prefill + self.seconds_decode + self.seconds_encoder + self.seconds_draft

    def count_pass(self, prefill: int, decode: int, seconds: float) -> None:
        """A pass computed so many prefill and decode positions in `seconds`."""
        self.prefill_tokens += prefill
        self.decode_tokens += decode
        share = prefill / (prefill + decode)
        self.seconds_prefill += seconds * share
        self.seconds_decode += seconds * (1 - share)


class StepTimer:
    """Adds a step's duration, and the part of it outside the models, to `stats`."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._started = 0.0
        self._computing = 0.0

    def start(self) -> float:
        """A step starts now; returns time.monotonic()."""
        self._computing = self._stats.seconds_computing
        self._started = time.monotonic()
        return self._started

    def stop(self) -> None:
        """The step is over."""
        stats = self._stats
        seconds = time.monotonic() - self._started
        stats.steps += 1
        stats.seconds_overhead += max(0.0, seconds - (stats.seconds_computing - self._computing))
        stats.step_seconds.add(seconds)
