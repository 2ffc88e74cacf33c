"""Our side of the engine benchmark in its own process: the engine, and `generate` beside it.

Run as `python -m benchmarks.engine.worker THREADS`.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qwen2_audio.bench.clips import clip_variant
from qwen2_audio.bench.machine import peak_gb
from qwen2_audio.checkpoint.config import Qwen2AudioConfig
from qwen2_audio.engine.engine import EngineSettings
from qwen2_audio.engine.request import RequestHandle, completions_of
from qwen2_audio.engine.thread import EngineThread
from qwen2_audio.inputs.collate import stack_clips
from qwen2_audio.inputs.messages import user
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.inputs.prompt import Prompt, build_prompt
from qwen2_audio.quantize.checkpoint import nbytes
from qwen2_audio.types import SamplingParams

from ..harness.engine_prompts import clip_prompt, random_text_prompt
from ..harness.id_tokenizer import ids_in
from ..harness.prompt_ids import question_ids_for
from ..harness.timed_engine import ModelClock, TimedEngine, decode_rate, scripted
from ..harness.torch_worker import run_torch_worker
from ..harness.worker_loop import settle, timed
from .options import SPARE_TOKENS
from .scripts import QUESTIONS, script, with_errors

Measured = dict[str, Any]
CHUNK = 1024  # positions a step, where prefill is not measured and only precedes decoding


class Session:
    """The orders a worker knows: one method each."""

    def load(self, folder: str, device: str, dtype: str, kv_tokens: int) -> Measured:
        """Read the checkpoint. Answers never end early: random weights would end them anywhere."""
        from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration

        with timed() as timer:
            self._model = Qwen2AudioForConditionalGeneration.from_pretrained(
                folder, dtype=getattr(torch, dtype), device_map=device
            )
        self._model.generation_config.eos_token_id = None
        self._config = Qwen2AudioConfig.from_pretrained(folder)
        self._draft: Any = None
        self._clock = ModelClock(self._model.language_model, self._model.device)
        self._kv_tokens = kv_tokens
        gc.collect()
        gc.freeze()
        return {"value": timer.seconds}

    def load_draft(self, folder: str, quantize: str | None = None) -> Measured:
        """Load a draft model, where the model is. `value`: bytes that its decode step reads over the model's."""
        from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration

        self._draft = Qwen2AudioForConditionalGeneration.from_pretrained(
            folder, dtype=self._model.dtype, device_map=self._model.device, quantize=quantize
        )
        return {"value": bytes_read_each_step(self._draft) / bytes_read_each_step(self._model)}

    def memory(self) -> Measured:
        """GB that the process held at most."""
        return {"value": peak_gb()}

    def together(self, seconds: list[float], variant: int, new_tokens: int) -> Measured:
        """Clips of `seconds`, all asked about at once: from the waveforms to the last token of the last answer."""
        waveforms = [clip_variant(length, variant) for length in seconds]
        with self._engine_thread() as (engine, thread):
            with timed() as timer:
                handles = [self._ask(thread, waveform, new_tokens) for waveform in waveforms]
                answers = [ids_in(handle.completions()[0].text) for handle in handles]
            return {"value": timer.seconds, "check": answers, "decode": decode_rate(engine.steps, len(seconds))}

    def alone(self, seconds: list[float], variant: int, new_tokens: int) -> Measured:
        """The same, one after another through `generate`."""
        waveforms = [clip_variant(length, variant) for length in seconds]
        with timed() as timer:
            answers = [self._generate(waveform, new_tokens) for waveform in waveforms]
        return {"value": timer.seconds, "check": answers}

    def decode(self, running: list[int], lengths: list[int], steps: int, variant: int) -> Measured:
        """For each number of sequences in `running`, largest first: tokens a second, and seconds of a step, whole and
        beside the model.

        Prompts of text, `lengths` positions each; sequences that are too many for the next number are cancelled.
        """
        engine = self._engine(max_num_batched_tokens=CHUNK)
        handles, max_tokens = [], len(running) * (steps + 1) + SPARE_TOKENS
        for number, length in enumerate(lengths):
            handles.append(RequestHandle(1, engine.cancel))
            prompt = random_text_prompt(self._config, length, 1000 * variant + number)
            engine.submit(prompt, _greedy(max_tokens), handles[-1])
        while not engine.steps or engine.steps[-1].prefill or engine.steps[-1].running < len(lengths):
            engine.step()
            if handles[0].done:  # only a failure ends it so early; this raises its error
                handles[0].completions()
        counts = []
        for count in running:
            for handle in handles[count:]:
                handle.cancel()
            engine.step()
            engine.steps.clear()
            settle()
            for _ in range(steps):
                engine.step()
            assert all(step.decode == count and not step.prefill for step in engine.steps)
            beside = statistics.median(step.seconds - step.model_seconds for step in engine.steps)
            whole = statistics.median(step.seconds for step in engine.steps)
            counts.append({"running": count, "rate": count / whole, "beside": beside, "step": whole})
        return {"value": None, "counts": counts}

    def prefill(self, length: int, variant: int) -> Measured:
        """Positions a second of a prompt of text."""
        engine = self._engine()
        engine.submit(random_text_prompt(self._config, length, variant), _greedy(1), RequestHandle(1, engine.cancel))
        with timed() as timer:
            while not engine.idle:
                engine.step()
        return {"value": length / timer.seconds}

    def first_token(self, seconds: float, variant: int) -> Measured:
        """From the waveform to the first piece of the answer of an idle engine; `chunk`: its median step of prefill."""
        waveform = clip_variant(seconds, variant)
        with self._engine_thread() as (engine, thread):
            self._warm_up(engine, thread)
            with timed() as timer:
                self._ask(thread, waveform, 1).completions()
        chunks = [step.seconds - step.encoder_seconds for step in engine.steps if step.prefill]
        return {"value": timer.seconds, "chunk": statistics.median(chunks)}

    def first_token_behind(self, seconds: float, long: float, wait: float, variant: int) -> Measured:
        """`first_token` of a clip that arrives `wait` seconds after a `long` one; `late`: that one was done by then."""
        waveform, long_waveform = clip_variant(seconds, variant), clip_variant(long, variant)
        with self._engine_thread() as (engine, thread):
            self._warm_up(engine, thread)
            settle()
            long_handle = self._ask(thread, long_waveform, 1)
            time.sleep(wait)
            late = long_handle.done
            start = time.perf_counter()
            self._ask(thread, waveform, 1).completions()
            first_token_seconds = time.perf_counter() - start
            long_handle.completions()
        return {"value": first_token_seconds, "late": late}

    def turns(self, seconds: float, new_tokens: int, variant: int) -> Measured:
        """First tokens of two turns about a clip, from the waveform each time: [first, second]."""
        waveform, first_tokens = clip_variant(seconds, variant), []
        with self._engine_thread() as (engine, thread):
            self._warm_up(engine, thread)
            previous_answer: list[int] = []
            for turn in range(2):
                settle()
                start = time.perf_counter()
                prompt = partial(self._turn_prompt, waveform, previous_answer, turn)
                pieces = iter(thread.submit(prompt, _greedy(new_tokens)))
                chunks = [next(pieces)]
                first_tokens.append(time.perf_counter() - start)
                chunks += pieces
                previous_answer = ids_in(completions_of(chunks, 1)[0].text)
        return {"value": first_tokens}

    def speculate(self, kind: str, draft_tokens: int, max_tokens: int, right: float | None = None) -> Measured:
        """Tokens a second of an answer that is `script(kind)`, alone, with so many draft tokens a step; `accepted`:
        share of the answer's tokens that were draft tokens.

        Draft tokens come from prompt lookup, or with `right` from the draft model, which is made to give the answer
        with errors: that share of its tokens, 0 to 1, is right.
        """
        prompt_ids, answer = script(self._config, kind)
        answer = answer[:max_tokens]
        if right is None:
            engine = self._engine(num_prompt_lookup_tokens=draft_tokens)
        else:
            engine = self._engine(self._draft, num_speculative_tokens=draft_tokens)
        handle = RequestHandle(1, engine.cancel)
        with ExitStack() as scripts:
            scripts.enter_context(scripted(self._model.language_model, len(prompt_ids), answer))
            if right is not None:
                draft_answer = with_errors(answer, 1 - right)
                scripts.enter_context(scripted(self._draft.language_model, len(prompt_ids), draft_answer))
            engine.submit(Prompt(prompt_ids, [], [], ()), _greedy(len(answer)), handle)
            while not handle.done and not engine.stats.first_token.count:
                engine.step()
            with timed() as timer:
                while not engine.idle:
                    engine.step()
        assert ids_in(handle.completions()[0].text) == answer
        accepted = engine.stats.completion_tokens - 1 - sum(1 for step in engine.steps if step.decode)
        return {"value": (len(answer) - 1) / timer.seconds, "accepted": accepted / max(len(answer) - 1, 1)}

    def answer_clips(self, folder: str, draft_tokens: int) -> Measured:
        """Tokens a second of the model's own answers about its bundled clips, one after another, with so many tokens
        of the draft a step; `accepted`: share of the draft's tokens that were right."""
        processor = Qwen2AudioProcessor.from_pretrained(folder)
        clips = sorted(Path(folder).glob("clips/*.wav"))
        prompts = [build_prompt([user(text, audio=clip)], processor) for clip in clips for text in QUESTIONS]
        settings = EngineSettings(kv_tokens=self._kv_tokens, num_speculative_tokens=draft_tokens)
        engine = TimedEngine(self._model, self._clock, settings, processor.tokenizer, self._draft)
        decode_seconds = 0.0
        for prompt in prompts:
            first_tokens_before = engine.stats.first_token.count
            engine.submit(prompt, _greedy(64), RequestHandle(1, engine.cancel))
            while engine.stats.first_token.count == first_tokens_before:
                engine.step()
            with timed() as timer:
                while not engine.idle:
                    engine.step()
            decode_seconds += timer.seconds
        stats = engine.stats
        accepted = stats.draft_tokens_accepted / max(stats.draft_tokens_proposed, 1)
        return {"value": (stats.completion_tokens - len(prompts)) / decode_seconds, "accepted": accepted}

    # -- inside

    def _engine(self, draft: Any = None, **settings: Any) -> TimedEngine:
        return TimedEngine(self._model, self._clock, EngineSettings(kv_tokens=self._kv_tokens, **settings), draft=draft)

    @contextmanager
    def _engine_thread(self) -> Iterator[tuple[TimedEngine, EngineThread]]:
        engine = self._engine()
        thread = EngineThread(engine)
        try:
            yield engine, thread
        finally:
            thread.close()

    def _ask(self, thread: EngineThread, waveform: np.ndarray, new_tokens: int) -> RequestHandle:
        return thread.submit(partial(clip_prompt, self._config, waveform), _greedy(new_tokens))

    def _warm_up(self, engine: TimedEngine, thread: EngineThread) -> None:
        """Let the engine learn how much it gets done in a step, and forget the steps."""
        thread.submit(partial(random_text_prompt, self._config, 300, 1), _greedy(2)).completions()
        settle()  # its last step ends after its last piece
        engine.steps.clear()

    def _turn_prompt(self, waveform: np.ndarray, previous_answer: Sequence[int], turn: int) -> Prompt:
        """The first question, or a second one behind the answer to it."""
        first = clip_prompt(self._config, waveform)
        if turn == 0:
            return first
        second_ids = question_ids_for(self._config, 0, question=1)
        return Prompt([*first.ids, *previous_answer, *second_ids], first.clips, first.frames, first.heard)

    def _generate(self, waveform: np.ndarray, new_tokens: int) -> list[int]:
        prompt = clip_prompt(self._config, waveform)
        ids, device = torch.tensor([prompt.ids]), self._model.device
        clips = stack_clips(prompt.clips, prompt.frames)
        out = self._model.generate(
            input_ids=ids.to(device),
            attention_mask=torch.ones_like(ids).to(device),
            do_sample=False,
            max_new_tokens=new_tokens,
            **{name: value.to(device) for name, value in clips.items()},
        )
        answer: list[int] = out[0, ids.shape[1] :].tolist()
        return answer


def bytes_read_each_step(model: Any) -> int:
    """Bytes of weights that a decode step reads: layers and head."""
    text = model.language_model
    return nbytes(text) - nbytes(text.model.embed_tokens)


def _greedy(new_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=new_tokens)


if __name__ == "__main__":
    run_torch_worker(lambda threads: Session())
