"""Decode steps of fixed shape, on the CPU: the numbers of the ordinary path, which passes go this way, what is kept,
and whole conversations. What a CUDA graph asks of them: test_engine_capture."""

import copy
import random

import numpy as np
import pytest
import torch

from kit.fixed_shapes import PASTS, Spelling, filled_storage, ordinary, packed_of, small_model
from qwen2_audio.audio.mel import num_audio_tokens
from qwen2_audio.distributed import tensor_parallel
from qwen2_audio.engine.engine import Engine, EngineSettings
from qwen2_audio.engine.executor import cuda_graphs as graphs
from qwen2_audio.engine.executor import model_runner
from qwen2_audio.engine.executor.cuda_graphs import (
    GraphRunner,
    batch_bucket,
    context_bucket,
    has_fixed_shape,
    reason_against_graphs,
)
from qwen2_audio.engine.executor.forward_batch import ForwardBatch
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.model.paged import PagedStorage
from qwen2_audio.quantize.scheme import Scheme
from qwen2_audio.types import Heard, SamplingParams


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture
def filled(model):
    return filled_storage(model)


def test_buckets_hold_what_they_must_and_waste_at_most_so_much():
    assert [batch_bucket(n) for n in (1, 2, 3, 4, 5, 8, 9, 16, 17, 25, 32, 33)] == [
        1, 2, 4, 4, 8, 8, 16, 16, 24, 32, 32, 40
    ]  # fmt: skip
    assert [context_bucket(n) for n in (1, 4, 5, 6, 7, 9, 13, 17, 25)] == [4, 4, 6, 6, 8, 12, 16, 24, 32]
    for blocks in range(1, 300):
        assert blocks <= context_bucket(blocks) <= max(4, 1.5 * blocks)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_step_gives_the_logits_of_the_ordinary_pass(model, filled, implementation):
    storage, tables, tokens = filled
    other = copy.deepcopy(storage)
    model.set_attn_implementation(implementation)
    expected = ordinary(model, other, packed_of(tables, PASTS), tokens)
    decoder = GraphRunner(model, storage)
    with torch.no_grad():
        found = decoder.run(packed_of(tables, PASTS), tokens)
    model.set_attn_implementation("sdpa")
    assert decoder.shapes == [(8, 4)]  # three rows stand for nobody
    torch.testing.assert_close(found.logits, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))
    assert found.greedy == [(token, True) for token in expected.argmax(-1).tolist()]
    for mine, theirs in zip(storage.buffers, other.buffers, strict=True):
        torch.testing.assert_close(mine[:40], theirs[:40], rtol=0, atol=1e-5)
    assert storage.keys[0][storage.scratch].any(), "rows that stand for nobody write there"


@torch.no_grad()
def test_flash_attention_which_takes_no_mask_is_not_used_over_gathered_blocks(model, filled):
    storage, tables, tokens = filled
    expected = ordinary(model, copy.deepcopy(storage), packed_of(tables, PASTS), tokens)
    text = copy.deepcopy(model)
    text.language_model.config._attn_implementation = "flash_attention_2"  # which is not installed: it would raise
    for layer in text.language_model.model.layers:
        layer.self_attn.config = text.language_model.config
    found = ordinary(text, copy.deepcopy(storage), packed_of(tables, PASTS), tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    found = GraphRunner(text, storage).run(packed_of(tables, PASTS), tokens)
    torch.testing.assert_close(found.logits, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_bfloat16_too(model, filled):
    """As on a GPU: logits in float32 from a bfloat16 model, near those of the ordinary pass."""
    narrow = copy.deepcopy(model).bfloat16()
    storage, tables, tokens = filled
    storage = copy.deepcopy(storage)
    storage.dtype = torch.bfloat16
    for side in (storage.keys, storage.values):
        side[:] = [one.bfloat16() for one in side]
    expected = ordinary(narrow, copy.deepcopy(storage), packed_of(tables, PASTS), tokens).float()
    found = GraphRunner(narrow, storage).run(packed_of(tables, PASTS), tokens)
    assert found.logits.dtype == torch.float32
    torch.testing.assert_close(found.logits, expected, rtol=0, atol=0.05 * float(expected.abs().max()))


@torch.no_grad()
def test_what_nobody_stands_for_disturbs_nobody(model, filled):
    """NaN in the scratch block, and in blocks of others, changes nothing."""
    storage, tables, tokens = filled
    expected = GraphRunner(model, copy.deepcopy(storage)).run(packed_of(tables, PASTS), tokens).logits
    own = {block for table in tables for block in table}
    for buffer in storage.buffers:
        buffer[[block for block in range(41) if block not in own]] = torch.nan
    found = GraphRunner(model, storage).run(packed_of(tables, PASTS), tokens)
    torch.testing.assert_close(found.logits, expected, rtol=0, atol=0)


@torch.no_grad()
def test_logits_that_are_no_numbers_are_told(model, filled):
    storage, tables, tokens = filled
    for buffer in storage.keys:
        buffer[tables[2][0]] = torch.nan  # a block of the third alone
    found = GraphRunner(model, storage).run(packed_of(tables, PASTS), tokens)
    assert [finite for _, finite in found.greedy] == [True, True, False, True, True]


# -- which passes are run like this


def test_what_speaks_against_fixed_shapes(model, filled, monkeypatch):
    storage = filled[0]
    assert reason_against_graphs(model, storage) is None
    assert "native" in reason_against_graphs(model, PagedStorage(model.config.text_config, 1, dtype=torch.int8))
    quantised = copy.deepcopy(model)
    Scheme.for_model(quantised, "int8").install(quantised)
    assert "quantised" in reason_against_graphs(quantised, storage)
    training = copy.deepcopy(model).train()
    assert "training" in reason_against_graphs(training, storage)
    monkeypatch.setattr(graphs, "tensor_parallel_group", lambda model: tensor_parallel.TensorParallelGroup(None))
    assert "processes" in reason_against_graphs(model, storage)


def test_native_storage_is_left_to_the_native_kernels(model):
    from qwen2_audio.native import fused
    from qwen2_audio.native.paged import NativePagedStorage

    if fused.kernels() is None:
        pytest.skip("no kernels here")
    assert "native" in reason_against_graphs(model, NativePagedStorage(model.config.text_config, 1))


@torch.no_grad()
def test_prompts_and_guesses_go_the_ordinary_way(model, filled):
    storage, tables, tokens = filled
    assert has_fixed_shape(ForwardBatch([[0], [1]], [3, 4], [1, 1], [1, 1]))
    prefill, guessed, unfinished = (
        ForwardBatch([[0], [1]], [3, 4], [1, 5], [1, 1]),
        ForwardBatch([[0], [1]], [3, 4], [1, 3], [1, 3]),
        ForwardBatch([[0], [1]], [3, 4], [1, 1], [1, 0]),
    )
    decoder = GraphRunner(model, storage)
    for packed in (prefill, guessed, unfinished):
        assert not has_fixed_shape(packed)
        assert decoder.run(packed, [1] * sum(packed.query_lens)) is None
    hook = model.language_model.model.layers[1].register_forward_hook(lambda *_: None)
    assert decoder.run(packed_of(tables, PASTS), tokens) is None
    hook.remove()
    assert decoder.run(packed_of(tables, PASTS), tokens) is not None


def test_off_the_gpu_there_are_none(model, filled):
    assert GraphRunner.of(model, filled[0]) is None


# -- what is kept


@torch.no_grad()
def test_a_step_is_prepared_once_for_its_shape_and_the_oldest_goes(model, filled, monkeypatch):
    storage, tables, tokens = filled
    prepared, ran = [], []

    def prepare(run):
        prepared.append(run)
        run()  # as the warm-up of a capture does

        def again():
            ran.append(run)
            run()

        return again

    monkeypatch.setattr(graphs, "GRAPHS", 2)
    decoder = GraphRunner(model, storage, prepare)
    both, one = packed_of(tables[:2], PASTS[:2]), packed_of(tables[3:4], PASTS[3:4])
    five = packed_of(tables, PASTS)
    for packed in (both, one, both, five, both):
        asked = tokens[: len(packed.num_computed)]
        expected = ordinary(model, copy.deepcopy(storage), packed, asked)
        torch.testing.assert_close(decoder.run(packed, asked).logits, expected, rtol=0, atol=1e-4)
    assert decoder.shapes == [(8, 4), (2, 4)]  # (1, 4) was the one not used for longest
    assert (len(prepared), len(ran)) == (3, 5)
    decoder.clear()
    assert decoder.shapes == []


@torch.no_grad()
def test_a_capture_that_fails_turns_graphs_off_and_nothing_else(model, filled, caplog):
    storage, tables, tokens = filled

    def prepare(run):
        raise RuntimeError("operation not permitted when stream is capturing")

    decoder = GraphRunner(model, storage, prepare)
    assert decoder.run(packed_of(tables, PASTS), tokens) is None
    assert "CUDA graphs are off" in caplog.text and "not permitted" in decoder.disabled_because
    assert decoder.run(packed_of(tables, PASTS), tokens) is None


# -- through the engine


def engine_of(model, monkeypatch, settings, *, fixed):
    """An engine over an ordinary paged cache; `fixed`: with steps of fixed shape, as on a GPU."""
    monkeypatch.setattr(model_runner, "storage_for", lambda language_model, blocks: language_model.new_paged(blocks))
    made = Engine(model, Spelling(), settings)
    if fixed:
        made._runner._graph_runner = GraphRunner(model, made._runner.storage)
    return made


def answers(engine, asked):
    handles = [RequestHandle(params.n, engine.cancel) for _, params in asked]
    for (prompt, params), handle in zip(asked, handles, strict=True):
        engine.submit(prompt, params, handle)
    for _ in range(3000):
        if engine.idle:
            break
        engine.step()
    return [[answer.text for answer in handle.completions()] for handle in handles]


def conversations():
    rng = random.Random(7)
    made = []
    for number, words in enumerate([3, 40, 31, 32, 64, 7, 90, 12, 5, 150]):
        ids = [rng.randrange(0, 190) for _ in range(words)]
        params = SamplingParams(temperature=0, max_tokens=20 + 9 * number)
        if number == 5:
            params = SamplingParams(temperature=1.0, seed=3, n=2, max_tokens=40)
        if number == 6:
            params = SamplingParams(temperature=0, max_tokens=50, repetition_penalty=1.3, logprobs=2)
        made.append((Prompt(ids, [], [], ()), params))
    frames = 57
    heard = Heard(frames / 100, num_audio_tokens(frames))
    mel = np.random.default_rng(1).standard_normal((8, 60)).astype(np.float32)
    asked = [7, *[190] * heard.tokens, 8, 9]
    for words in (asked, [*asked, 10]):
        made.append((Prompt(words, [mel], [frames], (heard,)), SamplingParams(temperature=0, max_tokens=60)))
    return made


@pytest.mark.parametrize(
    "settings",
    [
        EngineSettings(kv_tokens=4096),
        EngineSettings(kv_tokens=4096, max_num_batched_tokens=17, max_num_seqs=5),
        EngineSettings(kv_tokens=32 * 14),
        EngineSettings(kv_tokens=4096, num_prompt_lookup_tokens=3),
    ],
    ids=["together", "chunked", "sent back", "guessing"],
)
def test_whole_conversations_come_out_the_same(model, monkeypatch, settings):
    expected = answers(engine_of(model, monkeypatch, settings, fixed=False), conversations())
    engine = engine_of(model, monkeypatch, settings, fixed=True)
    assert answers(engine, conversations()) == expected
    assert len(engine._runner._graph_runner.shapes) > 4
    assert len({text for texts in expected for text in texts}) == 13, "equal answers would prove little"
    assert engine._scheduler.block_manager.used == 0


def test_other_weights_mean_other_graphs(monkeypatch):
    model = small_model()
    engine = engine_of(model, monkeypatch, EngineSettings(kv_tokens=1024), fixed=True)
    asked = [(Prompt([3, 4, 5], [], [], ()), SamplingParams(temperature=0, max_tokens=12))]
    before = answers(engine, asked)
    made = engine._runner._graph_runner._graphs
    first = next(iter(made.values()))
    with torch.no_grad():
        model.language_model.lm_head.weight = torch.nn.Parameter(model.language_model.lm_head.weight.flip(0))
    after = answers(engine, asked)
    assert after != before
    assert next(iter(made.values())) is not first
    assert after == answers(engine_of(model, monkeypatch, EngineSettings(kv_tokens=1024), fixed=False), asked)
