"""Tokens to what the caller receives: text deltas, the reason for the end, usage, and one terminal delta an answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from collections.abc import Sequence as Strings
from dataclasses import dataclass, field

from ..errors import NumericsError
from ..text.detokenize import Detokenizer, StopBuffer
from ..text.tokenizer import Tokenizer
from ..types import Chunk, FinishReason, TokenLogprob, Usage
from .executor.forward_batch import ForwardOutput
from .metrics import Stats
from .prompt_outputs import PromptOutput
from .request import RequestHandle, Sequence
from .sampler import TokenChooser, logprob_of


class OutputProcessor:
    """The text of one answer while it is generated."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        eos_ids: frozenset[int],
        stop: Strings[str],
        token_texts: dict[int, str] | None = None,
    ) -> None:
        """`token_texts`: the text of single tokens, shared by all answers (see Detokenizer)."""
        self._detokenizer = Detokenizer(tokenizer, token_texts=token_texts)
        self._stop = StopBuffer(stop)
        self._eos_ids = eos_ids
        self.tokens = 0  # the one that ends the text included
        self.finish_reason: FinishReason | None = None

    def push(self, token: int) -> str:
        """Take a token; returns the text that became certain with it."""
        self.tokens += 1
        if token in self._eos_ids:
            return self.end("stop")
        new = self._stop.push(self._detokenizer.push(token))
        if self._stop.stopped:
            self.finish_reason = "stop"
        return new

    def end(self, reason: FinishReason) -> str:
        """Finish for `reason`, unless it is finished; returns the text that was held back until now."""
        if self.finish_reason is not None:
            return ""
        rest = self._stop.push(self._detokenizer.flush())
        self.finish_reason = "stop" if self._stop.stopped else reason
        return rest + self._stop.flush()


@dataclass(frozen=True)
class Taken:
    """What a sequence took of one pass."""

    text: str = ""  # that became certain
    logprobs: tuple[TokenLogprob, ...] = ()
    num_accepted: int = 0  # draft tokens that were right


NOTHING = Taken()


@dataclass(eq=False)
class SequenceState:
    """What the engine knows of a sequence beyond its place in the KV cache."""

    output: OutputProcessor
    sampler: TokenChooser | None  # None: greedy, so that a batch of such rows needs one argmax
    tokenizer: Tokenizer
    tokens: list[int] = field(default_factory=list)  # of the answer, where the next one depends on them
    last_token_time: float = 0.0
    prompt_output: PromptOutput | None = None  # what was taken of the prompt

    def take(self, sequence: Sequence, result: ForwardOutput, rows: range, drafts: list[int]) -> Taken:
        """Take the next token, and the ones behind it as long as `drafts` were right. `rows` of `result` are those of
        this sequence. Raises NumericsError for logits that are no numbers."""
        params, max_new_tokens = sequence.request.params, sequence.request.max_new_tokens
        text, num_accepted = "", 0
        logprobs: tuple[TokenLogprob, ...] = ()
        for num_accepted, row in enumerate(rows):
            token, finite = result.greedy[row]
            if not finite:
                raise NumericsError(
                    "The model's logits are not numbers (NaN or infinite); this request ends here. Check the weights, "
                    "or load the model in float32."
                )
            if self.sampler is not None:
                token = self.sampler.choose(self.tokens, result.logits[row], token)
                self.tokens.append(token)
            sequence.prefix_keys.append(token)
            if params.logprobs is not None:
                log_probs, asked = result.log_probs[row], params.logprob_token_ids
                logprobs += (logprob_of(token, log_probs, params.logprobs, self.tokenizer, asked=asked),)
            text += self.output.push(token)
            if self.output.finish_reason is not None or self.output.tokens >= max_new_tokens:
                break
            if num_accepted < len(drafts) and token != drafts[num_accepted]:
                break
        return Taken(text, logprobs, num_accepted)


class Responses:
    """Unfinished sequences with their state; delivers their deltas to their handles and counts latencies."""

    def __init__(self, tokenizer: Tokenizer, stats: Stats) -> None:
        self._tokenizer, self._stats = tokenizer, stats
        self._token_texts: dict[int, str] = {}  # of single tokens, shared by all answers
        self._states: dict[Sequence, SequenceState] = {}
        self._of_handle: dict[RequestHandle, list[Sequence]] = {}

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._states)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._states

    def new_state(self, sampler: TokenChooser | None, eos_ids: frozenset[int], stop: Strings[str]) -> SequenceState:
        """The state of an answer that ends at `eos_ids` and `stop`; `sampler` None: greedy."""
        return SequenceState(
            OutputProcessor(self._tokenizer, eos_ids, stop, self._token_texts), sampler, self._tokenizer
        )

    def add(self, handle: RequestHandle, states: dict[Sequence, SequenceState]) -> None:
        """A request's sequences, from now on unfinished."""
        self._of_handle[handle] = list(states)
        self._states |= states
        prompt = next(iter(states)).request.prompt
        handle.prompt_usage = Usage(len(prompt.ids), prompt.audio_tokens, 0)

    def state(self, sequence: Sequence) -> SequenceState:
        return self._states[sequence]

    def of_handle(self, handle: RequestHandle) -> list[Sequence]:
        """The unfinished sequences of a request."""
        return list(self._of_handle.get(handle, ()))

    def deliver(self, sequence: Sequence, taken: Taken) -> FinishReason | None:
        """Send the text of taken tokens, unless they end the answer: then return the reason, and `finish` is due."""
        state, request, now = self._states[sequence], sequence.request, time.monotonic()
        if state.last_token_time:
            self._stats.inter_token.add(now - state.last_token_time)
        else:
            self._stats.first_token.add(now - request.arrived)
        state.last_token_time = now
        if state.output.finish_reason is not None:
            return "stop"
        if state.output.tokens >= request.max_new_tokens:
            return request.length_reason
        if taken.text or taken.logprobs:
            tokens = state.output.tokens
            request.handle.put(Chunk(taken.text, index=sequence.index, logprobs=taken.logprobs, num_tokens=tokens))
        return None

    def is_last(self, sequence: Sequence) -> bool:
        """All other answers of its request are finished."""
        return len(self._of_handle[sequence.request.handle]) == 1

    def finish(
        self,
        sequence: Sequence,
        reason: FinishReason,
        taken: Taken = NOTHING,
        error: Exception | None = None,
    ) -> None:
        """Send the rest of the text and the one terminal delta. By then the sequence must be gone elsewhere. What goes
        wrong here is the terminal delta's error."""
        request, state = sequence.request, self._states.pop(sequence)
        output = state.output
        rest = taken.text + output.end(reason)
        finish_reason = output.finish_reason if error is None else "error"
        assert finish_reason is not None
        unfinished = self._of_handle[request.handle]
        unfinished.remove(sequence)
        if not unfinished:
            del self._of_handle[request.handle]
        usage, heard = usage_of(sequence, output), request.prompt.heard
        last = Chunk("", finish_reason, usage, heard, sequence.index, error=error)
        if state.prompt_output is not None and finish_reason in ("stop", "length", "context"):
            try:
                state.prompt_output.put_into(last)
            except Exception as failure:  # of memory, say: the states of all positions are joined here
                last.finish_reason = finish_reason = "error"
                last.error = failure
        self._stats.finish(finish_reason, usage, sum(clip.seconds for clip in heard), sequence.index)
        self._stats.end_to_end.add(time.monotonic() - request.arrived)
        if rest or taken.logprobs:
            tokens = output.tokens
            request.handle.put(Chunk(rest, index=sequence.index, logprobs=taken.logprobs, num_tokens=tokens))
        request.handle.put(last)


def usage_of(sequence: Sequence, output: OutputProcessor) -> Usage:
    """What an answer cost."""
    prompt = sequence.request.prompt
    return Usage(len(prompt.ids), prompt.audio_tokens, output.tokens, sequence.cached)
