"""A question put to each window of a recording alone, many at a time; answers in order of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from ...audio.io import SoundStream
from ...audio.limits import Limits
from ...audio.mel import SAMPLE_RATE
from ...engine.request import RequestHandle
from ...errors import AudioError
from ...types import Message, Part, SamplingParams
from .. import guards, vad
from ..settings import TranscriptionSettings
from ..transcribe import MAX_PENDING, part_of
from ..windows import Window, Windower
from . import wording
from .asker import Asker
from .recordings import Conversation, Recording, clip_part

MAX_TOKENS = 96  # of an answer about a part


class Listener:
    """The windows of a recording, which is decoded once, in bounded memory; every sample is in one of them, but for
    less than an audio token (20 ms) at the end, or 0.1 s over the last window.

    Attributes, complete after the last window: `notes` on what of the source was lost, `samples` in windows, `tokens`
    of sound that they make, `silent` windows that are not asked about, `cut` answers that were longer than they may be.
    """

    def __init__(self, recording: Recording, settings: TranscriptionSettings, limits: Limits, *, plain: bool) -> None:
        """`plain`: cut at pauses only; else runs of speech have windows of their own where the checkpoint hears one at
        a time."""
        self.notes: list[str] = []
        self.samples = self.tokens = self.silent = self.cut = 0
        self._recording, self._limits = recording, limits
        by_runs = not plain and not settings.merge
        self._windower = Windower(settings, vad.speech_detector(), everything=True, by_runs=by_runs)

    @property
    def seconds(self) -> float:
        """Of the recording, so far."""
        return self._windower.total / SAMPLE_RATE

    def windows(self) -> Iterator[Window]:
        """Raises AudioError, with the clip's number, where the recording cannot be read on."""
        recording = self._recording
        stream = SoundStream(recording.source, limits=self._limits, name=recording.name, fill_gaps=True)
        try:
            with closing(part_of(stream, 0, None)) as pieces:
                for (piece,) in pieces:
                    yield from map(self._counted, self._windower.push(piece))
        except AudioError as error:
            error.clip = self._recording.number
            raise
        yield from map(self._counted, self._windower.finish())
        self.notes += stream.notes

    def _counted(self, window: Window) -> Window:
        self.samples += len(window.samples)
        return window


@dataclass(frozen=True, eq=False)
class _Asked:
    window: Window
    handle: RequestHandle | None  # None: digital silence


def answers(asker: Asker, conversation: Conversation, listener: Listener, params: SamplingParams) -> Iterator[Part]:
    """The answer of each window. A window is read when there is room for its request, so that memory does not grow
    with the recording's length."""
    settings, number = asker.model.transcription, conversation.recordings[0].number
    windows, waiting, exhausted = listener.windows(), deque[_Asked](), False
    while True:
        while not exhausted and len(waiting) < MAX_PENDING and not (waiting and _ready(waiting[0])):
            asker.check()
            window = next(windows, None)
            exhausted = window is None
            if window is not None:
                waiting.append(_Asked(window, _ask(asker, conversation, number, window, params)))
        if not waiting:
            return
        item = waiting.popleft()
        start, end = item.window.start / SAMPLE_RATE, item.window.end / SAMPLE_RATE
        if item.handle is None:
            listener.silent += 1
            yield Part(start, end, "", used=False)
            continue
        answer = asker.answer(item.handle)
        listener.tokens += sum(heard.tokens for heard in answer.heard) - _short_tokens(conversation)
        listener.cut += answer.finish_reason in ("length", "context")
        text = answer.text.strip()
        yield Part(start, end, text, used=not wording.says_nothing(text, settings))


def part_params(params: SamplingParams, most: int = MAX_TOKENS) -> SamplingParams:
    """How an answer about a part, or about some of the notes, is drawn: greedily, and in the caller's form only where
    the answer may be the last one."""
    limit = most if params.max_tokens is None else min(most, params.max_tokens)
    plain = {name: getattr(params, name) for name in ("repetition_penalty", "stop", "logit_bias")}
    return SamplingParams(max_tokens=limit, temperature=0.0, **plain)


def _ask(
    asker: Asker, conversation: Conversation, number: int, window: Window, params: SamplingParams
) -> RequestHandle | None:
    if guards.silence(float(np.abs(window.samples).max(initial=0.0))):
        return None
    return asker.ask(messages_about(conversation, number, window, asker.model.transcription), params)


def messages_about(
    conversation: Conversation, number: int, window: Window, settings: TranscriptionSettings
) -> list[Message]:
    """The conversation with a window in the place of recording `number`."""
    then = wording.part_sentence(settings, window.start / SAMPLE_RATE, window.end / SAMPLE_RATE)
    return conversation.replaced({number: [clip_part((window.samples, SAMPLE_RATE))]}, then)


def _ready(item: _Asked) -> bool:
    return item.handle is None or item.handle.done


def _short_tokens(conversation: Conversation) -> int:
    return sum(clip.heard.tokens for clip in conversation.clips.values())
