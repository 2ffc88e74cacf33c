"""What an engine does with the checkpoint's own options, and when weights change under it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qwen2_audio.audio.mel import num_audio_tokens
from qwen2_audio.engine import engine as module
from qwen2_audio.engine.engine import Engine, EngineSettings
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.types import Heard, SamplingParams

TEXT = Prompt([5, 6, 7, 8, 9], [], [], ())


def loaded(folder, **options):
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder, **options)
    return model, Qwen2AudioProcessor.from_pretrained(folder).tokenizer


def ask(engine, prompt=TEXT, **params):
    handle = RequestHandle(params.get("n", 1), engine.cancel)
    engine.submit(prompt, SamplingParams(**{"temperature": 0, "max_tokens": 6, **params}), handle)
    while not engine.idle:
        engine.step()
    return list(handle)


def said(engine, prompt=TEXT, **params):
    return [one.token for chunk in ask(engine, prompt, logprobs=0, **params) for one in chunk.logprobs]


def test_a_requests_bias_stands_beside_the_checkpoints(tiny_checkpoint):
    model, tokenizer = loaded(tiny_checkpoint)
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=256))
    first = said(engine)[0]
    model.generation_config.sequence_bias = [[[first], -60.0]]
    assert said(engine)[0] != first
    assert said(engine, logit_bias={(first + 1) % 300: -1.0})[0] != first
    assert said(engine, logit_bias={first: 100.0})[0] == first


def test_beams_of_the_checkpoint_are_said_not_to_be_drawn(tiny_checkpoint):
    model, tokenizer = loaded(tiny_checkpoint)
    model.generation_config.num_beams = 4
    with pytest.warns(UserWarning, match=r"asks for num_beams=4; here tokens are drawn one by one"):
        Engine(model, tokenizer)


@pytest.mark.parametrize("seed", [(1 << 64) - 1, -(1 << 63), 0])
def test_every_seed_that_torch_takes_draws_several_answers(tiny_checkpoint, seed):
    engine = Engine(*loaded(tiny_checkpoint), EngineSettings(kv_tokens=256))
    ends = [chunk for chunk in ask(engine, temperature=1.0, seed=seed, n=2) if chunk.finish_reason]
    assert [chunk.error for chunk in ends] == [None, None]


def test_min_length_counts_a_clip_as_one_position(tiny_checkpoint):
    model, tokenizer = loaded(tiny_checkpoint)
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=256))
    prompt = clip_prompt(tokenizer)
    eos = model.generation_config.eos_ids[0]
    model.generation_config.min_length = len(prompt.ids) - prompt.audio_tokens + 1 + 4
    assert eos not in said(engine, prompt, logit_bias={eos: 100.0})[:4]
    assert said(engine, prompt, logit_bias={eos: 100.0})[4:] == [eos]


def clip_prompt(tokenizer) -> Prompt:
    clip = np.random.default_rng(1).standard_normal((128, 162)).astype(np.float32)
    tokens = num_audio_tokens(160)
    ids = [5, *[tokenizer.convert_tokens_to_ids("<|AUDIO|>")] * tokens, 6, 7]
    return Prompt(ids, [clip], [160], (Heard(1.6, tokens),))


def test_a_clip_encoded_with_other_weights_is_encoded_anew(tiny_checkpoint):
    model, tokenizer = loaded(tiny_checkpoint)
    prompt, engine = clip_prompt(tokenizer), Engine(model, tokenizer, EngineSettings(kv_tokens=256))
    ask(engine, prompt)
    (digest,) = prompt.digests
    before = engine._encoder_cache._cached[digest]
    ask(engine, prompt)
    assert engine._encoder_cache._cached[digest] is before, "with the same weights it is kept"
    with torch.no_grad():
        for layer in model.audio_tower.layers:
            layer.fc2.weight.mul_(-1.0)
    answer = said(engine, prompt)
    fresh = Engine(model, tokenizer, EngineSettings(kv_tokens=256))
    assert said(fresh, prompt) == answer
    after = engine._encoder_cache._cached[digest]
    assert torch.equal(after, fresh._encoder_cache._cached[digest]) and not torch.equal(after, before)
    assert engine.stats.clips_encoded == 2


def test_weights_that_are_mended_leave_nothing_of_the_nan_behind(tiny_checkpoint):
    model, tokenizer = loaded(tiny_checkpoint, dtype="bfloat16")
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=128))
    healthy = said(engine)
    weight = model.language_model.model.layers[0].input_layernorm.weight
    whole = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    assert ask(engine, Prompt(list(range(5, 95)), [], [], ()))[-1].finish_reason == "error"
    with torch.no_grad():
        weight.copy_(whole)
    assert said(engine) == healthy


def test_a_cancelled_clip_is_not_encoded_to_its_end(tiny_checkpoint, monkeypatch):
    """Nobody waits for it: what it would cost belongs to the others."""
    monkeypatch.setattr(module, "ENCODER_SECONDS", 0.0)  # a layer a step
    model, tokenizer = loaded(tiny_checkpoint)
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=256))
    handles = [RequestHandle(1, engine.cancel) for _ in range(3)]
    for handle in handles[:2]:
        engine.submit(clip_prompt(tokenizer), SamplingParams(temperature=0, max_tokens=2), handle)
    while not engine._encoder_cache._jobs:
        engine.step()
    handles[0].cancel()
    assert engine._encoder_cache._jobs, "the second request waits for the same clip"
    handles[1].cancel()
    assert not engine._encoder_cache.busy
    ask(engine, clip_prompt(tokenizer))
    assert engine.stats.clips_encoded == 1
