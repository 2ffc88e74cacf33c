"""The sounds of waiting and running requests: encoded together, in slices, once for each content.

    wanted clips  --jobs, shortest first-->  encoder, a few layers at a time  -->  embeddings [N, H], kept by digest

A clip of 30 s takes the encoder longer than anybody should wait between two tokens. So its layers are run a slice at a
time, and a shorter clip that arrives meanwhile goes first.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..checkpoint.config import num_audio_tokens
from ..inputs.collate import stack_clips, to_device
from .metrics import Stats
from .request import Request

JOB_FRAMES = 3000  # mel frames that are encoded together at most, unless one clip alone has more
OLDEST_EVERY = 4  # slices; the others go to the shortest job


@dataclass(eq=False)
class _Job:
    """Clips in the encoder, laid end to end."""

    digests: list[int]
    clips: list[tuple[np.ndarray, int]]  # and their frames
    frames: int
    steps: Generator[None, None, tuple[torch.Tensor, list[int]]]


class Sounds:
    """Embeddings of clips by digest, least recently used going first where `budget` bytes are full.

    What a request under way needs stays: `want` holds it, `drop` lets it go. Attribute `nbytes`: of all that is held.
    """

    def __init__(self, model: Any, budget: int, stats: Stats) -> None:
        self._model, self.budget, self._stats = model, budget, stats
        self.nbytes = 0
        self._held: OrderedDict[int, torch.Tensor] = OrderedDict()
        self._wanted: dict[int, int] = {}  # digest -> requests that need it
        self._failed: dict[int, Exception] = {}
        self._queue: dict[int, tuple[np.ndarray, int]] = {}  # digest -> clip and its frames, in order of arrival
        self._jobs: list[_Job] = []
        self._slices = 0

    @property
    def busy(self) -> bool:
        """There is something to encode."""
        return bool(self._queue or self._jobs)

    def want(self, request: Request) -> None:
        """A request needs its clips, now or later. Each `want` has its `drop`."""
        for one in request.prompt.digests:
            self._wanted[one] = self._wanted.get(one, 0) + 1
            if one in self._held:
                self._held.move_to_end(one)
                self._stats.clips_cached += 1

    def drop(self, request: Request) -> None:
        """A request is finished."""
        for one in request.prompt.digests:
            self._wanted[one] -= 1
            if not self._wanted[one]:
                del self._wanted[one]
                self._queue.pop(one, None)  # nobody waits for it any more
                self._failed.pop(one, None)
        self._make_room()

    def held(self, request: Request) -> bool:
        """All of its clips are encoded."""
        return all(one in self._held for one in request.prompt.digests)

    def ready(self, request: Request) -> bool:
        """`held`; what is missing is put in line. Raises what made the encoder fail on one of its clips."""
        prompt, underway = request.prompt, {one for job in self._jobs for one in job.digests}
        for place, one in enumerate(prompt.digests):
            if one in self._failed:
                raise self._failed[one]
            if one not in self._held and one not in underway:
                self._queue.setdefault(one, (prompt.clips[place], prompt.frames[place]))
        return self.held(request)

    def of(self, request: Request) -> torch.Tensor:
        """[sum of N, H]: the embeddings of its clips, in order."""
        return torch.cat([self._held[one] for one in request.prompt.digests])

    def forget(self) -> None:
        """Drop everything that was encoded, wholly or not, as the weights have changed; nobody waits for it."""
        for half_done in (self._held, self._jobs, self._queue, self._failed):
            half_done.clear()
        self.nbytes = 0

    def work(self, seconds: float) -> None:
        """Encode for about `seconds`: one layer at least, and never more than a layer beyond."""
        until = time.monotonic() + seconds
        self._start_jobs()
        while self._jobs:
            self._slices += 1
            oldest = self._slices % OLDEST_EVERY == 0
            job = self._jobs[0] if oldest else min(self._jobs, key=lambda one: one.frames)
            while self._step(job):
                if time.monotonic() >= until:
                    return
            if time.monotonic() >= until:
                return

    def _step(self, job: _Job) -> bool:
        """One layer of a job; False once it is done."""
        try:
            next(job.steps)
            return True
        except StopIteration as done:
            embeds, tokens = done.value
            for one, part in zip(job.digests, embeds.split(tokens), strict=True):
                self._hold(one, part.clone())  # on its own, or it would hold all of them
            self._stats.clips_encoded += len(job.digests)
            self._make_room()
        except Exception as error:  # a fault of a clip, or of the machine: those who wait for it are told
            if len(job.digests) > 1:  # which of them it is shows when each is tried alone
                self._jobs += [self._job([one], [clip]) for one, clip in zip(job.digests, job.clips, strict=True)]
            else:
                self._failed[job.digests[0]] = error
        self._jobs.remove(job)
        return False

    def _job(self, digests: list[int], clips: list[tuple[np.ndarray, int]]) -> _Job:
        mels, frames = zip(*clips, strict=True)
        return _Job(digests, clips, sum(frames), encode_in_steps(self._model, mels, frames))

    def _start_jobs(self) -> None:
        """Clips of like length together, so that a short one does not wait for a long one."""
        while self._queue:
            by_length = sorted(self._queue, key=lambda one: self._queue[one][1])
            shortest, frames = self._queue[by_length[0]][1], 0
            chosen: list[int] = []
            for one in by_length:
                length = self._queue[one][1]
                if chosen and (frames + length > JOB_FRAMES or length > 2 * shortest + 100):
                    break
                chosen.append(one)
                frames += length
            self._jobs.append(self._job(chosen, [self._queue.pop(one) for one in chosen]))

    def _make_room(self) -> None:
        for one in list(self._held):
            if self.nbytes <= self.budget:
                return
            if one not in self._wanted:
                self.nbytes -= self._held.pop(one).nbytes

    def _hold(self, digest: int, embeds: torch.Tensor) -> None:
        if (old := self._held.get(digest)) is not None:
            self.nbytes -= old.nbytes
        self._held[digest] = embeds
        self.nbytes += embeds.nbytes


def encode_in_steps(
    model: Any, clips: Sequence[np.ndarray], frames: Sequence[int]
) -> Generator[None, None, tuple[torch.Tensor, list[int]]]:
    """The model's `encode_audio` of log-mels [mel bins, F_i], with a pause before each layer."""
    inputs = stack_clips(clips, frames)
    features = to_device(inputs["input_features"], model.device)
    if not model.encoder_mask:  # whole windows, padding heard: one piece
        yield
        return model.encode_audio(features, inputs["feature_attention_mask"])  # type: ignore[no-any-return]
    tower = model.audio_tower
    made = yield from tower.encode_in_steps(features.to(tower.conv1.weight), list(frames))
    return model.multi_modal_projector(made), [num_audio_tokens(n) for n in frames]
