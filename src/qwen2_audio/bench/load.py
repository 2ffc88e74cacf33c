"""`bench load`: an endpoint of OpenAI's chat completions under load, whoever's it is.

Open loop: requests are sent when their time has come, whether or not earlier ones are answered, as people do. So a
server that is too slow shows a queue that grows, and not a client that waits for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
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
class Sent:
    """One request and what became of it; times are seconds since the run began."""

    due: float
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

    requests: list[Sent] = field(default_factory=list)

    def to_json(self) -> str:
        data = json.loads(super().to_json()) | {"requests": [asdict(one) for one in self.requests]}
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
    sent = await _drive(options, endpoint, model, clips, progress)
    after = await _metrics(endpoint)
    about = machine.describe(1) | {
        "ours": version("qwen2-audio"),
        "checkpoint": f"{model} at {options.url}",
        "dtype": f"{options.requests} requests, {options.rate:g} a second",
    }
    return LoadReport(about, [*rows_of(sent), *overhead_rows(sent, before, after)], requests=sent)


async def _drive(
    options: Options, endpoint: Endpoint, model: str, clips: Sequence[Clip], progress: Progress
) -> list[Sent]:
    """Send each request at its time. Bodies are made on a thread, one ahead."""

    def make(number: int) -> bytes:
        clip = clips[number % len(clips)] if clips else synthetic_clip(number, options.seed)
        return body(model, clip, options.max_tokens)

    sent = [Sent(due) for due in arrivals(options.rate, options.requests, options.seed)]
    ready = await asyncio.to_thread(make, 0)
    begun, tasks = time.perf_counter(), []
    for number, one in enumerate(sent):
        await asyncio.sleep(max(begun + one.due - time.perf_counter(), 0))
        tasks.append(asyncio.create_task(_send(endpoint, ready, one, begun)))
        done = sum(task.done() for task in tasks)
        progress(f"{number + 1} of {len(sent)} sent, {done} done")
        if number + 1 < len(sent):
            ready = await asyncio.to_thread(make, number + 1)
    await asyncio.gather(*tasks)
    return sent


async def _send(endpoint: Endpoint, asked: bytes, one: Sent, begun: float) -> None:
    """One request to its end; whatever goes wrong is written down."""
    one.sent = time.perf_counter() - begun
    try:
        async with asyncio.timeout(TIMEOUT):
            async for event in events(endpoint, "/v1/chat/completions", asked):
                _take(event, one, time.perf_counter() - begun)
    except HttpError as error:
        one.error, one.message = error.kind, str(error)
    except TimeoutError:
        one.error, one.message = "timeout", f"no end after {TIMEOUT:g} s"
    except (OSError, EOFError) as error:
        one.error, one.message = "connection", str(error)
    except (ValueError, KeyError, TypeError) as error:
        one.error, one.message = "unreadable", f"{type(error).__name__}: {error}"
    one.ended = time.perf_counter() - begun
    if one.error is None and one.finish_reason in (None, "error"):
        one.error, one.message = "no finish_reason", "the stream ended, and no choice had finished"


def _take(event: dict[str, Any], one: Sent, now: float) -> None:
    for choice in event.get("choices") or ():
        if (choice.get("delta") or {}).get("content"):
            one.pieces.append(now)
            one.tokens += 1
        one.finish_reason = choice.get("finish_reason") or one.finish_reason
    if event.get("usage"):
        one.tokens = event["usage"]["completion_tokens"]


def rows_of(sent: Sequence[Sent]) -> list[Row]:
    """Percentiles, throughput and errors."""
    good = [one for one in sent if one.error is None]
    firsts = [one.first_token for one in good if one.first_token is not None]
    gaps = [b - a for one in good for a, b in pairwise(one.pieces)]
    rows = percentiles("ttft", firsts, "from sending to the first piece of text")
    rows += percentiles("inter_token", gaps, "between two pieces of text")
    rows += percentiles("end_to_end", [one.ended - one.sent for one in good], "from sending to the end")
    span = max((one.ended for one in sent), default=0.0)
    if good and span > 0:
        rows.append(Row("load.requests", len(good) / span, "requests/s", note=f"{len(good)} of {len(sent)} answered"))
        rows.append(Row("load.tokens", sum(one.tokens for one in good) / span, "tokens/s"))
    kinds = Counter(one.error for one in sent if one.error is not None)
    note = ", ".join(f"{kind}: {count}" for kind, count in kinds.most_common())
    note += next((f"; the first: {one.message}" for one in sent if one.error is not None), "")
    rows.append(Row("load.errors", float(sum(kinds.values())), "", note=note))
    late = float(np.percentile([one.sent - one.due for one in sent], 99))
    rows.append(Row("load.late_p99", late, "s", note="sent after its time: this side's own fault"))
    return rows


def percentiles(name: str, seconds: Sequence[float], note: str) -> list[Row]:
    """Rows of the median, the 90th and the 99th percentile; without values where there are none."""
    found = [float(value) for value in np.percentile(seconds, PERCENTILES)] if seconds else [None] * len(PERCENTILES)
    notes = [note] + [""] * len(found)
    return [
        Row(f"load.{name}_p{share}", value, "s", note=said)
        for share, value, said in zip(PERCENTILES, found, notes, strict=False)
    ]


def overhead_rows(sent: Sequence[Sent], before: dict[str, float], after: dict[str, float]) -> list[Row]:
    """What our server adds to the engine's time to first token, in the mean, where /metrics tells; else no row."""
    total, count = "qwen2_audio_time_to_first_token_seconds_sum", "qwen2_audio_time_to_first_token_seconds_count"
    requests = after.get(count, 0.0) - before.get(count, 0.0)
    firsts = [one.first_token for one in sent if one.first_token is not None]
    if not firsts or requests != len(firsts):  # somebody else asked as well, or it is not our server
        return []
    engine = (after[total] - before.get(total, 0.0)) / requests
    note = f"mean first token here, less the engine's {1000 * engine:.1f} ms: HTTP, parsing, decoding, log-mel"
    return [Row("load.server_overhead_mean", sum(firsts) / len(firsts) - engine, "s", note=note)]


async def _metrics(endpoint: Endpoint) -> dict[str, float]:
    """Values of /metrics that have no label; empty where there is no such page."""
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
