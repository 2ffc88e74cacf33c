"""The engine: requests in, deltas of answers out, one step at a time.

    submit -> waiting -> prefill in chunks -> decode, a token a step -> one terminal delta, whatever happened
                                           -> hidden states, where they are wanted in place of an answer

A step: late requests end, clips are encoded for a while, the scheduler decides what is computed, the model runner
computes it, each sequence that is at its end takes its next token. Not thread-safe: `thread.EngineThread` is.
"""

from __future__ import annotations

import time
from contextlib import nullcontext

import torch

from ..inputs.prompt import Prompt
from ..native.openmp import one_thread
from ..text.tokenizer import Tokenizer
from ..types import FinishReason, PoolingParams, SamplingParams
from .adapters import Adapters, LoadedAdapter
from .block_manager import BlockManager
from .encoder_cache import EncoderCache, is_small
from .executor.forward_batch import ForwardOutput
from .executor.model_runner import ModelRunner
from .metrics import Stats, StepTimer
from .model_interface import EngineModel
from .output_processor import NOTHING, Responses, SequenceState, Taken
from .prompt_outputs import ClipEmbedder, HiddenStates, PromptLogprobs, check_pooling, layer_of
from .request import Request, RequestHandle, Sequence
from .sampler import Sampler, TokenChooser
from .scheduler import Limits, ScheduledSequence, Scheduler, SchedulerOutput, StepSizeController
from .settings import EngineSettings as EngineSettings
from .settings import OptionsResolver, RequestOptions
from .speculative.decoder import SpeculativeDecoder
from .speculative.draft_model import DraftModel, check_same_tokens, same_encoder
from .speculative.forced_tokens import ForcedTokens
from .speculative.prompt_lookup import PromptLookup
from .speculative.proposer import Proposer
from .structured.constrained_sampler import ConstrainedSampler, GrammarMask
from .structured.grammar import Grammars

ENCODER_SECONDS = 0.05  # of encoder work a step, while other answers wait for their next token
STEP_SECONDS = 0.15  # that a step with prefill should take, while other answers wait for their next token


class Engine:
    """Answers many conversations at once. Attributes: `stats`, `settings`, `adapters` that requests may have."""

    def __init__(
        self,
        model: EngineModel,
        tokenizer: Tokenizer,
        settings: EngineSettings | None = None,
        draft: EngineModel | None = None,
    ) -> None:
        """`model`: in eval mode; `draft`: a smaller one that proposes draft tokens.

        Raises ConfigError: a draft whose ids mean something else.
        """
        self.settings = settings or EngineSettings()
        self.stats = Stats()
        self.adapters = Adapters(model, self.settings, self.stats)
        if draft is not None:
            check_same_tokens(model.config, draft.config)
            draft = draft if self.settings.num_speculative_tokens else None
        self._model = model
        self._options = OptionsResolver(model, tokenizer)
        self._grammars = Grammars(tokenizer, int(model.config.text_config.vocab_size))
        self._forced_tokens = ForcedTokens()
        budget = self.settings.encoder_cache_bytes if self.settings.enable_prefix_caching else 0
        self._encoder_cache = EncoderCache(model, budget, self.stats, apart=is_small(model))
        self._runner = ModelRunner.for_engine(model, draft, self.settings, self._encoder_cache)
        self._speculative = self._make_speculative(draft)
        self._step_size = StepSizeController(STEP_SECONDS, self.settings.max_num_batched_tokens)
        self._tokenizer = tokenizer
        self._responses = Responses(tokenizer, self.stats)
        self._timer = StepTimer(self.stats)
        self._encoder_errors: list[tuple[Sequence, Exception]] = []  # found while the scheduler was at work
        self._clip_embedder = ClipEmbedder(model)
        self._scheduler = self._make_scheduler()

    @property
    def idle(self) -> bool:
        return not len(self._responses)

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self._options.eos_ids

    def submit(
        self,
        prompt: Prompt,
        params: SamplingParams | PoolingParams,
        handle: RequestHandle,
        *,
        deadline: float | None = None,
        priority: int = 0,
        adapter: LoadedAdapter | None = None,
    ) -> None:
        """Take in a request; its deltas go to `handle`. `deadline` is a time.monotonic(); `adapter` of `adapters`.

        Raises ContextLengthError, CapacityError (it can never fit, or too many wait), ConfigError: then the handle has
        got nothing.
        """
        if self.idle:
            self._check_weights()
        keys = prompt.prefix_keys(self._model.config.audio_token_index)
        number = self.stats.submitted
        if isinstance(params, PoolingParams):
            self.check_request(prompt, params)
            wanted, nothing = layer_of(self._model, params), SamplingParams()
            request = Request(number, prompt, keys, nothing, handle, 0, "stop", deadline, priority, pooling=wanted)
            request.adapter = adapter
            self._submit_pooling(request, wanted)
            return
        resolved = self._options.resolve(params)
        limit = self._options.limit(prompt, params, resolved)
        max_time = resolved.options.config.max_time
        if max_time is not None:
            end = time.monotonic() + max_time
            deadline = end if deadline is None else min(end, deadline)
        most, reason = limit.tokens, limit.reason
        request = Request(number, prompt, keys, params, handle, most, reason, deadline, priority, adapter=adapter)
        self._scheduler.check_capacity(request)
        sequences = [Sequence(request, index, list(keys)) for index in range(params.n)]
        states = {sequence: self._make_state(sequence, resolved) for sequence in sequences}
        self._encoder_cache.acquire(request)
        self._responses.add(handle, states)
        for sequence, state in states.items():
            if isinstance(state.sampler, ConstrainedSampler):  # now that nothing raises: else it would stay for ever
                self._forced_tokens.matchers[sequence] = state.sampler.matcher
                self._speculative = self._speculative or self._speculative_of([])
            self._scheduler.add(sequence)
        self.stats.submitted += 1

    def _submit_pooling(self, request: Request, params: PoolingParams) -> None:
        keys, handle = request.prefix_keys, request.handle
        self._scheduler.check_capacity(request)
        sequence, state = Sequence(request, 0, list(keys)), self._responses.new_state(None, frozenset(), ())
        state.prompt_output = sequence.prompt_output = HiddenStates(params, len(keys))
        self._encoder_cache.acquire(request)
        self._responses.add(handle, {sequence: state})
        if params.source == "language_model":
            self._scheduler.add(sequence)
        else:
            self._clip_embedder.add(sequence)
        self.stats.submitted += 1

    def check_request(self, prompt: Prompt, params: SamplingParams | PoolingParams) -> None:
        """Raises what `submit` would, except for a full queue. From any thread."""
        if isinstance(params, PoolingParams):
            check_pooling(self._model, prompt, params)
            self._options.check_fits(prompt)
        else:
            self._options.limit(prompt, params, self._options.resolve(params))
            self.compile(params)

    def compile(self, params: SamplingParams) -> None:
        """Prepare what the answer is held to, where that takes time. From any thread.

        Raises ConfigError for what cannot be honoured.
        """
        if params.constraint is not None:
            self._grammars.matcher(params.constraint, self._options.resolve(params).eos_ids)

    def set_up_grammars(self) -> None:
        """What the first `compile` would do once, in about a second: the tokenizer's tokens, as a tree of bytes."""
        self._grammars.set_up(self._options.eos_ids)

    def cancel(self, handle: RequestHandle) -> None:
        """End the unfinished answers of a request. Does nothing for an unknown or finished one."""
        for sequence in self._responses.of_handle(handle):
            self._finish(sequence, "cancelled")
        self._update_gauges()  # there may be no step after this

    def fail_all(self, error: Exception) -> None:
        """End everything with `error`."""
        for sequence in list(self._responses):
            self._fail(sequence, error)
        self._update_gauges()

    def close(self) -> None:
        """End the encoder's thread, if it has one. Nothing is computed afterwards."""
        self._encoder_cache.close()

    @torch.no_grad()
    def step(self) -> None:
        """Do one step's work."""
        started = self._timer.start()
        self._end_late_requests(started)
        self._encode_clips()
        if self._clip_embedder.jobs:
            seconds = ENCODER_SECONDS if self._scheduler.num_running else STEP_SECONDS
            for sequence, error in self._clip_embedder.run(seconds, self._responses.__contains__):
                self._finish(sequence, "stop" if error is None else "error", error=error)
        if self._speculative is not None:
            self._speculative.propose(self._responses)
        output = self._schedule()
        if output.decodes or output.prefills:
            self._run(output)
        self._update_gauges()
        self._timer.stop()

    # -- one step

    def _encode_clips(self) -> None:
        if not self._encoder_cache.busy:
            if self._speculative is not None:
                self._speculative.encode(ENCODER_SECONDS)
            return
        # While prompts are in prefill and no answer waits for its next token, the encoder gets as long as prefill does:
        # else a short clip would wait for a chunk of someone's long prompt again and again.
        nobody_decodes = self._scheduler.num_running and not any(sequence.decoding for sequence in self._responses)
        seconds = STEP_SECONDS if nobody_decodes else ENCODER_SECONDS
        self._encoder_cache.encode(seconds, beside=self._scheduler.num_running > 0)

    def _schedule(self) -> SchedulerOutput:
        self._scheduler.limits = self._limits()
        output = self._scheduler.schedule()
        while self._encoder_errors:
            self._fail(*self._encoder_errors.pop())
        self.stats.preemptions += len(output.preempted)
        block_manager = self._scheduler.block_manager
        if blocks := block_manager.take_blocks_to_zero():
            self._runner.zero(blocks)  # 0 * NaN behind a sequence's end would be NaN
        self._runner.copy(output.copies)
        for copy in output.copies:
            block_manager.copied(copy)
        missing_audio = [item for item in output.prefills if not self._runner.encoder_ready(item)]
        for item in missing_audio:  # the cached beginning of its prompt has been evicted since `_ready` was asked
            self._scheduler.preempt(item.sequence)
        if not missing_audio:
            return output
        prefills = [item for item in output.prefills if item not in missing_audio]
        return SchedulerOutput(output.decodes, prefills, output.copies, output.preempted)

    def _run(self, output: SchedulerOutput) -> None:
        scheduled, started = output.scheduled, time.monotonic()
        try:
            with one_thread() if self._encoder_cache.computing else nullcontext():
                result, num_logits = self._runner.run(scheduled)
        except Exception as error:  # out of memory, say: it ends the sequences of this pass, and the engine lives on
            for item in scheduled:
                self._fail(item.sequence, error)
            return
        self._count_pass(output, time.monotonic() - started)
        self._scheduler.mark_computed(output)
        end = column = 0
        for item, count in zip(scheduled, num_logits, strict=True):
            rows, end = range(end, end + count), end + count
            columns, column = range(column, column + item.count), column + item.count
            if item.sequence not in self._responses:
                continue
            try:
                if item.sequence.prompt_output is not None:
                    rows = self._take_outputs(item, result, rows, columns)
                if rows:
                    self._take_tokens(item.sequence, result, rows)
            except Exception as error:  # one sequence's error does not end the others
                self._fail(item.sequence, error)

    def _take_outputs(self, item: ScheduledSequence, result: ForwardOutput, rows: range, columns: range) -> range:
        """Take what is wanted of the prompt's positions. Returns the rows from which tokens are sampled."""
        sequence = item.sequence
        assert sequence.prompt_output is not None
        sequence.prompt_output.take(item.start, result, rows, columns)
        if not item.last:
            return rows[:0]
        sequence.prompt_output = None  # it is complete
        if sequence.request.max_new_tokens:
            return rows[-1:]
        self._finish(sequence, "stop")
        return rows[:0]

    def _take_tokens(self, sequence: Sequence, result: ForwardOutput, rows: range) -> None:
        drafts, sequence.draft_token_ids = sequence.draft_token_ids, []
        taken = self._responses.state(sequence).take(sequence, result, rows, drafts)
        if self._speculative is not None:
            self._speculative.update(sequence, len(drafts), taken.num_accepted)
        if drafts:
            self._scheduler.accept_drafts(sequence, taken.num_accepted)
        reason = self._responses.deliver(sequence, taken)
        if reason is not None:
            self._finish(sequence, reason, taken)

    # -- ends

    def _finish(
        self,
        sequence: Sequence,
        reason: FinishReason,
        taken: Taken = NOTHING,
        error: Exception | None = None,
    ) -> None:
        """Release all that a sequence holds, then send its one terminal delta."""
        self._scheduler.remove(sequence, keep=error is None and self.settings.enable_prefix_caching)
        if self._speculative is not None:
            self._speculative.forget(sequence)
        if self._responses.is_last(sequence):
            self._encoder_cache.release(sequence.request)
        self._responses.finish(sequence, reason, taken, error)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        self._finish(sequence, "error", error=error)

    def _end_late_requests(self, now: float) -> None:
        for sequence in list(self._responses):
            if sequence.request.deadline is not None and now >= sequence.request.deadline:
                self._finish(sequence, "deadline")

    # -- what the scheduler asks and is told

    def _ready(self, sequence: Sequence) -> bool:
        """Its clips are encoded, or the prefix cache holds the positions computed from them."""
        request = sequence.request
        if not request.prompt.clips or self._encoder_cache.has_all(request):
            return True
        try:
            cached = self._scheduler.block_manager.lookup(sequence.prefix_keys[: sequence.cacheable], request.space)
            return cached > request.audio_positions[-1] or self._encoder_cache.ready(request)
        except Exception as error:  # the encoder's; the sequence ends when the scheduler is done
            self._encoder_errors.append((sequence, error))
            return False

    def _limits(self) -> Limits:
        return Limits(self._step_size.tokens, self.settings.max_num_seqs, self.settings.max_waiting)

    # -- metrics

    def _count_pass(self, output: SchedulerOutput, seconds: float) -> None:
        for item in output.prefills:
            if not item.sequence.begun:
                self.stats.queue_wait.add(time.monotonic() - item.sequence.request.arrived)
        prefill = sum(item.count for item in output.prefills)
        self.stats.count_pass(prefill, sum(item.count for item in output.decodes), seconds)
        self._step_size.learn(prefill, seconds)

    def _update_gauges(self) -> None:
        stats, block_manager = self.stats, self._scheduler.block_manager
        stats.waiting, stats.running = self._scheduler.num_waiting, self._scheduler.num_running
        stats.blocks_used, stats.blocks_cached = block_manager.used, block_manager.cached
        stats.blocks_total = block_manager.blocks
        stats.encoder_cache_bytes = self._encoder_cache.nbytes

    # -- how it is put together

    def _make_state(self, sequence: Sequence, resolved: RequestOptions) -> SequenceState:
        sampler: TokenChooser | None = None
        vocab_size = self._model.config.text_config.vocab_size
        if sequence.request.params.constraint is not None:
            matcher = self._grammars.matcher_of(sequence.request.params, resolved.eos_ids)
            drawn = None
            if not resolved.greedy:
                mask = GrammarMask(matcher)
                drawn = Sampler(sequence, resolved.options, vocab_size, self._model.device, mask)
            sampler = ConstrainedSampler(matcher, drawn)
        elif not resolved.greedy:
            sampler = Sampler(sequence, resolved.options, vocab_size, self._model.device)
        params = sequence.request.params
        state = self._responses.new_state(sampler, resolved.eos_ids, self._options.stop_strings(params))
        if params.prompt_logprobs is not None and sequence.index == 0:
            audio_id = self._model.config.audio_token_index
            state.prompt_output = PromptLogprobs(sequence.request.prompt, params, audio_id, self._tokenizer)
            sequence.prompt_output = state.prompt_output
        return state

    def _make_speculative(self, draft: EngineModel | None) -> SpeculativeDecoder | None:
        proposers: list[Proposer] = []
        if self.settings.num_prompt_lookup_tokens:
            proposers.append(PromptLookup(self.settings.num_prompt_lookup_tokens, self.stats))
        if draft is not None:
            shared = self._encoder_cache if same_encoder(self._model, draft) else None
            blocks, eos_ids = self._runner.storage.blocks, self._options.eos_ids
            proposers.append(
                DraftModel(draft, blocks, self.settings, self.stats, encoder_cache=shared, eos_ids=eos_ids)
            )
        return self._speculative_of(proposers) if proposers else None

    def _speculative_of(self, proposers: list[Proposer]) -> SpeculativeDecoder:
        return SpeculativeDecoder([self._forced_tokens, *proposers], self._forced_tokens.matchers)

    def _make_scheduler(self) -> Scheduler:
        block_manager = BlockManager(self._runner.storage.blocks, self._runner.storage.block)
        return Scheduler(block_manager, self._limits(), self._ready)

    def _check_weights(self) -> None:
        """Drop what was computed with other weights: an adapter was attached, or a weight written to."""
        if not self._runner.weights_changed():
            return
        self._encoder_cache.clear()
        blocks = self._scheduler.block_manager.take_blocks_to_zero()
        self._runner.zero(blocks)  # the new block manager has no list of them
        self._scheduler = self._make_scheduler()
