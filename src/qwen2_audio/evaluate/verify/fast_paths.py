"""What users run, against the readable path: native kernels, quantised weights, caches of fewer bits, the engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ...engine.engine import Engine, EngineSettings
from ...engine.request import RequestHandle
from ...errors import ConfigError
from ...inputs.prompt import Prompt
from ...native import library
from ...native.layers import Native
from ...quantize.linear import QuantizedLinear
from ...types import SamplingParams, TokenLogprob
from .subject import (
    NEW_TOKENS,
    Model,
    Subject,
    Truth,
    distance,
    fast,
    logits_by_pieces,
    logits_of,
    row_distance,
)
from .table import Check, NotHere, Row

PART = "machine"
LOGPROB = "nats a token"
KV_BOUNDS = {"float32": 1e-4, "float16": 1e-3, "int8": 1.5e-2}


def engine_rows(subject: Subject, truth: Truth, device: torch.device) -> Iterator[Row]:
    """The engine on a float32 model: paged cache, batch, prefix cache, drafts. On a CPU with the native kernels."""
    model = fast(subject, device)
    name, prompts = subject.name, subject.prompts
    alone: list[list[TokenLogprob]] = []

    def kernels() -> float:
        if device.type != "cpu" or library.load().library is None:
            raise NotHere("native kernels are for CPUs" if device.type != "cpu" else library.load().reason)
        return distance([logits_by_pieces(model, prompt) for prompt in prompts], truth.logits)

    def paged() -> tuple[float, str]:
        for prompt in prompts:
            engine = new_engine(model, subject, max_num_batched_tokens=64)
            alone.extend(answers(engine, [prompt]))
        return against(alone, truth)

    def batch() -> float:
        together = answers(new_engine(model, subject), prompts)
        return apart(together, alone)

    def prefix() -> float:
        engine = new_engine(model, subject)
        answers(engine, prompts[:1])
        before = engine.stats.prefill_tokens
        again = answers(engine, prompts[:1])
        if engine.stats.prefill_tokens - before >= len(prompts[0].ids):
            return float("inf")  # nothing was taken from the cache
        return apart(again, alone[:1])

    def lookup() -> float:
        engine = new_engine(model, subject, num_prompt_lookup_tokens=3)
        found = answers(engine, prompts)
        if not engine.stats.lookup_tokens_proposed:
            raise NotHere("the answers repeat nothing that stands in the prompts")
        return apart(found, alone)

    yield Check(PART, "kernels: float32", 1e-4).row(name, kernels)
    yield Check(PART, "engine: paged cache, prompts in pieces", 1e-3, LOGPROB).row(name, paged)
    yield Check(PART, "engine: alone and in a batch", 1e-4, LOGPROB).row(name, batch)
    yield Check(PART, "engine: again, from the prefix cache", 1e-4, LOGPROB).row(name, prefix)
    yield Check(PART, "engine: prompt lookup", 1e-4, LOGPROB).row(name, lookup)


def kv_rows(subject: Subject, truth: Truth, device: torch.device) -> Iterator[Row]:
    """KV caches in 32, 16 and 8 bits that native attention reads."""
    model: Model | None = None
    for kind, bound in KV_BOUNDS.items():

        def measure(kind: str = kind) -> float:
            nonlocal model
            if device.type != "cpu" or library.load().library is None:
                raise NotHere("for CPUs with native kernels")
            if model is None:
                model = fast(subject, device, kv_cache=kind)
            text: Any = model.language_model
            text.kv_cache_dtype = kind
            return distance([logits_by_pieces(model, prompt) for prompt in subject.prompts], truth.logits)

        yield Check(PART, f"KV cache: {kind}", bound).row(subject.name, measure)


def quantized_rows(subject: Subject, device: torch.device) -> Iterator[Row]:
    """Kernels of quantised weights against the same weights, dequantised: they differ by 8-bit inputs."""
    for scheme in ("int8", "int4"):
        model: Model | None = None
        if device.type == "cpu" and library.load().library is not None:
            with contextlib.suppress(ConfigError):
                model = fast(subject, device, quantize=scheme)

        def kernels(model: Model | None = model) -> float:
            if model is None:
                raise NotHere("for CPUs with native kernels")
            prompts = subject.prompts
            found = logits_of(model, prompts), [logits_by_pieces(model, prompt) for prompt in prompts]
            expected = dequantized_logits(model, prompts)
            return max(row_distance(logits, expected) for logits in found)

        def linear(model: Model | None = model) -> float:
            if model is None:
                raise NotHere("for CPUs with native kernels")
            return max(_product_distance(module) for module in _one_of_each_shape(model))

        def batch(model: Model | None = model) -> float:
            if model is None:
                raise NotHere("for CPUs with native kernels")
            together = answers(new_engine(model, subject), subject.prompts)
            alone = [answers(new_engine(model, subject), [prompt])[0] for prompt in subject.prompts]
            return apart(together, alone)

        yield Check(PART, f"{scheme} kernels: one product", 5e-2, "of a row's size").row(subject.name, linear)
        yield Check(PART, f"{scheme} kernels: logits", 1e-1, "of a row's size").row(subject.name, kernels)
        yield Check(PART, f"{scheme}: alone and in a batch", 0, LOGPROB).row(subject.name, batch)


def _one_of_each_shape(model: Model) -> list[QuantizedLinear]:
    linears = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    return list({(m.in_features, m.out_features, m.bits): m for m in linears}.values())


@torch.no_grad()
def _product_distance(module: QuantizedLinear) -> float:
    """Of 1 row and of 40."""
    x = torch.randn(41, module.in_features, generator=torch.Generator().manual_seed(module.out_features))
    found = torch.cat([module(x[:1]), module(x[1:])])
    with dequantizing([module]):
        return row_distance([found], [module(x)])


@contextlib.contextmanager
def dequantizing(modules: Sequence[QuantizedLinear]) -> Iterator[None]:
    """Inside this context the modules multiply by their dequantised weights."""
    for module in modules:
        module.dequantizes = True
    try:
        yield
    finally:
        for module in modules:
            module.dequantizes = False


def dequantized_logits(model: Model, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
    """The logits of a quantised model without its kernels."""
    layers = [module for module in model.modules() if isinstance(module, Native)]
    for layer in layers:
        layer._bound_weights = None  # bound before its Linears changed
    with dequantizing([module for module in model.modules() if isinstance(module, QuantizedLinear)]):
        return logits_of(model, prompts)


def new_engine(model: Model, subject: Subject, **settings: Any) -> Engine:
    return Engine(model, subject.processor.tokenizer, EngineSettings(kv_tokens=2048, **settings))


def answers(engine: Engine, prompts: Sequence[Prompt]) -> list[list[TokenLogprob]]:
    """The tokens of the greedy answers to prompts that are asked at once. Raises what the engine ended one with."""
    params = SamplingParams(
        temperature=0, max_tokens=NEW_TOKENS, min_tokens=NEW_TOKENS, repetition_penalty=1.0, logprobs=0
    )
    handles = [RequestHandle(1, engine.cancel) for _ in prompts]
    for prompt, handle in zip(prompts, handles, strict=True):
        engine.submit(prompt, params, handle)
    while not engine.idle:
        engine.step()
    return [list(handle.completions()[0].logprobs) for handle in handles]


def against(found: Sequence[Sequence[TokenLogprob]], truth: Truth) -> tuple[float, str]:
    """The largest difference of a log-probability from the readable path's; infinite where a token is another."""
    worst = 0.0
    for tokens, expected, logprobs in zip(found, truth.tokens, truth.logprobs, strict=True):
        if [token.token for token in tokens] != expected:
            return float("inf"), f"tokens {[token.token for token in tokens]}, expected {expected}"
        worst = max([worst, *(abs(t.logprob - p) for t, p in zip(tokens, logprobs, strict=True))])
    return worst, ""


def apart(found: Sequence[Sequence[TokenLogprob]], expected: Sequence[Sequence[TokenLogprob]]) -> float:
    """The largest difference of a log-probability between two runs; infinite where a token is another."""
    if not expected:
        return float("nan")  # what it is compared with failed
    pairs = [pair for one, other in zip(found, expected, strict=True) for pair in zip(one, other, strict=True)]
    if any(one.token != other.token for one, other in pairs):
        return float("inf")
    return max(abs(one.logprob - other.logprob) for one, other in pairs)
