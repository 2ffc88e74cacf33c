"""The engine: requests in, pieces of answers out, one step at a time.

    submit -> waiting -> prefill in chunks -> decode, a token a step -> one terminal piece, whatever happened

A step: who left is let go, sounds are encoded for a while, the scheduler says what is computed, the runner computes it,
each sequence that is at its end gets its next token. Not for several threads: `thread.EngineThread` is.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from ..checkpoint.memory import available_bytes
from ..errors import NumericsError
from ..generate.options import Options, resolve
from ..inputs.prompt import Prompt
from ..model.paged import BLOCK
from ..native.paged import storage_for
from ..text.chat_template import IM_END
from ..text.tokenizer import Tokenizer
from ..types import Chunk, FinishReason, SamplingParams, TokenLogprob
from .block_manager import BlockPool
from .encoder_cache import Sounds
from .executor.cuda_graphs import Decoded
from .executor.model_runner import Runner
from .executor.tp_worker import Lead
from .metrics import Stats
from .output_processor import Answer, usage_of
from .request import Request, Sequence, Ticket
from .sampler import Sampler, logprob_of
from .scheduler import Limits, Plan, Scheduler
from .settings import EngineSettings as EngineSettings
from .settings import Limit, generate_options, limit, stop_strings, warn_of_beams
from .speculative.decoder import Guesses
from .speculative.draft_model import Draft, check, hears_alike
from .step_size import Pace

SLICE = 0.05  # seconds of encoder work a step: so long may others wait
STEP_SECONDS = 0.15  # what a step with prefill in it should take while others wait for their tokens
MOST_TOKENS = 1 << 16  # positions of the cache, where memory would hold more
SHARE = 0.3  # of the memory that is free


@dataclass(eq=False)
class _Underway:
    """What the engine knows of a sequence beyond its place in the cache."""

    sampler: Sampler
    answer: Answer
    tokens: list[int]  # of the answer, where the next one depends on them
    last: float = 0.0  # time of the last token


class Engine:
    """Answers many conversations at once. Attributes: `stats`, `settings`."""

    def __init__(
        self, model: Any, tokenizer: Tokenizer, settings: EngineSettings | None = None, draft: Any = None
    ) -> None:
        """`model`: a Qwen2AudioForConditionalGeneration in eval mode; `draft`: another one, which guesses what it says.

        Raises ConfigError: a draft whose ids mean something else.
        """
        self.settings = settings or EngineSettings()
        if draft is not None:
            check(model.config, draft.config)
            draft = draft if self.settings.draft_tokens else None
        self.stats = Stats()
        self._model, self._tokenizer = model, tokenizer
        warn_of_beams(model.generation_config)
        ends = [token for token in tokenizer.all_special_tokens if token in (IM_END, tokenizer.eos_token)]
        self._turn_ends = frozenset(tokenizer.convert_tokens_to_ids(ends))
        self._context = model.config.text_config.max_position_embeddings
        lead = Lead.of(model)
        block_bytes = storage_for(model.language_model, 1).nbytes * (lead.in_one_memory if lead else 1)
        if draft is not None:
            block_bytes += storage_for(draft.language_model, 1).nbytes
        self._storage = storage_for(model.language_model, self._blocks(block_bytes))
        if lead is not None:
            lead.begin(self._storage.blocks)
        self._sounds = Sounds(model, self.settings.sounds_bytes if self.settings.reuse else 0, self.stats)
        self._runner = Runner(model, self._storage, self._sounds, lead)
        self._pace = Pace(STEP_SECONDS, self.settings.step_tokens)
        self._guesses = Guesses(self.settings, self.stats, self._draft_of(draft))
        self._underway: dict[Sequence, _Underway] = {}
        self._of_ticket: dict[Ticket, list[Sequence]] = {}
        self._broken: list[tuple[Sequence, Exception]] = []
        self._pieces: dict[int, str] = {}  # of text, by id
        self._requests = 0
        self._model_seconds = 0.0  # counted by the last step
        self._state = _state_of(model)
        self._new_pool()

    @property
    def idle(self) -> bool:
        return not self._underway

    def submit(
        self,
        prompt: Prompt,
        params: SamplingParams,
        ticket: Ticket,
        *,
        deadline: float | None = None,
        priority: int = 0,
    ) -> None:
        """Take in a request; its pieces go to `ticket`. `deadline` is a time.monotonic().

        Raises ContextLengthError, CapacityError (it can never fit, or too many wait), ConfigError: then the ticket has
        got nothing.
        """
        if self.idle:
            self._notice_new_weights()
        options, most = self._accepted(prompt, params)
        if options.config.max_time is not None:
            ends = time.monotonic() + options.config.max_time
            deadline = ends if deadline is None else min(ends, deadline)
        keys = prompt.prefix_keys(self._model.config.audio_token_index)
        request = Request(self._requests, prompt, keys, params, ticket, most.tokens, most.reason, deadline, priority)
        self._scheduler.check(request)
        self._requests += 1
        sequences = [Sequence(request, index, list(keys)) for index in range(params.n)]
        vocabulary, eos = self._model.config.text_config.vocab_size, frozenset(options.config.eos_ids)
        stops = stop_strings(params, self._model.generation_config)
        made = [
            _Underway(
                Sampler(one, options, vocabulary, self._model.device),
                Answer(self._tokenizer, eos, stops, self._pieces),
                [],
            )
            for one in sequences
        ]
        self._sounds.want(request)
        self._of_ticket[ticket] = sequences
        self._underway |= dict(zip(sequences, made, strict=True))
        for one in sequences:
            self._scheduler.add(one)
        self.stats.submitted += 1

    def check(self, prompt: Prompt, params: SamplingParams) -> None:
        """Raises what `submit` would, but for too many that wait. From any thread."""
        self._accepted(prompt, params)

    def cancel(self, ticket: Ticket) -> None:
        """End what is left of a request. Unknown and finished ones are none."""
        for one in list(self._of_ticket.get(ticket, ())):
            self._finish(one, "cancelled")
        self._gauge()  # there may be no step after this

    def fail_all(self, error: Exception) -> None:
        """End everything with `error`."""
        for one in list(self._underway):
            self._fail(one, error)
        self._gauge()

    @torch.no_grad()
    def step(self) -> None:
        """Do one step's work."""
        started = time.monotonic()
        self._end_late_ones(started)
        if self._sounds.busy:
            self._sounds.work(self._slice())
            self.stats.seconds_encoder += time.monotonic() - started
        else:
            self._guesses.hear(SLICE)
        self._guesses.make(self._underway)
        plan = self._planned()
        if plan.decodes or plan.prefills:
            self._run(plan)
            self._guesses.measure(plan)
        self.stats.steps += 1
        self._measure(started)

    # -- one step

    def _slice(self) -> float:
        """Seconds of encoder work in this step. Where prompts are read and nobody waits between two tokens, as many as
        of reading: a short clip would else wait for a piece of somebody's long prompt again and again."""
        reading = self._scheduler.running and not any(one.decoding for one in self._underway)
        return STEP_SECONDS if reading else SLICE

    def _planned(self) -> Plan:
        self._scheduler.limits = self._limits()
        plan = self._scheduler.plan()
        while self._broken:
            self._fail(*self._broken.pop())
        self.stats.preemptions += len(plan.preempted)
        if spoiled := self._pool.take_spoiled():
            self._runner.clear(spoiled)  # zeros: 0 * NaN behind a sequence's end would be NaN
        self._runner.copy(plan.copies)
        for copy in plan.copies:
            self._pool.copied(copy)
        deaf = [part for part in plan.prefills if not self._runner.heard(part)]
        for part in deaf:  # its beginning was in the cache a moment ago, and has been given away since
            self._scheduler.send_back(part.sequence)
        if not deaf:
            return plan
        return Plan(plan.decodes, [part for part in plan.prefills if part not in deaf], plan.copies, plan.preempted)

    def _run(self, plan: Plan) -> None:
        parts = [*plan.decodes, *plan.prefills]
        started = time.monotonic()
        try:
            found, wanted = self._runner.run(parts)
        except Exception as error:  # memory, say: it belongs to those that ran, and the engine lives on
            for part in parts:
                self._fail(part.sequence, error)
            return
        self._count(plan, time.monotonic() - started)
        self._scheduler.ran(plan)
        end = 0
        for part, count in zip(parts, wanted, strict=True):
            rows, end = range(end, end + count), end + count
            if count and part.sequence in self._underway:
                try:
                    self._advance(part.sequence, found, rows)
                except Exception as error:  # one request's trouble is not the others'
                    self._fail(part.sequence, error)

    def _advance(self, sequence: Sequence, found: Decoded, rows: range) -> None:
        """Take the next token, and those behind it as long as the guesses were right. `rows` of `found` are its own."""
        state, guesses, sequence.guesses = self._underway[sequence], sequence.guesses, []
        answer, plain, alternatives = state.answer, state.sampler.plain, sequence.request.params.logprobs
        text, right = "", 0
        logprobs: tuple[TokenLogprob, ...] = ()
        for right, row in enumerate(rows):
            token, finite = found.greedy[row]
            if not finite:
                raise NumericsError(
                    "The model's logits are not numbers (NaN or infinite); this request ends here. Check the weights, "
                    "or load the model in float32."
                )
            if not plain:
                token = state.sampler.choose(state.tokens, found.logits[row])
                state.tokens.append(token)
            sequence.keys.append(token)
            if alternatives is not None:
                logprobs += (logprob_of(token, found.logits[row], alternatives, self._tokenizer),)
            text += answer.push(token)
            if answer.finish_reason is not None or answer.tokens >= sequence.request.most:
                break
            if right < len(guesses) and token != guesses[right]:
                break
        self._guesses.judge(sequence, len(guesses), right)
        if guesses:
            self._scheduler.accepted(sequence, right)
        self._tell(sequence, state, text, logprobs)

    def _tell(self, sequence: Sequence, state: _Underway, text: str, logprobs: tuple[TokenLogprob, ...]) -> None:
        request, now = sequence.request, time.monotonic()
        if state.last:
            self.stats.inter_token.add(now - state.last)
        else:
            self.stats.first_token.add(now - request.arrived)
        state.last = now
        if state.answer.finish_reason is not None:
            self._finish(sequence, "stop", text, logprobs)
        elif state.answer.tokens >= request.most:
            self._finish(sequence, request.most_reason, text, logprobs)
        elif text or logprobs:
            request.ticket.put(Chunk(text, index=sequence.index, logprobs=logprobs))

    # -- ends

    def _finish(
        self,
        sequence: Sequence,
        reason: FinishReason,
        text: str = "",
        logprobs: tuple[TokenLogprob, ...] = (),
        error: Exception | None = None,
    ) -> None:
        """The one terminal piece of a sequence, and all it held given back."""
        state, request = self._underway.pop(sequence), sequence.request
        rest = text + state.answer.end(reason)
        state.answer.cached = sequence.cached
        ended = state.answer.finish_reason if error is None else "error"
        self._scheduler.remove(sequence, keep=error is None and self.settings.reuse)
        self._guesses.forget(sequence)
        left = self._of_ticket[request.ticket]
        left.remove(sequence)
        if not left:
            del self._of_ticket[request.ticket]
            self._sounds.drop(request)
        usage = usage_of(request.prompt, state.answer)
        assert ended is not None
        self.stats.finish(ended, usage, sum(one.seconds for one in request.prompt.heard), sequence.index)
        self.stats.end_to_end.add(time.monotonic() - request.arrived)
        if rest or logprobs:
            request.ticket.put(Chunk(rest, index=sequence.index, logprobs=logprobs))
        request.ticket.put(Chunk("", ended, usage, request.prompt.heard, sequence.index, error=error))

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        self._finish(sequence, "error", error=error)

    def _end_late_ones(self, now: float) -> None:
        for one in list(self._underway):
            if one.request.deadline is not None and now >= one.request.deadline:
                self._finish(one, "deadline")

    # -- what the scheduler asks and is told

    def _ready(self, sequence: Sequence) -> bool:
        """Its sounds are encoded, or the cache already holds what they became."""
        request = sequence.request
        if not request.prompt.clips or self._sounds.held(request):
            return True
        last = max(i for i, key in enumerate(request.keys) if key < 0)
        try:
            return self._pool.match(sequence.keys[:-1]) > last or self._sounds.ready(request)
        except Exception as error:  # the encoder's; the scheduler is at work now, so the sequence ends after it
            self._broken.append((sequence, error))
            return False

    def _limits(self) -> Limits:
        return Limits(self._pace.tokens, self.settings.sequences, self.settings.waiting)

    # -- the books

    def _count(self, plan: Plan, took: float) -> None:
        stats, prefill = self.stats, sum(part.count for part in plan.prefills)
        for part in plan.prefills:
            if not part.sequence.begun:
                stats.queue_wait.add(time.monotonic() - part.sequence.request.arrived)
        decode = sum(part.count for part in plan.decodes)
        stats.prefill_tokens += prefill
        stats.decode_tokens += decode
        share = prefill / (prefill + decode)
        stats.seconds_prefill += took * share
        stats.seconds_decode += took * (1 - share)
        self._pace.learn(prefill, took)

    def _gauge(self) -> None:
        stats = self.stats
        stats.waiting, stats.running = self._scheduler.waiting, self._scheduler.running
        stats.blocks_used, stats.blocks_cached = self._pool.used, self._pool.cached
        stats.blocks_total = self._storage.blocks
        stats.sounds_bytes = self._sounds.nbytes

    def _measure(self, started: float) -> None:
        self._gauge()
        stats = self.stats
        model = stats.seconds_prefill + stats.seconds_decode + stats.seconds_encoder + stats.seconds_draft
        took = time.monotonic() - started
        stats.seconds_overhead += max(0.0, took - (model - self._model_seconds))
        self._model_seconds = model
        stats.step_seconds.add(took)

    def _accepted(self, prompt: Prompt, params: SamplingParams) -> tuple[Options, Limit]:
        options = self._options(params)
        return options, limit(prompt, params, options.config, self._context)

    def _options(self, params: SamplingParams) -> Options:
        """The request's options over the checkpoint's, as `generate` settles them."""
        return resolve(
            self._model.generation_config,
            None,
            {**generate_options(params), "eos_token_id": sorted(self._eos_ids) or None, "stop_strings": None},
        )

    @property
    def _eos_ids(self) -> frozenset[int]:
        return self._turn_ends | frozenset(self._model.generation_config.eos_ids)

    def _blocks(self, block_bytes: int) -> int:
        if self.settings.kv_tokens is not None:
            return -(-self.settings.kv_tokens // BLOCK)
        device = self._model.device
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_bytes()
        affordable = MOST_TOKENS // BLOCK if free is None else int(free * SHARE) // block_bytes
        return max(1, min(affordable, MOST_TOKENS // BLOCK))

    def _draft_of(self, model: Any) -> Draft | None:
        if model is None:
            return None
        sounds = self._sounds if hears_alike(self._model, model) else None
        return Draft(model, self._storage.blocks, self.settings, self.stats, sounds=sounds, ends=self._eos_ids)

    def _new_pool(self) -> None:
        self._pool = BlockPool(self._storage.blocks, self._storage.block)
        self._scheduler = Scheduler(self._pool, self._limits(), self._ready)

    def _notice_new_weights(self) -> None:
        """An adapter was attached, a weight written to: what was computed before is not what would be now."""
        state = _state_of(self._model)
        if state != self._state:
            self._state = state
            self._sounds.forget()
            self._runner.forget()
            self._runner.clear(self._pool.take_spoiled())  # the new pool does not know of them
            self._new_pool()


def _state_of(model: Any) -> int:
    """Changes when a weight is written to or replaced, as attaching an adapter or a training step does."""
    tensors = (*model.parameters(), *model.buffers())
    return hash((model.training, model.encoder_mask, *((id(t), t._version) for t in tensors)))
