"""Rows of decisions and embeddings, for `python -m benchmarks structured`.

decide.ratio        8 questions about a new clip of 30 s at once, each answered by the logits of one position, against 8
                    requests of one token each, one after another, with all caches off
embed.batch_equal   largest difference between embeddings of 8 clips made together and one by one
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from qwen2_audio.bench.clips import clip_variant
from qwen2_audio.bench.report import Row
from qwen2_audio.engine.engine import Engine, EngineSettings
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.types import Chunk, PoolingParams, SamplingParams

from ..harness.engine_prompts import clip_prompt
from ..harness.rows import row_of
from .session import Session

QUESTIONS, SECONDS = 8, 30.0
CLIP_SECONDS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)  # of the clips that are embedded
_LETTERS = (32, 33, 34, 35)  # ids that stand for A to D: random weights know no letters
_DECIDING = SamplingParams(temperature=0, max_tokens=1, logprobs=0, logprob_token_ids=_LETTERS)
_ONE_TOKEN = SamplingParams(temperature=0, max_tokens=1)


def decide_row(session: Session, name: str) -> Row:
    """decide.ratio, of the checkpoint in the format it was loaded in."""
    seconds, ratios = SECONDS * _shorter(session), []
    for turn in range(session.repeats):
        session.progress(f"{name}: {turn + 1} of {session.repeats}")
        ratios.append(decide_ratio(session.model, session.tokenizer, seconds, turn))
    return row_of(name, "x faster", ratios, f"{QUESTIONS} questions about a clip of {seconds:g} s")


def embed_row(session: Session, name: str) -> Row:
    """embed.batch_equal, likewise."""
    session.progress(name)
    lengths = [seconds * _shorter(session) for seconds in CLIP_SECONDS]
    difference = largest_difference(session.model, session.tokenizer, lengths)
    return row_of(name, "difference", [difference], "last token, not normalised, of values about 1")


def _shorter(session: Session) -> float:
    """What clips are multiplied by."""
    return 0.1 if session.quick else 1.0


def decide_ratio(model: Any, tokenizer: Any, seconds: float, variant: int) -> float:
    """How many times faster. Both sides get the same prompts, with the clip decoded and its log-mel made."""
    waveform = clip_variant(seconds, variant)
    prompts = [clip_prompt(model.config, waveform, question) for question in range(QUESTIONS)]
    positions = sum(len(prompt.ids) + 32 for prompt in prompts)
    together = Engine(model, tokenizer, EngineSettings(kv_tokens=positions))
    alone = Engine(model, tokenizer, EngineSettings(kv_tokens=positions, enable_prefix_caching=False))
    started = time.perf_counter()
    run(together, prompts, _DECIDING)
    middle = time.perf_counter()
    for prompt in prompts:
        run(alone, [prompt], _ONE_TOKEN)
    return (time.perf_counter() - middle) / (middle - started)


def largest_difference(model: Any, tokenizer: Any, lengths: Sequence[float]) -> float:
    """Between each clip's embedding alone and in a batch, each on an engine that knows nothing yet."""
    prompts = [clip_prompt(model.config, clip_variant(seconds, 100 + i)) for i, seconds in enumerate(lengths)]
    params = PoolingParams(normalize=False)
    settings = EngineSettings(kv_tokens=sum(len(prompt.ids) + 32 for prompt in prompts))
    together = run(Engine(model, tokenizer, settings), prompts, params)
    alone = [run(Engine(model, tokenizer, settings), [prompt], params)[0] for prompt in prompts]
    pairs = zip(together, alone, strict=True)
    return max(float(np.abs(first.embedding - second.embedding).max()) for first, second in pairs)


def run(engine: Engine, prompts: Sequence[Prompt], params: SamplingParams | PoolingParams) -> list[Chunk]:
    """The last chunk of each prompt, all submitted at once."""
    handles = [RequestHandle(1, engine.cancel) for _ in prompts]
    for prompt, handle in zip(prompts, handles, strict=True):
        engine.submit(prompt, params, handle)
    while not engine.idle:
        engine.step()
    return [list(handle)[-1] for handle in handles]
