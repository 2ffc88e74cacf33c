"""One side of `bench engine` in its own process: our engine and `generate`, or the peer.

Run as `python -m benchmarks.engine.worker ours|transformers THREADS`.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qwen2_audio.bench.clips import clip_variant
from qwen2_audio.bench.machine import peak_memory
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

from ..harness.worker_loop import serve, settle, stdout_for_replies, timed
from .scripts import QUESTIONS, ids_of, prompt_of, script, text_prompt, with_errors
from .timed_engine import ModelClock, TimedEngine, decode_rate, ids_in, scripted

Measured = dict[str, Any]
CHUNK = 1024  # positions a step, where prefill is only the way to decoding
SPARE = 64  # tokens of the first answers while the last prompts are read, at most


class Session:
    """The orders a worker knows: one method each."""

    def load(self, folder: str, device: str, dtype: str, kv_tokens: int) -> Measured:
        """Read the checkpoint. Answers never end early from here on: random weights would say when."""
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
        """A draft beside the model, where that is. `value`: bytes that its steps read over those of the model's."""
        from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration

        self._draft = Qwen2AudioForConditionalGeneration.from_pretrained(
            folder, dtype=self._model.dtype, device_map=self._model.device, quantize=quantize
        )
        small, large = map(read_each_step, (self._draft, self._model))
        return {"value": small / large}

    def memory(self) -> Measured:
        peak = peak_memory()
        return {"value": None if peak is None else peak / 1e9}

    def together(self, seconds: list[float], variant: int, new_tokens: int) -> Measured:
        """Clips of `seconds`, all asked about at once: from the waveforms to the last token of the last answer."""
        sounds = [clip_variant(length, variant) for length in seconds]
        with self._threaded() as (engine, thread):
            with timed() as timer:
                handles = [self._ask(thread, sound, new_tokens) for sound in sounds]
                answers = [ids_in(handle.completions()[0].text) for handle in handles]
            return {"value": timer.seconds, "check": answers, "decode": decode_rate(engine.steps, len(seconds))}

    def alone(self, seconds: list[float], variant: int, new_tokens: int) -> Measured:
        """The same, one after another through `generate`."""
        sounds = [clip_variant(length, variant) for length in seconds]
        with timed() as timer:
            answers = [self._generate(sound, new_tokens) for sound in sounds]
        return {"value": timer.seconds, "check": answers}

    def decode(self, running: list[int], lengths: list[int], steps: int, variant: int) -> Measured:
        """Tokens a second with so many running, most first, and what a step takes beside the model.

        Prompts of text, `lengths` positions each; those that are too many are cancelled on the way.
        """
        engine = self._engine(max_num_batched_tokens=CHUNK)
        handles, most = [], len(running) * (steps + 1) + SPARE
        for number, length in enumerate(lengths):
            handles.append(RequestHandle(1, engine.cancel))
            prompt = text_prompt(self._config, length, 1000 * variant + number)
            engine.submit(prompt, _greedy(most), handles[-1])
        while not engine.steps or engine.steps[-1].prefill or engine.steps[-1].running < len(lengths):
            engine.step()
            if handles[0].done:  # it must have failed, and says why
                handles[0].completions()
        found = []
        for count in running:
            for handle in handles[count:]:
                handle.cancel()
            engine.step()
            engine.steps.clear()
            settle()
            for _ in range(steps):
                engine.step()
            assert all(step.decode == count and not step.prefill for step in engine.steps)
            beside = [step.seconds - step.model_seconds for step in engine.steps]
            whole = statistics.median(step.seconds for step in engine.steps)
            found.append({"running": count, "rate": count / whole, "beside": statistics.median(beside), "step": whole})
        return {"value": None, "found": found}

    def prefill(self, length: int, variant: int) -> Measured:
        """Positions a second of a prompt of text, and the median step."""
        engine = self._engine()
        engine.submit(text_prompt(self._config, length, variant), _greedy(1), RequestHandle(1, engine.cancel))
        with timed() as timer:
            while not engine.idle:
                engine.step()
        return {"value": length / timer.seconds}

    def first_token(self, seconds: float, variant: int) -> Measured:
        """From the waveform to the first piece of the answer of an idle engine, and its median step of prefill."""
        sound = clip_variant(seconds, variant)
        with self._threaded() as (engine, thread):
            self._warm(engine, thread)
            with timed() as timer:
                self._ask(thread, sound, 1).completions()
        chunks = [step.seconds - step.encoder_seconds for step in engine.steps if step.prefill]
        return {"value": timer.seconds, "chunk": statistics.median(chunks)}

    def first_token_behind(self, seconds: float, long: float, wait: float, variant: int) -> Measured:
        """`first_token` of a clip that arrives `wait` seconds after a `long` one; `late`: that one was done by then."""
        sound, longer = clip_variant(seconds, variant), clip_variant(long, variant)
        with self._threaded() as (engine, thread):
            self._warm(engine, thread)
            settle()
            before = self._ask(thread, longer, 1)
            time.sleep(wait)
            late = before.done
            started = time.perf_counter()
            self._ask(thread, sound, 1).completions()
            taken = time.perf_counter() - started
            before.completions()
        return {"value": taken, "late": late}

    def turns(self, seconds: float, new_tokens: int, variant: int) -> Measured:
        """First tokens of two turns about a clip, from the waveform each time: [first, second]."""
        sound, taken = clip_variant(seconds, variant), []
        with self._threaded() as (engine, thread):
            self._warm(engine, thread)
            before: list[int] = []
            for turn in range(2):
                settle()
                started = time.perf_counter()
                handle = thread.submit(partial(self._turn, sound, before, turn), _greedy(new_tokens))
                pieces = iter(handle)
                chunks = [next(pieces)]
                taken.append(time.perf_counter() - started)
                chunks += pieces
                before = ids_in(completions_of(chunks, 1)[0].text)
        return {"value": taken}

    def guessing(self, kind: str, guesses: int, most: int, right: float | None = None) -> Measured:
        """Tokens a second of an answer that is `script(kind)`, alone, with so many guesses a step; share taken.

        `right`: the guesses are the draft's, which is told the answer with errors: so many of its tokens are right.
        """
        asked, answer = script(self._config, kind)
        answer = answer[:most]
        engine = (
            self._engine(lookup=guesses) if right is None else self._engine(self._draft, num_speculative_tokens=guesses)
        )
        handle = RequestHandle(1, engine.cancel)
        with ExitStack() as scripts:
            scripts.enter_context(scripted(self._model.language_model, len(asked), answer))
            if right is not None:
                told = with_errors(answer, 1 - right)
                scripts.enter_context(scripted(self._draft.language_model, len(asked), told))
            engine.submit(Prompt(asked, [], [], ()), _greedy(len(answer)), handle)
            while not handle.done and not engine.stats.first_token.count:
                engine.step()
            with timed() as timer:
                while not engine.idle:
                    engine.step()
        assert ids_in(handle.completions()[0].text) == answer
        stats = engine.stats
        accepted = stats.completion_tokens - 1 - sum(1 for step in engine.steps if step.decode)
        return {"value": (len(answer) - 1) / timer.seconds, "accepted": accepted / max(len(answer) - 1, 1)}

    def own_words(self, folder: str, guesses: int) -> Measured:
        """Tokens a second of the model's own answers about its bundled clips, one after another, with so many guesses
        of the draft a step; share of the guesses that were taken."""
        processor = Qwen2AudioProcessor.from_pretrained(folder)
        questions = [user(text, audio=clip) for clip in sorted(Path(folder).glob("clips/*.wav")) for text in QUESTIONS]
        asked = [build_prompt([question], processor) for question in questions]
        settings = EngineSettings(kv_tokens=self._kv_tokens, num_speculative_tokens=guesses)
        engine = TimedEngine(self._model, self._clock, settings, processor.tokenizer, self._draft)
        taken = 0.0
        for prompt in asked:
            handle = RequestHandle(1, engine.cancel)
            before = engine.stats.first_token.count
            engine.submit(prompt, _greedy(64), handle)
            while engine.stats.first_token.count == before:
                engine.step()
            with timed() as timer:
                while not engine.idle:
                    engine.step()
            taken += timer.seconds
        stats = engine.stats
        share = stats.draft_tokens_accepted / max(stats.draft_tokens_proposed, 1)
        return {"value": (stats.completion_tokens - len(asked)) / taken, "accepted": share}

    # -- inside

    def _engine(self, draft: Any = None, **settings: Any) -> TimedEngine:
        return TimedEngine(self._model, self._clock, EngineSettings(kv_tokens=self._kv_tokens, **settings), draft=draft)

    @contextmanager
    def _threaded(self) -> Iterator[tuple[TimedEngine, EngineThread]]:
        engine = self._engine()
        thread = EngineThread(engine)
        try:
            yield engine, thread
        finally:
            thread.close()

    def _ask(self, thread: EngineThread, sound: np.ndarray, new_tokens: int) -> RequestHandle:
        return thread.submit(partial(prompt_of, self._config, sound), _greedy(new_tokens))

    def _warm(self, engine: TimedEngine, thread: EngineThread) -> None:
        """Let the engine learn how much it gets done in a step, and forget the steps."""
        thread.submit(partial(text_prompt, self._config, 300, 1), _greedy(2)).completions()
        settle()  # its last step ends after its last piece
        engine.steps.clear()

    def _turn(self, sound: np.ndarray, before: Sequence[int], turn: int) -> Prompt:
        """The first question, or a second one behind the answer to it."""
        first = prompt_of(self._config, sound)
        if not turn:
            return first
        more = ids_of(self._config, 0, question=1)
        return Prompt([*first.ids, *before, *more], first.clips, first.frames, first.heard)

    def _generate(self, sound: np.ndarray, new_tokens: int) -> list[int]:
        prompt = prompt_of(self._config, sound)
        ids, device = torch.tensor([prompt.ids]), self._model.device
        heard = stack_clips(prompt.clips, prompt.frames)
        out = self._model.generate(
            input_ids=ids.to(device),
            attention_mask=torch.ones_like(ids).to(device),
            do_sample=False,
            max_new_tokens=new_tokens,
            **{name: value.to(device) for name, value in heard.items()},
        )
        answer: list[int] = out[0, ids.shape[1] :].tolist()
        return answer


def read_each_step(model: Any) -> int:
    """Bytes of weights that a decode step reads: layers and head."""
    text = model.language_model
    return nbytes(text) - nbytes(text.model.embed_tokens)


def _greedy(new_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=new_tokens)


class PeerSession:
    """What the peer is asked: the same requests, as one padded batch."""

    def load(self, folder: str, device: str, dtype: str) -> Measured:
        from ..peers.transformers_batch import PaddedBatch

        with timed() as timer:
            self._batch = PaddedBatch(Path(folder), device, getattr(torch, dtype))
        return {"value": timer.seconds}

    def memory(self) -> Measured:
        peak = peak_memory()
        return {"value": None if peak is None else peak / 1e9}

    def together(self, seconds: list[float], variant: int, new_tokens: int) -> Measured:
        sounds = [clip_variant(length, variant) for length in seconds]
        with timed() as timer:
            answers = self._batch.answer(sounds, new_tokens)
        return {"value": timer.seconds, "check": answers}


def main() -> None:
    side, threads = sys.argv[1], int(sys.argv[2])
    replies = stdout_for_replies()
    torch.set_num_threads(threads)
    with torch.no_grad() if side == "ours" else nullcontext():
        serve(Session() if side == "ours" else PeerSession(), sys.stdin, replies)


if __name__ == "__main__":
    main()
