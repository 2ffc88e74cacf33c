"""`bench load`: any server of OpenAI's chat completions under load, ours or another's.

Open loop: each request is sent at its time, whether or not earlier ones are answered, as people send them. So a server
that is too slow shows a growing queue, instead of a client that waits for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CapacityError, ConfigError
from . import machine
from .load_client import Endpoint, HttpError, events, get
from .load_requests import Clip, arrivals, body, read_clips, synthetic_clip
from .report import Report, Row

KEY_VARIABLE = "QWEN2_AUDIO_API_KEY"
TIMEOUT = 600.0  # seconds of one request
PERCENTILES = (50, 90, 99)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to measure."""

    url: str = "http://127.0.0.1:8000"
    model: str | None = None  # as the endpoint calls it; None: the first that it lists
    api_key: str | None = None  # None: $QWEN2_AUDIO_API_KEY, if it is set
    rate: float = 1.0  # requests a second
    requests: int = 20
    clips: tuple[Path, ...] = ()  # sound files, one after another; none: synthetic ones
    max_tokens: int = 64
    seed: int = 0  # of the times and of the synthetic clips

    def __post_init__(self) -> None:
        Endpoint.of(self.url)
        if not self.rate > 0:
            raise ConfigError(f"rate is {self.rate:g}; expected requests a second, more than 0.")
        for name in ("requests", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1.")


@dataclass
class SentRequest:
    """One request and its answer; times are seconds since the run began."""

    due: float  # when it should be sent
    sent: float = 0.0
    pieces: list[float] = field(default_factory=list)  # when each piece of text came
    ended: float = 0.0
    tokens: int = 0  # of the answer: by its usage, else its pieces
    finish_reason: str | None = None
    error: str | None = None  # its kind
    message: str = ""

    @property
    def first_token(self) -> float | None:
        return self.pieces[0] - self.sent if self.pieces else None


@dataclass(frozen=True)
class LoadReport(Report):
    """A run with each of its requests."""

    requests: list[SentRequest] = field(default_factory=list)

    def to_json(self) -> str:
        data = json.loads(super().to_json()) | {"requests": [asdict(request) for request in self.requests]}
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def run(options: Options, progress: Progress = lambda line: None) -> LoadReport:
    """Send the requests and wait for all of them.

    Raises:
        ConfigError: no model is named and the endpoint lists none, or refuses to.
        CapacityError: nobody answers at the URL.
        AudioError: a clip cannot be read.
    """
    return asyncio.run(_run(options, progress))


async def _run(options: Options, progress: Progress) -> LoadReport:
    endpoint = Endpoint.of(options.url, options.api_key or os.environ.get(KEY_VARIABLE))
    clips = read_clips(options.clips)
    model = await _model(options, endpoint)
    before = await _metrics(endpoint)
    requests = await _send_all(options, endpoint, model, clips, progress)
    after = await _metrics(endpoint)
    about = machine.describe(1) | {
        "ours": version("qwen2-audio"),
        "checkpoint": f"{model} at {options.url}",
        "dtype": f"{options.requests} requests, {options.rate:g} a second",
    }
    return LoadReport(about, [*rows_of(requests), *overhead_rows(requests, before, after)], requests=requests)


async def _send_all(
    options: Options, endpoint: Endpoint, model: str, clips: Sequence[Clip], progress: Progress
) -> list[SentRequest]:
    """Send each request at its time, and wait for all answers. Bodies are made on a thread, one ahead."""

    def make_body(number: int) -> bytes:
        clip = clips[number % len(clips)] if clips else synthetic_clip(number, options.seed)
        return body(model, clip, options.max_tokens)

    requests = [SentRequest(due) for due in arrivals(options.rate, options.requests, options.seed)]
    next_body = await asyncio.to_thread(make_body, 0)
    start, tasks = time.perf_counter(), []
    for number, request in enumerate(requests, 1):
        await asyncio.sleep(max(start + request.due - time.perf_counter(), 0))
        tasks.append(asyncio.create_task(_send(endpoint, next_body, request, start)))
        done = sum(task.done() for task in tasks)
        progress(f"{number} of {len(requests)} sent, {done} done")
        if number < len(requests):
            next_body = await asyncio.to_thread(make_body, number)
    await asyncio.gather(*tasks)
    return requests


async def _send(endpoint: Endpoint, request_body: bytes, request: SentRequest, start: float) -> None:
    """Send one request and read its answer to the end; an error becomes part of `request`."""
    request.sent = time.perf_counter() - start
    try:
        async with asyncio.timeout(TIMEOUT):
            async for event in events(endpoint, "/v1/chat/completions", request_body):
                _record(event, request, time.perf_counter() - start)
    except HttpError as error:
        request.error, request.message = error.kind, str(error)
    except TimeoutError:
        request.error, request.message = "timeout", f"no end after {TIMEOUT:g} s"
    except (OSError, EOFError) as error:
        request.error, request.message = "connection", str(error)
    except (ValueError, KeyError, TypeError) as error:
        request.error, request.message = "unreadable", f"{type(error).__name__}: {error}"
    request.ended = time.perf_counter() - start
    if request.error is None and request.finish_reason in (None, "error"):
        request.error, request.message = "no finish_reason", "the stream ended, and no choice had finished"


def _record(event: dict[str, Any], request: SentRequest, now: float) -> None:
    """Add an event of the answer's stream to `request`."""
    for choice in event.get("choices") or ():
        if (choice.get("delta") or {}).get("content"):
            request.pieces.append(now)
            request.tokens += 1
        request.finish_reason = choice.get("finish_reason") or request.finish_reason
    if event.get("usage"):
        request.tokens = event["usage"]["completion_tokens"]


def rows_of(requests: Sequence[SentRequest]) -> list[Row]:
    """Percentiles, throughput and errors."""
    answered = [request for request in requests if request.error is None]
    failed = [request for request in requests if request.error is not None]
    first_tokens = [request.first_token for request in answered if request.first_token is not None]
    gaps = [later - earlier for request in answered for earlier, later in pairwise(request.pieces)]
    rows = percentiles("ttft", first_tokens, "from sending to the first piece of text")
    rows += percentiles("inter_token", gaps, "between two pieces of text")
    rows += percentiles("end_to_end", [request.ended - request.sent for request in answered], "from sending to the end")
    span = max((request.ended for request in requests), default=0.0)
    if answered and span > 0:
        note = f"{len(answered)} of {len(requests)} answered"
        rows.append(Row("load.requests", len(answered) / span, "requests/s", note=note))
        rows.append(Row("load.tokens", sum(request.tokens for request in answered) / span, "tokens/s"))
    kinds = Counter(request.error for request in failed)
    note = ", ".join(f"{kind}: {count}" for kind, count in kinds.most_common())
    note += f"; the first: {failed[0].message}" if failed else ""
    rows.append(Row("load.errors", float(len(failed)), "", note=note))
    late = float(np.percentile([request.sent - request.due for request in requests], 99))
    rows.append(Row("load.late_p99", late, "s", note="sent after its time: this side's own fault"))
    return rows


def percentiles(name: str, seconds: Sequence[float], note: str) -> list[Row]:
    """Rows of the median, the 90th and the 99th percentile, the first with `note`; without values where there are
    none."""
    values = [float(value) for value in np.percentile(seconds, PERCENTILES)] if seconds else [None] * len(PERCENTILES)
    rows = [Row(f"load.{name}_p{rank}", value, "s") for rank, value in zip(PERCENTILES, values, strict=True)]
    return [replace(rows[0], note=note), *rows[1:]]


def overhead_rows(requests: Sequence[SentRequest], before: dict[str, float], after: dict[str, float]) -> list[Row]:
    """What our server adds to the engine's time to first token, in the mean, where /metrics tells; else no row."""
    total, count = "qwen2_audio_time_to_first_token_seconds_sum", "qwen2_audio_time_to_first_token_seconds_count"
    counted = after.get(count, 0.0) - before.get(count, 0.0)
    first_tokens = [request.first_token for request in requests if request.first_token is not None]
    if not first_tokens or counted != len(first_tokens):  # somebody else asked as well, or it is not our server
        return []
    engine = (after[total] - before.get(total, 0.0)) / counted
    note = f"mean first token here, less the engine's {1000 * engine:.1f} ms: HTTP, parsing, decoding, log-mel"
    return [Row("load.server_overhead_mean", sum(first_tokens) / len(first_tokens) - engine, "s", note=note)]


async def _metrics(endpoint: Endpoint) -> dict[str, float]:
    """The values of /metrics that have no label; empty where there is no such page."""
    try:
        text = (await get(endpoint, "/metrics")).decode("utf-8", "replace")
    except (HttpError, OSError, EOFError):
        return {}
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\d[\d.e+-]*)$", text, flags=re.M)}


async def _model(options: Options, endpoint: Endpoint) -> str:
    """The model to ask for."""
    try:
        listed = json.loads(await get(endpoint, "/v1/models")) if options.model is None else {}
        return options.model or str(listed["data"][0]["id"])
    except (OSError, EOFError) as error:
        raise CapacityError(
            f"Nobody answers at {options.url} ({error}); start a server, such as qwen2-audio serve, or name another."
        ) from error
    except (HttpError, ValueError, KeyError, IndexError, TypeError) as error:
        kind = error.kind if isinstance(error, HttpError) else "no list of models"
        raise ConfigError(f"{options.url}/v1/models gave {kind} ({error}); name the model with --model.") from error
