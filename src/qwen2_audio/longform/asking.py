"""One window to segments: asked, its answer checked by the guards, and asked again where they say so."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ..audio.mel import SAMPLE_RATE
from ..engine.request import RequestHandle, when_free
from ..errors import ConfigError
from ..types import Completion, Ending, Message, SamplingParams, TokenLogprob
from . import guards, wording
from .settings import TranscriptionSettings
from .text_language import language_of_text
from .transcript import Segment, Word, split_words
from .vad import FRAME
from .windows import Window

WARMER = (0.2, 0.4)  # temperatures of later attempts, with a fixed seed
_TOKENS, _TOKENS_PER_SECOND = 24, 12  # an answer may have; speech has 3 to 6 a second
_SHORTEST_HALVED = 2.0  # s
_SPEECH = 0.5


class Model(Protocol):
    """What answers: `api.service.Service`, or a server's backend."""

    @property
    def is_base(self) -> bool:
        """Whether the checkpoint continues a prompt, and was not tuned to answer turns of a chat."""
        ...

    def submit(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        timeout: float | None = None,
        priority: int = 0,
        raw: bool = False,
        ending: Ending = "answer",
    ) -> RequestHandle:
        """Queues a conversation and returns at once; a clip is what `audio.io.load` takes.

        `timeout`: seconds that it has from now on; `raw`: the one message is a clip and a prompt of a base checkpoint,
        which no chat template frames; `ending`: how the prompt ends.

        Raises PromptError, ConfigError or ContextLengthError for faults that show before the clips are decoded,
        BusyError if the queue is full, ShutdownError if the model takes no more. Later errors come in the last chunk.
        """
        ...


@dataclass(frozen=True)
class Task:
    """What is wanted of each window. Raises ConfigError for an unknown language."""

    language: str | None = None  # that is spoken: ISO 639 code or English name; None: not known
    to: str | None = None  # the language of a translation; None: a transcript
    prompt: str | None = None  # context: names, a topic
    temperature: float = 0.0
    recover: bool = True  # ask again where an answer loops, is cut off, repeats the question or is too long

    def __post_init__(self) -> None:
        for name in ("language", "to"):
            object.__setattr__(self, name, wording.language_of(getattr(self, name), name))
        if not 0 <= self.temperature <= 2:
            raise ConfigError(f"temperature is {self.temperature}; expected a number between 0 and 2.")

    def question(self, model: Model, settings: TranscriptionSettings) -> str:
        """The text that `model` is asked. Raises ConfigError for a prompt that a base checkpoint does not take."""
        if model.is_base:
            return wording.base_instruction(to=self.to, language=self.language, prompt=self.prompt)
        own = settings.transcribe if self.to is None else settings.translate
        if own is None:
            return wording.instruction(to=self.to, language=self.language, prompt=self.prompt)
        return wording.with_hints(own, language=self.language, prompt=self.prompt)


class WindowAsker:
    """Asks a model about windows. Its answers do not depend on each other, nor on what was heard before."""

    def __init__(self, model: Model, task: Task, settings: TranscriptionSettings, timeout: float | None = None) -> None:
        """`timeout`: seconds that the model has for a window."""
        self._model, self._task, self._settings, self._timeout = model, task, settings, timeout
        self._question = task.question(model, settings)

    def submit(self, window: Window, temperature: float | None = None) -> RequestHandle | None:
        """Ask, and return at once; None for digital silence, which is not asked about.

        Raises BusyError where other callers filled the queue for 60 s, ShutdownError where the engine shuts down.
        """
        if guards.silence(float(np.abs(window.samples).max(initial=0.0))):
            return None
        clip = {"type": "audio", "audio": (window.samples, SAMPLE_RATE)}
        messages = [{"role": "user", "content": [clip, {"type": "text", "text": self._question}]}]
        params = SamplingParams(
            max_tokens=_TOKENS + math.ceil(_TOKENS_PER_SECOND * window.seconds),
            temperature=self._task.temperature if temperature is None else temperature,
            seed=0,
            repetition_penalty=1.0,  # a checkpoint's own would punish what is said twice
            logprobs=0,
        )
        submit, raw = self._model.submit, self._model.is_base
        return when_free(lambda: submit(messages, params, timeout=self._timeout, raw=raw))

    def segments(self, window: Window, handle: RequestHandle | None) -> list[Segment]:
        """Wait for a window's answer: a segment, or two where it was asked again in halves. Raises the answer's
        error."""
        first = self._segment(window, handle, self._task.temperature)
        if not self._task.recover or not _hard(first):
            return [first]
        return [_with_raw(segment, first) for segment in self._recovered(window, first)]

    def _recovered(self, window: Window, first: Segment) -> list[Segment]:
        """A window whose first answer is flagged, asked again: in halves, then warmer; else that answer."""
        if window.seconds < _SHORTEST_HALVED:
            return [self._warmer(window, first)]
        halves = [(half, self.submit(half)) for half in window.halves()]
        parts = []
        for half, asked in halves:
            part = self._segment(half, asked, self._task.temperature)
            parts.append(self._warmer(half, part) if _hard(part) else part)
        candidates = [[first], parts]
        return min(candidates, key=lambda segments: (_flagged_seconds(segments), -_mean_logprob(segments)))

    def _warmer(self, window: Window, first: Segment) -> Segment:
        """The first attempt without a hard flag, else the most confident one with its flags."""
        attempts = [first]
        for temperature in WARMER:
            if temperature > self._task.temperature:
                attempt = self._segment(window, self.submit(window, temperature), temperature)
                if not _hard(attempt):
                    return attempt
                attempts.append(attempt)
        return max(attempts, key=lambda segment: _mean_logprob([segment]))

    def _segment(self, window: Window, handle: RequestHandle | None, temperature: float) -> Segment:
        start, end = _spoken(window)
        no_speech = round(1 - float(window.speech.max()), 6) if len(window.speech) else None
        segment = Segment(start / SAMPLE_RATE, end / SAMPLE_RATE, "", channel=window.channel, no_speech_prob=no_speech)
        if handle is None:
            return replace(segment, flags=("silence",))
        (answer,) = handle.completions()
        if answer.finish_reason in ("cancelled", "deadline"):
            raise TimeoutError(answer.finish_reason)
        text, language = wording.transcript_of(answer.text)
        refused = guards.refusal(text, self._settings.no_speech)
        text = "" if refused else text
        logprobs = [max(token.logprob, -100.0) for token in answer.logprobs]
        mean = sum(logprobs) / len(logprobs) if logprobs else None
        confidence = None if mean is None else math.exp(mean)
        expected = wording.code_of(self._task.to or self._task.language)
        flags = guards.flags_of(
            text,
            seconds=window.seconds,
            tokens=answer.usage.completion_tokens,
            finish_reason=answer.finish_reason,
            asked=tuple(filter(None, (self._question, self._task.prompt))),
            refused=refused,
            expected=expected,
        )
        if guards.low_confidence(confidence, self._settings.min_confidence):
            flags = (*flags, "low_confidence")
        return replace(
            segment,
            text=text,
            language=expected or language or language_of_text(text),
            confidence=confidence,
            flags=flags,
            raw=answer.text if answer.text.strip() != text else None,
            words=words_of(text, answer),
            tokens=tuple(token.token for token in answer.logprobs),
            temperature=temperature,
            avg_logprob=mean,
        )


def words_of(text: str, answer: Completion) -> tuple[Word, ...]:
    """The words of a text without times, each with the mean probability of its tokens; none without log-probs."""
    tokens = list[tuple[int, int, TokenLogprob]]()  # first byte, end, token
    position = 0
    for token in answer.logprobs:
        tokens.append((position, position + len(token.data), token))
        position += len(token.data)
    said = b"".join(token.data for token in answer.logprobs)
    origin = said.find(text.encode())
    if origin < 0 or not text or not tokens:
        return ()
    words, first = [], origin
    for word in split_words(text):
        end = first + len(word.encode())
        inside = [max(token.logprob, -100.0) for start, stop, token in tokens if start < end and stop > first]
        begun = tuple(token.token for start, stop, token in tokens if first <= start < end and stop > start)
        confidence = math.exp(sum(inside) / len(inside)) if inside else None
        words.append(Word(sys.intern(word), None, None, confidence, tokens=begun))  # hours repeat their words
        first = end
    return tuple(words)


def _spoken(window: Window) -> tuple[int, int]:
    """The samples, counted in the sound, from the first to the last frame that is likely speech; without such, all."""
    likely = np.flatnonzero(window.speech >= _SPEECH)
    if not len(likely):
        return window.start, window.end
    origin = window.start // FRAME
    first, last = (origin + int(likely[0])) * FRAME, (origin + int(likely[-1]) + 1) * FRAME
    return max(window.start, first), min(window.end, last)


def _with_raw(segment: Segment, first: Segment) -> Segment:
    """A segment in place of a window's first answer, which it keeps as `raw`, so that no text is lost silently."""
    if segment.raw is not None or segment.text == first.text:
        return segment
    return replace(segment, raw=first.raw or first.text)


def _hard(segment: Segment) -> bool:
    return not guards.HARD.isdisjoint(segment.flags)


def _flagged_seconds(segments: Sequence[Segment]) -> float:
    return sum(segment.end - segment.start for segment in segments if _hard(segment))


def _mean_logprob(segments: Sequence[Segment]) -> float:
    known = [segment.avg_logprob for segment in segments if segment.avg_logprob is not None]
    return sum(known) / len(known) if known else -math.inf
