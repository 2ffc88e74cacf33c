"""The rows of a worker on their way: read ahead by other threads, with the engine, done. The engine is kept full."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.error import HTTPError

from ..datasets.columns import no_sound
from ..datasets.row import Row, Sound
from ..datasets.sounds import load_sound
from ..errors import AudioError, BusyError, ConfigError, Qwen2AudioError
from ..inputs.clip import LIMITS, AudioClip, clip_from_waveform
from .operations import Operation, Pending
from .runner import JobRow, Outcome

READERS = 2  # threads that read and decode clips
AHEAD = 32  # rows that they may be ahead of the engine: 2 MB each at most
ATTEMPTS, PATIENCE = 3, 0.5  # of reading; the second after half a second, the third a second later
Result = TypeVar("Result")
_PAUSE = 0.005  # s between two looks at what is on its way
_ROOM_WITHIN = 60.0  # s that a row waits for the engine's queue while no row before it is with the engine


def sound_of(row: Row) -> Sound:
    """The row's sound. Raises DatasetError where no column names one."""
    if row.sound is None:
        raise no_sound(row.columns, row.where)
    return row.sound


def clip_of(row: Row) -> AudioClip:
    """The row's sound, as a clip that is heard at once. Raises DatasetError, AudioError."""
    loaded = load_sound(sound := sound_of(row), limits=LIMITS)
    return clip_from_waveform(loaded.waveform, sound.name, loaded.notes)


def answered(operation: Operation, rows: Iterable[JobRow | None], in_flight: int) -> Iterator[Outcome]:
    """See `runner.Worker.answer`. At most AHEAD rows are read ahead, and `in_flight` are with the engine."""
    source, exhausted, queue_full, waited = iter(rows), False, False, 0.0
    reading: deque[tuple[JobRow, Future[Any]]] = deque()
    asked: list[tuple[JobRow, Pending]] = []
    with ThreadPoolExecutor(READERS, thread_name_prefix="qwen2-audio-read") as pool:
        try:
            while True:
                moved = False
                while not exhausted and len(reading) < AHEAD:
                    item = next(source, _END)
                    if item is None:
                        break
                    exhausted = item is _END
                    if isinstance(item, JobRow):
                        reading.append((item, pool.submit(patiently, partial(operation.read, item))))
                        moved = True
                while reading and len(asked) < in_flight and not queue_full and reading[0][1].done():
                    row, future = reading[0]
                    try:
                        asked.append((row, operation.submit(row, future.result())))
                    except Exception as error:
                        queue_full = isinstance(error, BusyError) and (bool(asked) or waited < _ROOM_WITHIN)
                        if queue_full:  # a row may be many requests; it waits for those before it
                            break
                        yield failed(row, error)
                    reading.popleft()
                    moved = True
                finished, waiting = _divided(asked)
                if finished:
                    asked, queue_full, waited = waiting, False, 0.0
                    yield from (_outcome(row, pending) for row, pending in finished)
                elif exhausted and not reading and not asked:
                    return
                elif not moved:
                    time.sleep(_PAUSE)
                    if queue_full and not asked:  # of rows that another call has with this engine
                        queue_full, waited = False, waited + _PAUSE
        finally:
            for _, future in reading:
                future.cancel()


def patiently(read: Callable[[], Result]) -> Result:
    """What `read` returns, a row's sound; a server or store that does not answer is asked again."""
    for attempt in range(1, ATTEMPTS):
        try:
            return read()
        except AudioError as error:
            if not _may_pass(error.__cause__):
                raise
        time.sleep(PATIENCE * attempt)
    return read()


def _may_pass(cause: BaseException | None) -> bool:
    """Whether what a clip could not be read for may be otherwise a moment later."""
    if isinstance(cause, HTTPError):
        return cause.code >= 500 or cause.code == 429
    lasting = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
    return isinstance(cause, (OSError, HTTPException)) and not isinstance(cause, lasting)


_END = object()
_Asked = tuple[JobRow, Pending]


def _divided(asked: list[_Asked]) -> tuple[list[_Asked], list[_Asked]]:
    """Those that have their answer, and those that wait for it."""
    finished: list[_Asked] = []
    waiting: list[_Asked] = []
    for pair in asked:
        (finished if pair[1].done() else waiting).append(pair)
    return finished, waiting


def _outcome(item: JobRow, pending: Pending) -> Outcome:
    try:
        return Outcome(item.number, result=pending.result())
    except Exception as error:
        return failed(item, error)


def failed(item: JobRow, error: Exception) -> Outcome:
    """The outcome of a row that cannot be answered. Raises what is no row's fault, as an engine that is broken."""
    if isinstance(error, ConfigError) or _is_fatal(error):
        raise error
    if isinstance(error, Qwen2AudioError):
        return Outcome(item.number, error=getattr(error, "sentence", "") or str(error), kind=type(error).__name__)
    reason = (str(error).strip().splitlines() or ["no reason given"])[0]
    return Outcome(item.number, error=f"{type(error).__name__}: {reason}", kind=type(error).__name__)


def _is_fatal(error: Exception) -> bool:
    """After an error of a GPU every later computation of its process fails, too."""
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)
