"""Embeddings of clips: encoded once for each content, in slices between two steps of the engine.

    needed clips  --jobs, shortest first-->  encoder, a few layers at a time  -->  embeddings [N, H], cached by key

The encoder takes longer for a clip of 30 s than other requests should wait between two tokens. So each slice runs only
some of its layers, and a shorter clip that arrives meanwhile goes first.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Generator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..audio.mel import num_audio_tokens
from ..inputs.collate import stack_clips, to_device
from ..model.encoder import listened_to
from .executor.adapter_rows import of_encoder
from .metrics import Stats
from .model_interface import EngineModel
from .request import Request

if TYPE_CHECKING:
    from .adapters import LoadedAdapter

JOB_FRAMES = 3000  # most mel frames that are encoded together, unless one clip alone has more
OLDEST_EVERY = 4  # every fourth slice goes to the oldest job, the others to the shortest


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
    steps: Generator[None, None, tuple[torch.Tensor, list[int]]]


class EncoderCache:
    """Embeddings of clips by `Request.clip_keys`. Beyond `budget` bytes the least recently used clip is evicted.

    Clips of unfinished requests stay: `acquire` counts a request's need, `release` ends it. Attribute `nbytes`: of all
    cached embeddings.
    """

    def __init__(self, model: EngineModel, budget: int, stats: Stats, *, adapts: bool = True) -> None:
        """`adapts`: the requests' adapters are `model`'s; else it hears without them."""
        self._model, self.budget, self._stats, self._adapts = model, budget, stats, adapts
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
        self._jobs = [job for job in self._jobs if any(key in self._users for key in job.keys)]
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
        for container in (self._cached, self._jobs, self._queue, self._failed):
            container.clear()
        self.nbytes = 0

    def encode(self, seconds: float) -> None:
        """Encode for about `seconds`: at least one layer, and at most one layer longer."""
        until = time.monotonic() + seconds
        self._start_jobs()
        while self._jobs:
            self._slices += 1
            oldest = self._slices % OLDEST_EVERY == 0
            job = self._jobs[0] if oldest else min(self._jobs, key=lambda candidate: candidate.frames)
            while self._run_layer(job):
                if time.monotonic() >= until:
                    return
            if time.monotonic() >= until:
                return

    def _run_layer(self, job: _Job) -> bool:
        """One layer of a job; False once the job is finished."""
        try:
            adapter = job.clips[0].adapter
            with nullcontext() if adapter is None else of_encoder(self._model, adapter):
                next(job.steps)
            return True
        except StopIteration as finished:
            embeds, tokens = finished.value
            for key, part in zip(job.keys, embeds.split(tokens), strict=True):
                self._insert(key, part.clone())  # a copy: a view would keep the whole job's tensor alive
            self._stats.clips_encoded += len(job.keys)
            self._evict()
        except Exception as error:  # of a clip, or of the machine: reported to the requests that wait for it
            if len(job.keys) > 1:  # each clip alone shows which of them it is
                clips = zip(job.keys, job.clips, strict=True)
                self._jobs += [self._make_job([key], [clip]) for key, clip in clips]
            else:
                self._failed[job.keys[0]] = error
        self._jobs.remove(job)
        return False

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


def encode_in_steps(
    model: EngineModel, clips: Sequence[np.ndarray], frames: Sequence[int]
) -> Generator[None, None, tuple[torch.Tensor, list[int]]]:
    """The model's `encode_audio` of log-mels [mel bins, F_i], with a pause before each layer."""
    inputs = stack_clips(clips, frames)
    weight = model.audio_tower.conv1.weight
    features = to_device(inputs["input_features"], weight.device)
    if not model.encoder_mask or listened_to(model.audio_tower, model.multi_modal_projector):
        # Whole windows, for attention to padding or for hooks: in one go.
        yield
        return model.encode_audio(features, inputs["feature_attention_mask"])
    states = yield from model.audio_tower.encode_in_steps(features.to(weight), list(frames))
    return model.multi_modal_projector(states), [num_audio_tokens(n) for n in frames]
