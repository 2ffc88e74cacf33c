"""Embeddings of clips: encoded once for each content, in slices between two steps of the engine.

    needed clips  --jobs, shortest first-->  encoder, a few layers at a time  -->  embeddings [N, H], cached by key

The encoder takes longer for a clip of 30 s than other requests should wait between two tokens. So each slice runs only
some of its layers, and a shorter clip that arrives meanwhile goes first.

The products of a very small model gain little from several threads. On a CPU its encoder has a thread of its own, and
the language model computes beside it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..audio.mel import num_audio_tokens
from ..distributed.tensor_parallel import tensor_parallel_group
from ..inputs.collate import stack_clips, to_device
from ..model.encoder import listened_to
from ..native.openmp import one_thread
from .executor.adapter_rows import of_encoder
from .metrics import Stats
from .model_interface import EngineModel
from .request import Request

if TYPE_CHECKING:
    from .adapters import LoadedAdapter

JOB_FRAMES = 3000  # most mel frames that are encoded together, unless one clip alone has more
OLDEST_EVERY = 4  # every fourth slice goes to the oldest job, the others to the shortest
SMALL_WIDTH = 512  # of an encoder that has a thread of its own, at most
_Embeddings = tuple[torch.Tensor, list[int]]  # of the clips of a job, end to end, and how many rows each has


@dataclass(frozen=True, eq=False)
class _Clip:
    """A clip that is to be encoded."""

    mel: np.ndarray  # log-mel [mel bins, F]
    frames: int  # valid ones
    adapter: LoadedAdapter | None  # of the encoder


@dataclass(eq=False)
class _Job:
    """Clips in the encoder, laid end to end, all under one adapter or none."""

    keys: list[int]
    clips: list[_Clip]
    frames: int
    steps: Generator[None, None, _Embeddings]
    begun: bool = False  # by the engine's thread, which then ends it
    future: Future[tuple[_Embeddings, float]] | None = None  # of the encoder's thread, with the seconds that it took


class EncoderCache:
    """Embeddings of clips by `Request.clip_keys`. Beyond `budget` bytes the least recently used clip is evicted.

    Clips of unfinished requests stay: `acquire` counts a request's need, `release` ends it. Attribute `nbytes`: of all
    cached embeddings.
    """

    def __init__(
        self, model: EngineModel, budget: int, stats: Stats, *, adapts: bool = True, apart: bool = False
    ) -> None:
        """`adapts`: the requests' adapters are `model`'s; else it hears without them. `apart`: the encoder has a thread
        of its own."""
        self._model, self.budget, self._stats, self._adapts = model, budget, stats, adapts
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="qwen2-audio-encode") if apart else None
        self.nbytes = 0
        self._cached: OrderedDict[int, torch.Tensor] = OrderedDict()
        self._users: dict[int, int] = {}  # key -> unfinished requests that need it
        self._failed: dict[int, Exception] = {}
        self._queue: dict[int, _Clip] = {}  # in order of arrival
        self._jobs: list[_Job] = []
        self._slices = 0

    @property
    def busy(self) -> bool:
        """There is something to encode."""
        return bool(self._queue or self._jobs)

    @property
    def computing(self) -> bool:
        """The encoder's own thread is at work."""
        return any(job.future is not None and not job.future.done() for job in self._jobs)

    def acquire(self, request: Request) -> None:
        """A request needs its clips, now or later. Each `acquire` has its `release`."""
        for key in self._keys(request):
            self._users[key] = self._users.get(key, 0) + 1
            if key in self._cached:
                self._cached.move_to_end(key)
                self._stats.clips_cached += 1

    def release(self, request: Request) -> None:
        """A request is finished."""
        for key in self._keys(request):
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key]
                self._queue.pop(key, None)  # no request waits for it any more
                self._failed.pop(key, None)
        self._drop([job for job in self._jobs if not any(key in self._users for key in job.keys)])
        self._evict()

    def has_all(self, request: Request) -> bool:
        """All clips of the request are encoded."""
        return all(key in self._cached for key in self._keys(request))

    def ready(self, request: Request) -> bool:
        """`has_all`; clips that are missing are queued. Raises the error of the encoder on one of them."""
        prompt, in_jobs = request.prompt, {key for job in self._jobs for key in job.keys}
        adapter = request.adapter if self._adapts and request.adapter and request.adapter.encoder else None
        for key, clip, frames in zip(self._keys(request), prompt.clips, prompt.frames, strict=True):
            if key in self._failed:
                raise self._failed[key]
            if key not in self._cached and key not in in_jobs:
                self._queue.setdefault(key, _Clip(clip, frames, adapter))
        return self.has_all(request)

    def embeddings(self, request: Request) -> torch.Tensor:
        """[sum of N, H]: the embeddings of the request's clips, in order."""
        return torch.cat([self._cached[key] for key in self._keys(request)])

    def clear(self) -> None:
        """Drop everything that was encoded, finished or not, because the weights have changed and no request waits."""
        self._drop(list(self._jobs))
        for container in (self._cached, self._queue, self._failed):
            container.clear()
        self.nbytes = 0

    def close(self) -> None:
        """End the encoder's thread."""
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)

    def encode(self, seconds: float, *, beside: bool = False) -> None:
        """Encode for about `seconds`: at least one layer, and at most one layer longer. `beside`: the language model
        has something to compute.

        Where the encoder has a thread of its own, take what that has finished. Without anything beside, a single job
        is done here, by all threads, and else that thread is waited for.
        """
        started = time.monotonic()
        self._start_jobs()
        new = [job for job in self._jobs if job.future is None and not job.begun]
        if self._worker is not None and new and (beside or len(self._jobs) > 1) and not is_listened_to(self._model):
            for job in new:
                job.future = self._worker.submit(self._compute, job)
        self._collect(0.0 if beside else seconds)
        if here := [job for job in self._jobs if job.future is None]:
            self._encode_here(here, started + seconds)
            self._stats.seconds_encoder += time.monotonic() - started

    def _encode_here(self, jobs: list[_Job], until: float) -> None:
        while jobs:
            self._slices += 1
            oldest = self._slices % OLDEST_EVERY == 0
            job = jobs[0] if oldest else min(jobs, key=lambda candidate: candidate.frames)
            while self._run_layer(job):
                if time.monotonic() >= until:
                    return
            jobs = [job for job in self._jobs if job.future is None]
            if time.monotonic() >= until:
                return

    def _run_layer(self, job: _Job) -> bool:
        """One layer of a job; False once the job is finished."""
        job.begun = True
        try:
            with self._adapted(job):
                next(job.steps)
            return True
        except StopIteration as finished:
            self._take(job, finished.value)
        except Exception as error:
            self._take_error(job, error)
        self._jobs.remove(job)
        return False

    def _compute(self, job: _Job) -> tuple[_Embeddings, float]:
        """All layers of a job, and the seconds that they took. On the encoder's thread."""
        started = time.monotonic()
        with torch.no_grad(), one_thread(), self._adapted(job):
            while True:
                try:
                    next(job.steps)
                except StopIteration as finished:
                    return finished.value, time.monotonic() - started

    def _collect(self, seconds: float) -> None:
        """Take what the encoder's thread has finished; wait up to `seconds` for the first of it."""
        apart = [(job, job.future) for job in self._jobs if job.future is not None]
        if apart:
            wait([future for _, future in apart], seconds, FIRST_COMPLETED)
        for job, future in apart:
            if not future.done():
                continue
            try:
                embeddings, took = future.result()
            except Exception as error:
                self._take_error(job, error)
            else:
                self._take(job, embeddings)
                self._stats.seconds_encoder += took
            self._jobs.remove(job)

    def _adapted(self, job: _Job) -> AbstractContextManager[None]:
        adapter = job.clips[0].adapter
        return nullcontext() if adapter is None else of_encoder(self._model, adapter)

    def _take(self, job: _Job, embeddings: _Embeddings) -> None:
        embeds, tokens = embeddings
        for key, part in zip(job.keys, embeds.split(tokens), strict=True):
            self._insert(key, part.clone())  # a copy: a view would keep the whole job's tensor alive
        self._stats.clips_encoded += len(job.keys)
        self._evict()

    def _take_error(self, job: _Job, error: Exception) -> None:
        """Of a clip, or of the machine: it is reported to the requests that wait for the clip."""
        if len(job.keys) > 1:  # each clip alone shows which of them it is
            self._jobs += [self._make_job([key], [clip]) for key, clip in zip(job.keys, job.clips, strict=True)]
        else:
            self._failed[job.keys[0]] = error

    def _drop(self, jobs: list[_Job]) -> None:
        for job in jobs:
            self._jobs.remove(job)
            if job.future is not None:
                job.future.cancel()

    def _make_job(self, keys: list[int], clips: list[_Clip]) -> _Job:
        mels, frames = [clip.mel for clip in clips], [clip.frames for clip in clips]
        return _Job(keys, clips, sum(frames), encode_in_steps(self._model, mels, frames))

    def _keys(self, request: Request) -> list[int]:
        return request.clip_keys if self._adapts else request.prompt.digests

    def _start_jobs(self) -> None:
        """Put clips of like length together, so that a short one does not wait for a long one."""
        while self._queue:
            by_length = sorted(self._queue, key=lambda key: self._queue[key].frames)
            first = self._queue[by_length[0]]
            shortest, frames = first.frames, 0
            chosen: list[int] = []
            for key in by_length:
                if self._queue[key].adapter is not first.adapter:
                    continue
                length = self._queue[key].frames
                if chosen and (frames + length > JOB_FRAMES or length > 2 * shortest + 100):
                    break
                chosen.append(key)
                frames += length
            self._jobs.append(self._make_job(chosen, [self._queue.pop(key) for key in chosen]))

    def _evict(self) -> None:
        for key in list(self._cached):
            if self.nbytes <= self.budget:
                return
            if key not in self._users:
                self.nbytes -= self._cached.pop(key).nbytes

    def _insert(self, key: int, embeds: torch.Tensor) -> None:
        if (old := self._cached.get(key)) is not None:
            self.nbytes -= old.nbytes
        self._cached[key] = embeds
        self.nbytes += embeds.nbytes


def is_small(model: EngineModel) -> bool:
    """Whether the encoder is better off with a thread of its own. Measured on nano: answers to many clips come 1.4
    times as fast."""
    return (
        model.device.type == "cpu"
        and torch.get_num_threads() > 1
        and int(model.config.audio_config.d_model) <= SMALL_WIDTH
        and tensor_parallel_group(model) is None
    )


def is_listened_to(model: EngineModel) -> bool:
    """Encoder or projector have hooks."""
    return listened_to(model.audio_tower, model.multi_modal_projector)


def encode_in_steps(
    model: EngineModel, clips: Sequence[np.ndarray], frames: Sequence[int]
) -> Generator[None, None, tuple[torch.Tensor, list[int]]]:
    """The model's `encode_audio` of log-mels [mel bins, F_i], with a pause before each layer."""
    inputs = stack_clips(clips, frames)
    weight = model.audio_tower.conv1.weight
    features = to_device(inputs["input_features"], weight.device)
    if not model.encoder_mask or is_listened_to(model):
        # Whole windows, for attention to padding or for hooks: in one go.
        yield
        return model.encode_audio(features, inputs["feature_attention_mask"])
    states = yield from model.audio_tower.encode_in_steps(features.to(weight), list(frames))
    return model.multi_modal_projector(states), [num_audio_tokens(n) for n in frames]
