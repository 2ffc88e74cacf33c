"""One question about a long clip, from its windows to the last delta of its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

from ...audio.limits import Limits
from ...audio.mel import SAMPLE_RATE
from ...engine.request import RequestHandle
from ...errors import AudioError
from ...types import Chunk, FinishReason, Heard, Message, Part, SamplingParams
from ..transcribe import LIMITS
from . import notes, wording
from .asker import Asker, EndedError, Reader, added
from .native import native_messages, with_tokens
from .parts import Listener, answers, part_params
from .policy import Policy
from .recordings import Conversation, text_part
from .transcript import blocks_of, heard_of, spoken_parts, spoken_text
from .transcript_store import Spoken, store_of

AT_ONCE = 4  # questions about long clips that are worked on; each holds at most 64 windows of 2 MB
_LOOK = 0.1  # s between two looks at whether a question that waits is cancelled
_BLOCK_TOKENS = 256  # of an answer about a block of a transcript
# Fields of SamplingParams that the answer about a single part follows as well as one made from notes.
_PLAIN = frozenset({
    "max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty",
    "presence_penalty", "logit_bias", "seed", "stop", "n",
})  # fmt: skip
_slots = threading.BoundedSemaphore(AT_ONCE)
_HeardBy = Callable[[int], dict[int, Heard]]  # of recordings, by the levels in which notes were combined; 0: not


@dataclass(frozen=True)
class Options:
    """How a question is worked on. `timeout`: seconds for each request to the model; `limits` of a recording."""

    timeout: float | None = None
    priority: int = 0
    limits: Limits = LIMITS


class Question:
    """Works on a question. Attribute: `handle`, where its chunks come out."""

    def __init__(
        self, model: Reader, conversation: Conversation, params: SamplingParams, policy: Policy, options: Options
    ) -> None:
        self._asker = Asker(model, options.timeout, options.priority)
        self._model, self._settings = model, model.transcription
        self._conversation, self._params, self._policy = conversation, params, policy
        self._limits = options.limits
        self._unfinished = set(range(params.n))
        self.handle = RequestHandle(params.n, lambda _: self._asker.cancel())

    def run(self) -> None:
        """Until the last chunk. What goes wrong is the `error` of the last chunks."""
        reason: FinishReason = "error"
        cause: Exception | None = None
        try:
            with self._slot():
                {"parts": self._by_parts, "native": self._natively, "transcript": self._by_text}[self._policy.kind]()
        except EndedError as error:
            reason = error.reason
        except Exception as error:
            cause = error
        finally:
            self._asker.cancel()  # what was asked and is not needed any more
            self._conversation.close()
        for index in sorted(self._unfinished):
            self._put(Chunk("", reason, self._asker.usage, index=index, error=cause))

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """One of the few; a question that is cancelled while it waits for one gives up its thread and its clips."""
        self._asker.check()
        while not _slots.acquire(timeout=_LOOK):
            self._asker.check()
        try:
            self._asker.check()
            yield
        finally:
            _slots.release()

    # -- the three ways

    def _by_parts(self) -> None:
        notes.budget_of(self._model, self._conversation, self._params)  # refused before anything is heard
        recording, found, count = self._conversation.recordings[0], list[Part](), 0
        listener = Listener(recording, self._settings, self._limits, plain=False)
        for part in answers(self._asker, self._conversation, listener, part_params(self._params)):
            self._tell(part)
            count += 1
            found += [part] if part.used else []

        def heard(levels: int) -> dict[int, Heard]:
            said = [*listener.notes, wording.heard_sentence(count, len(found), levels)]
            if listener.silent:
                said.append(f"{listener.silent} of the parts are digital silence, which is not asked about.")
            if listener.cut:
                said.append(f"{listener.cut} of the answers about parts were cut at their limit of tokens.")
            seconds = listener.samples / SAMPLE_RATE
            return {recording.number: Heard(seconds, listener.tokens, tuple(said), "parts", count)}

        self._combine(found, count, listener.seconds, heard)

    def _natively(self) -> None:
        messages, heard = native_messages(self._conversation, self._settings, self._limits, self._policy.windows)
        self._answer(messages, lambda clips: self._conversation.heard(with_tokens(heard, clips, self._conversation)))

    def _by_text(self) -> None:
        spoken, recordings = dict[int, Spoken](), self._conversation.recordings
        budget = notes.budget_of(self._model, self._conversation, self._params)
        for recording in recordings:
            for item in spoken_parts(self._asker, recording, store_of(self._model), self._limits):
                if isinstance(item, Spoken):
                    spoken[recording.number] = item
                else:
                    self._tell(item)
        if not self._settings.combine and self._is_plain() and any(talk.parts for talk in spoken.values()):
            heard = {number: heard_of(talk, wording.AS_IT_IS) for number, talk in spoken.items()}
            lines = "\n".join(wording.note_lines(talk.parts) for talk in spoken.values())
            self._say(lines.rstrip("\n"), self._conversation.heard(heard))
            return
        texts = {number: spoken_text(talk, talk.parts) for number, talk in spoken.items()}
        tokens = sum(map(self._model.count_tokens, texts.values()))
        if tokens <= budget:
            self._by_whole_text(texts, spoken)
        elif len(spoken) == 1:
            self._by_blocks(spoken[recordings[0].number], budget)
        else:
            raise AudioError(
                f"What is said in {' and '.join(recording.called for recording in recordings)} has {tokens} tokens, "
                f"and a prompt has room for {budget}; ask about each by itself.",
                clip=recordings[0].number,
            )

    def _by_whole_text(self, texts: dict[int, str], spoken: dict[int, Spoken]) -> None:
        heard = {number: heard_of(talk, wording.TRANSCRIBED) for number, talk in spoken.items()}
        if any(talk.parts for talk in spoken.values()):
            contents = {number: [text_part(text)] for number, text in texts.items()}
            self._answer(self._conversation.replaced(contents), lambda _: self._conversation.heard(heard))
        else:
            self._say_or_ask(wording.NOBODY, heard)

    def _by_blocks(self, spoken: Spoken, budget: int) -> None:
        """Ten-minute blocks of a transcript as parts."""
        number, found = self._conversation.recordings[0].number, list[Part]()
        params = part_params(self._params, min(_BLOCK_TOKENS, budget // 4))
        blocks = [group for block in blocks_of(spoken.parts) for group in notes.grouped(self._model, block, budget)]
        handles = []
        for block in blocks:
            then = wording.part_sentence(self._settings, block[0].start, block[-1].end)
            contents = {number: [text_part(spoken_text(spoken, block))]}
            handles.append(self._asker.ask(self._conversation.replaced(contents, then), params))
        for block, handle in zip(blocks, handles, strict=True):
            text = self._asker.answer(handle).text.strip()
            used = not wording.says_nothing(text, self._settings)
            part = Part(block[0].start, block[-1].end, text, used, level=1)
            self._tell(part)
            found += [part] if used else []

        def heard(levels: int) -> dict[int, Heard]:
            return {number: heard_of(spoken, wording.block_sentence(len(blocks), len(found), levels))}

        self._combine(found, len(blocks), spoken.seconds, heard)

    # -- the answer

    def _combine(self, found: list[Part], count: int, seconds: float, heard: _HeardBy) -> None:
        """One answer from the parts of `count` that hold it."""
        conversation = self._conversation
        if not found:
            self._say_or_ask(wording.NOWHERE.format(count=count), heard(0))
        elif len(found) == 1 and self._is_plain():
            self._say(found[0].text, conversation.heard(heard(0)))
        elif not self._settings.combine and self._is_plain():
            self._say(wording.note_lines(found).rstrip("\n"), conversation.heard(heard(0)))
        else:
            last, levels = found, 1
            for part in notes.reduced(self._asker, conversation, found, self._params, seconds):
                self._tell(part)
                if part.level != last[-1].level:
                    last, levels = [], levels + 1
                last.append(part)
            messages = notes.messages_with(conversation, last, seconds)
            self._answer(messages, lambda _: conversation.heard(heard(levels)))

    def _answer(self, messages: Sequence[Message], heard: Callable[[tuple[Heard, ...]], tuple[Heard, ...]]) -> None:
        """Ask, and hand on the deltas."""
        before = self._asker.usage
        for chunk in self._asker.ask(messages, self._params):
            if chunk.error is not None:
                raise chunk.error
            if chunk.finish_reason in ("cancelled", "deadline"):
                raise EndedError(chunk.finish_reason)
            if chunk.usage is not None:  # the last one; answers share all but their own tokens
                spent = replace(before, completion_tokens=0) if chunk.index else before
                chunk = replace(chunk, usage=added(spent, chunk.usage), heard=heard(chunk.heard))
            self._put(chunk)

    def _say_or_ask(self, text: str, heard: dict[int, Heard]) -> None:
        """That there is no answer; where a form is wanted, the model puts it into that."""
        whole = self._conversation.heard(heard)
        if self._is_plain():
            self._say(text, whole)
            return
        contents = {recording.number: [text_part(f"{text}\n")] for recording in self._conversation.recordings}
        self._answer(self._conversation.replaced(contents), lambda _: whole)

    def _say(self, text: str, heard: tuple[Heard, ...]) -> None:
        """An answer that the model is not asked for."""
        for index in range(self._params.n):
            self._put(Chunk(text, index=index))
            usage = replace(self._asker.usage, completion_tokens=0) if index else self._asker.usage
            self._put(Chunk("", "stop", usage, heard, index))

    def _tell(self, part: Part) -> None:
        self._asker.check()
        self._put(Chunk("", part=part))

    def _put(self, chunk: Chunk) -> None:
        if chunk.finish_reason is not None:
            self._unfinished.discard(chunk.index)
        self.handle.put(chunk)

    def _is_plain(self) -> bool:
        """Whether the caller asks for nothing that only an answer made from notes has: log-probs, a form."""
        default = SamplingParams()
        names = {field.name for field in fields(SamplingParams)} - _PLAIN
        return all(getattr(self._params, name) == getattr(default, name) for name in names)
