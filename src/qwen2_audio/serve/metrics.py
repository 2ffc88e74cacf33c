"""/metrics: the engine's and the server's counters in Prometheus' text format, read at each scrape.

Metrics that vLLM has too carry vLLM's names, with the prefix `qwen2_audio_`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from ..engine.metrics import Histogram
from .state import State

PREFIX = "qwen2_audio_"
# Field of Stats -> name and help text. Other fields keep their own name.
NAMES = {
    "submitted": ("requests_submitted", "Requests accepted"),
    "finished": ("requests_finished", "Answers that ended, by reason"),
    "prompt_tokens": ("prompt_tokens", "Prompt tokens, audio included"),
    "cached_tokens": ("cached_tokens", "Prompt tokens found in the prefix cache"),
    "audio_tokens": ("audio_tokens", "Audio tokens of prompts"),
    "completion_tokens": ("generation_tokens", "Tokens of answers"),
    "seconds_heard": ("heard_seconds", "Seconds of audio heard"),
    "waiting": ("num_requests_waiting", "Sequences waiting"),
    "running": ("num_requests_running", "Sequences running"),
    "first_token": ("time_to_first_token_seconds", "From arrival to the first token"),
    "inter_token": ("inter_token_latency_seconds", "Between two tokens of an answer"),
    "end_to_end": ("e2e_request_latency_seconds", "From arrival to the end of an answer"),
    "queue_wait": ("request_queue_time_seconds", "From arrival to the first step"),
    "prompt_size": ("request_prompt_tokens", "Tokens of a prompt"),
    "lookup_tokens_proposed": ("lookup_tokens_proposed", "Tokens proposed by prompt lookup"),
    "lookup_tokens_accepted": ("lookup_tokens_accepted", "Tokens of prompt lookup that were accepted"),
    "draft_tokens_proposed": ("draft_tokens_proposed", "Tokens proposed by the draft model"),
    "draft_tokens_accepted": ("draft_tokens_accepted", "Tokens of the draft model that were accepted"),
    "encoder_cache_bytes": ("encoder_cache_bytes", "Bytes of encoded clips in the encoder cache"),
    "adapters_loaded": ("adapters_loaded", "Adapters by request that are in memory"),
    "adapter_bytes": ("adapter_bytes", "Bytes of those adapters"),
}
OLD_NAMES = {  # name -> old name, sent as well until 0.3
    "lookup_tokens_proposed": "guesses_made",
    "lookup_tokens_accepted": "guesses_accepted",
    "draft_tokens_proposed": "draft_guesses_made",
    "draft_tokens_accepted": "draft_guesses_accepted",
    "draft_cache_full": "draft_without_room",
    "encoder_cache_bytes": "sounds_bytes",
}
GAUGES = {
    "num_requests_waiting", "num_requests_running", "blocks_used", "blocks_cached", "blocks_total",
    "encoder_cache_bytes", "sounds_bytes", "adapters_loaded", "adapter_bytes",
}  # fmt: skip


class Metrics(Collector):
    """Collects all metrics when Prometheus scrapes them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    async def scrape(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    def collect(self) -> Iterator[Metric]:
        """All metrics; prometheus_client calls this for each scrape."""
        stats = self._state.backend.stats()
        for item in fields(stats):
            value = getattr(stats, item.name)
            name, text = NAMES.get(item.name, (item.name, item.name.replace("_", " ")))
            yield _metric(name, text, value)
            if name in OLD_NAMES:
                yield _metric(OLD_NAMES[name], f"Old name of {PREFIX}{name}", value)
        yield from self._server_metrics()

    def _server_metrics(self) -> Iterator[Metric]:
        served = CounterMetricFamily(
            f"{PREFIX}http_requests", "Responses, by route and status", labels=("path", "status")
        )
        for (path, status), count in sorted(self._state.served.items()):
            served.add_metric((path, str(status)), count)
        yield served
        yield GaugeMetricFamily(f"{PREFIX}http_requests_open", "Requests being served", self._state.requests)
        yield GaugeMetricFamily(
            f"{PREFIX}http_bytes_held", "Bytes reserved for their bodies and clips", self._state.reserved_bytes
        )
        yield GaugeMetricFamily(
            f"{PREFIX}uptime_seconds", "Since the server started", time.time() - self._state.started
        )


def _metric(name: str, text: str, value: Any) -> Metric:
    if isinstance(value, Histogram):
        family = HistogramMetricFamily(PREFIX + name, text)
        family.add_metric((), _buckets(value), value.sum)
        return family
    if isinstance(value, Mapping):
        counter = CounterMetricFamily(PREFIX + name, text, labels=("reason",))
        for reason, count in sorted(value.items()):
            counter.add_metric((str(reason),), count)
        return counter
    kind = GaugeMetricFamily if name in GAUGES else CounterMetricFamily
    return kind(PREFIX + name, text, value)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """[(upper bound, number of observations up to it)], cumulative as Prometheus defines it."""
    total, buckets = 0, []
    for bound, count in zip([*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets
