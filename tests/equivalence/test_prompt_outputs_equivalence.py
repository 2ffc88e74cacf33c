"""What the engine takes of a prompt, hidden states and log-probabilities, is what one plain pass of the model gives."""

import math
import random
import time

import numpy as np
import pytest
import torch

from qwen2_audio.audio.mel import num_audio_tokens
from qwen2_audio.engine import scheduler
from qwen2_audio.engine.engine import Engine, EngineSettings
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.errors import ConfigError, ContextLengthError, PromptError
from qwen2_audio.inputs.collate import to_tensors
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.types import Heard, PoolingParams, SamplingParams

SHAPES = [(1, (180,), 5), (2, (), 9), (3, (90, 300), 4), (4, (), 70)]  # seed, mel frames of clips, words


@pytest.fixture(scope="module")
def loaded(tiny_chat):
    return tiny_chat.model, tiny_chat.processor.tokenizer


@pytest.fixture(scope="module")
def prompts(loaded):
    audio = loaded[1].convert_tokens_to_ids("<|AUDIO|>")
    return [prompt_of(audio, *shape) for shape in SHAPES]


def prompt_of(audio, seed, clips=(), words=6):
    rng, mels, heard = random.Random(seed), [], []
    ids = [rng.randrange(20, 300) for _ in range(words)]
    for frames in clips:
        ids += [audio] * num_audio_tokens(frames) + [rng.randrange(20, 300) for _ in range(3)]
        heard.append(Heard(frames / 100, num_audio_tokens(frames)))
        noise = np.random.default_rng(frames).standard_normal((128, 2 * (-(-frames // 2)) + 2))
        mels.append((noise * 0.3).astype(np.float32))
    return Prompt(ids, mels, list(clips), tuple(heard))


@torch.no_grad()
def reference(model, prompt):
    """logits [T, V] and the hidden states [T, H] of each layer, of one pass over one prompt."""
    out = model(**to_tensors([prompt], 0), output_hidden_states=True)
    return out.logits[0], [state[0].numpy() for state in out.hidden_states]


def finish(engine, handles):
    started = time.monotonic()
    while not engine.idle:
        engine.step()
        assert time.monotonic() - started < 60
    return [list(handle)[-1] for handle in handles]


def run(engine, asked):
    handles = [RequestHandle(params.n, engine.cancel) for _, params in asked]
    for (prompt, params), handle in zip(asked, handles, strict=True):
        engine.submit(prompt, params, handle)
    return finish(engine, handles)


@pytest.mark.parametrize(
    "settings",
    [
        EngineSettings(kv_tokens=2048),
        EngineSettings(kv_tokens=2048, max_num_batched_tokens=17),
        EngineSettings(kv_tokens=2048, max_num_seqs=1, enable_prefix_caching=False),
    ],
    ids=["together", "chunked", "alone"],
)
def test_hidden_states_are_those_of_a_plain_pass(loaded, prompts, settings):
    engine = Engine(*loaded, settings)
    wanted = [(-1, "last"), (0, "none"), (1, "mean"), (-1, "none"), (2, "last")]
    asked = [(p, PoolingParams(layer=layer, pooling=how, normalize=False)) for p in prompts for layer, how in wanted]
    answer = SamplingParams(temperature=0, max_tokens=12)
    everyone = run(engine, [*asked, (prompts[0], answer)])  # a decoding sequence in the same passes
    for (prompt, params), chunk in zip(asked, everyone, strict=False):
        states = reference(loaded[0], prompt)[1][params.layer]
        expected = {"last": states[-1], "mean": states.mean(0), "none": states}[params.pooling]
        assert chunk.embedding.dtype == np.float32
        np.testing.assert_allclose(chunk.embedding, expected, atol=1e-4)
        assert (chunk.finish_reason, chunk.usage.completion_tokens) == ("stop", 0)
    assert engine._scheduler.block_manager.used == 0 and engine._encoder_cache._users == {}


def test_a_normalised_row_has_length_1_and_is_the_same_in_any_company(loaded, prompts):
    params = PoolingParams()
    alone = [run(Engine(*loaded, EngineSettings(kv_tokens=2048)), [(p, params)])[0].embedding for p in prompts]
    together = run(Engine(*loaded, EngineSettings(kv_tokens=2048)), [(p, params) for p in prompts])
    for one, chunk in zip(alone, together, strict=True):
        assert np.linalg.norm(one) == pytest.approx(1.0, abs=1e-6)
        np.testing.assert_allclose(one, chunk.embedding, atol=1e-6)


def test_the_encoder_s_states_without_a_language_model(loaded, prompts):
    model = loaded[0]
    engine, clip = Engine(*loaded, EngineSettings(kv_tokens=2048)), prompts[2]
    asked = [
        PoolingParams("encoder", pooling="none", normalize=False),
        PoolingParams("projector", pooling="none", normalize=False),
        PoolingParams("encoder", 1, "none", normalize=False),
        PoolingParams("encoder", normalize=False),
    ]
    output, projected, layer, mean = (chunk.embedding for chunk in run(engine, [(clip, params) for params in asked]))
    with torch.no_grad():
        inputs = to_tensors([clip], 0)
        window = model.audio_tower.window
        for index, frames in enumerate(clip.frames):
            features = torch.zeros(1, 128, window)
            features[0, :, : clip.clips[index].shape[1]] = torch.from_numpy(clip.clips[index])
            encoder_frames = -(-frames // 2)
            mask = (torch.arange(window // 2) < encoder_frames)[None]
            out = model.audio_tower(features, mask, output_hidden_states=True)
            tokens, start = clip.heard[index].tokens, sum(one.tokens for one in clip.heard[:index])
            expected = out.last_hidden_state[0, :tokens]
            np.testing.assert_allclose(output[start : start + tokens], expected, atol=1e-4)
            with_projector = model.multi_modal_projector(expected)
            np.testing.assert_allclose(projected[start : start + tokens], with_projector, atol=1e-4)
            first = sum(-(-n // 2) for n in clip.frames[:index])
            expected = out.hidden_states[1][0, :encoder_frames]
            np.testing.assert_allclose(layer[first : first + encoder_frames], expected, atol=1e-4)
    np.testing.assert_allclose(mean, output.mean(0), atol=1e-5)
    assert inputs and engine.stats.prefill_tokens == 0, "no language model ran"


@pytest.mark.parametrize(("step", "rows"), [(None, 128), (13, 128), (None, 7)])
def test_log_probabilities_of_a_prompt(loaded, prompts, step, rows, monkeypatch):
    monkeypatch.setattr(scheduler, "LOGITS_ROWS", rows)
    model, tokenizer = loaded
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=2048, max_num_batched_tokens=step))
    params = SamplingParams(temperature=0, max_tokens=3, logprobs=0, prompt_logprobs=2)
    audio = tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    for again in range(2):  # the second time, all of it lies in the prefix cache
        for prompt, chunk in zip(prompts, run(engine, [(p, params) for p in prompts]), strict=True):
            shares = reference(model, prompt)[0].log_softmax(-1)
            assert len(chunk.prompt_logprobs) == len(prompt.ids)
            for position, (token, found) in enumerate(zip(prompt.ids, chunk.prompt_logprobs, strict=True)):
                if position == 0 or token == audio:
                    assert found is None
                    continue
                row = shares[position - 1]
                assert (found.token, len(found.top)) == (token, 2)
                assert found.logprob == pytest.approx(float(row[token]), abs=1e-4), (again, position)
                assert found.rank == int((row > row[token]).sum()) + 1
                assert [one.token for one in found.top] == row.topk(2).indices.tolist()
                assert [one.rank for one in found.top] == [1, 2]
    plain = run(
        Engine(*loaded, EngineSettings(kv_tokens=2048)), [(prompts[0], SamplingParams(temperature=0, max_tokens=3))]
    )
    with_them = run(engine, [(prompts[0], params)])
    assert plain[0].usage.completion_tokens == with_them[0].usage.completion_tokens


def test_a_step_has_rows_of_logits_for_all_sequences_together(loaded, prompts, monkeypatch):
    """Each row is as wide as the vocabulary: twenty prompts to score at once need no more memory than one."""
    monkeypatch.setattr(scheduler, "LOGITS_ROWS", 16)
    engine = Engine(*loaded, EngineSettings(kv_tokens=4096, max_num_batched_tokens=1024))
    rows, run_pass = [], engine._runner.run

    def counted(scheduled):
        result, num_logits = run_pass(scheduled)
        rows.append(sum(num_logits))
        return result, num_logits

    monkeypatch.setattr(engine._runner, "run", counted)
    audio = loaded[1].convert_tokens_to_ids("<|AUDIO|>")
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    asked = [(prompt_of(audio, 40 + seed, (), 50), params) for seed in range(10)]
    assert all(len(chunk.prompt_logprobs) == 50 for chunk in run(engine, asked))
    assert max(rows) <= 16 + len(asked) and sum(rows) >= 10 * 49


def test_the_end_of_a_prompt_shares_the_rest_with_others(loaded, prompts):
    """Choices that are scored behind one prompt compute it once."""
    model, tokenizer = loaded
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=2048))
    base = prompts[2]
    answers = [[31, 32], [31, 40, 41], [77]]
    asked = [
        (base.with_ids([*base.ids, *answer]), SamplingParams(
            temperature=0, max_tokens=1, logprobs=0, logprob_token_ids=(5, 6),
            prompt_logprobs=0, prompt_logprobs_start=-len(answer)))
        for answer in answers
    ]  # fmt: skip
    handles = [RequestHandle(1, engine.cancel) for _ in asked]
    for (prompt, params), handle in zip(asked, handles, strict=True):
        engine.submit(prompt, params, handle)
    while not engine.idle:
        engine.step()
    for (prompt, _), answer, handle in zip(asked, answers, handles, strict=True):
        (completion,) = handle.completions()
        shares = reference(model, prompt)[0].log_softmax(-1)
        expected = [float(shares[len(base.ids) - 1 + i, token]) for i, token in enumerate(answer)]
        assert [one.logprob for one in completion.prompt_logprobs] == pytest.approx(expected, abs=1e-4)
        asked_for = [one.logprob for one in completion.logprobs[0].asked]
        assert asked_for == pytest.approx(shares[-1, [5, 6]].tolist(), abs=1e-4)
    assert engine.stats.prefill_tokens <= len(base.ids) + sum(len(answer) + 1 for answer in answers)


def test_memory_that_is_short_changes_nothing(loaded, prompts):
    """Sequences that are sent back in the middle take each position once."""
    model, tokenizer = loaded
    engine = Engine(model, tokenizer, EngineSettings(kv_tokens=32 * 5, max_num_batched_tokens=9))
    audio = tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    long = [prompt_of(audio, seed, (), 40) for seed in range(20, 24)]
    params = SamplingParams(temperature=0, max_tokens=40, min_tokens=40, prompt_logprobs=0)
    asked = [(p, params) for p in long] + [(p, PoolingParams(pooling="none", normalize=False)) for p in long]
    chunks = run(engine, asked)
    assert engine.stats.preemptions > 0
    for (prompt, _), chunk in zip(asked, chunks, strict=True):
        logits, states = reference(model, prompt)
        if chunk.embedding is not None:
            np.testing.assert_allclose(chunk.embedding, states[-1], atol=1e-4)
        else:
            total = sum(one.logprob for one in chunk.prompt_logprobs if one is not None)
            shares = logits.log_softmax(-1)
            expected = sum(float(shares[i - 1, prompt.ids[i]]) for i in range(1, len(prompt.ids)))
            assert math.isclose(total, expected, abs_tol=1e-2)


def test_what_cannot_be_is_refused(loaded, prompts):
    engine = Engine(*loaded, EngineSettings(kv_tokens=2048))
    handle = RequestHandle(1, engine.cancel)
    with pytest.raises(ConfigError, match="layer is 7, and the language_model has the states 0 to 2"):
        engine.submit(prompts[0], PoolingParams(layer=7), handle)
    with pytest.raises(PromptError, match=r"source is 'encoder'.*there is no clip"):
        engine.submit(prompts[1], PoolingParams("encoder"), handle)
    with pytest.raises(ContextLengthError, match="context holds 2048"):
        engine.submit(Prompt([20] * 2049, [], [], ()), PoolingParams(), handle)
    with pytest.raises(ConfigError, match="prompt_logprobs_start is -10, and the prompt has 9 positions"):
        engine.submit(prompts[1], SamplingParams(prompt_logprobs=0, prompt_logprobs_start=-10), handle)
    with pytest.raises(ConfigError, match="logprob_token_ids has 512; expected ids from 0 to 511"):
        engine.submit(prompts[1], SamplingParams(logprobs=0, logprob_token_ids=(3, 512)), handle)
    assert engine.idle and not handle.done
    for wrong in ({"source": "ears"}, {"pooling": "max"}, {"layer": 1.5}):
        with pytest.raises(ConfigError):
            PoolingParams(**wrong)


def test_a_cancelled_clip_is_not_encoded(loaded, prompts):
    engine = Engine(*loaded, EngineSettings(kv_tokens=2048))
    first, second = RequestHandle(1, engine.cancel), RequestHandle(1, engine.cancel)
    for handle in (first, second):
        engine.submit(prompts[0], PoolingParams("encoder"), handle)
    first.cancel()
    chunks = finish(engine, [first, second])
    assert [chunk.finish_reason for chunk in chunks] == ["cancelled", "stop"]
    assert chunks[0].embedding is None and chunks[1].embedding.shape == (32,)
