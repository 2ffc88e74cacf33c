import numpy as np
import pytest
import torch

from qwen2_audio.engine.engine import Engine, EngineSettings
from qwen2_audio.engine.executor.forward_batch import ForwardOutput
from qwen2_audio.engine.prompt_outputs import HiddenStates, PromptLogprobs, pool
from qwen2_audio.engine.request import RequestHandle
from qwen2_audio.errors import ConfigError, NumericsError
from qwen2_audio.inputs.prompt import Prompt
from qwen2_audio.types import Chunk, PoolingParams, SamplingParams

AUDIO = 9
STATES = torch.arange(20.0).view(10, 2)  # of ten positions, two wide


class Tokenizer:
    def token_bytes(self, token):
        return b"x"


def passed(start, end):
    """A pass over positions start .. end - 1, behind three columns of another sequence."""
    return ForwardOutput(torch.empty(0, 4), [], (torch.cat([torch.full((3, 2), -1.0), STATES[start:end]]),))


def taken(output, *chunks):
    for start, end in chunks:
        output.take(start, passed(start, end), range(0), range(3, 3 + end - start))
    chunk = Chunk("")
    output.put_into(chunk)
    return chunk.embedding


@pytest.mark.parametrize("chunks", [[(0, 10)], [(0, 4), (4, 10)], [(0, 6), (2, 7), (7, 10)], [(0, 6), (0, 3), (3, 10)]])
def test_each_position_is_taken_once(chunks):
    """The last two: after a preemption some positions are computed again."""
    every = taken(HiddenStates(PoolingParams(pooling="none", normalize=False), 10), *chunks)
    np.testing.assert_array_equal(every, STATES)
    mean = taken(HiddenStates(PoolingParams(pooling="mean", normalize=False), 10), *chunks)
    np.testing.assert_array_equal(mean, STATES.mean(0))
    last = taken(HiddenStates(PoolingParams(normalize=False), 10), *chunks)
    np.testing.assert_array_equal(last, STATES[-1])


def test_states_that_are_no_numbers():
    output = HiddenStates(PoolingParams(), 1)
    with pytest.raises(NumericsError, match="not numbers"):
        output.add(torch.tensor([[1.0, float("nan")]]))


def test_a_vector_of_zeros_stays_one():
    assert pool(np.zeros((2, 3), np.float32), PoolingParams()).tolist() == [0, 0, 0]


def test_rows_of_clips_are_not_asked_for():
    """Rows before text only: of positions 0, 4 and 5, behind which 1, 2 and 3 stand; the last one's is the answer's."""
    prompt = Prompt([0, 1, AUDIO, AUDIO, AUDIO, 2, 3], [], [], ())
    output = PromptLogprobs(prompt, SamplingParams(prompt_logprobs=0), AUDIO, Tokenizer())
    assert [output.num_logits(start, start + 2) for start in (0, 2, 4)] == [2, 0, 2]
    assert output.num_logits(0, 7) == 7 and output.num_logits(6, 7) == 0
    from_the_end = PromptLogprobs(
        prompt, SamplingParams(prompt_logprobs=0, prompt_logprobs_start=-1), AUDIO, Tokenizer()
    )
    assert from_the_end.start == 5 and from_the_end.num_logits(0, 6) == 1


@pytest.fixture
def engine(tiny_chat):
    return Engine(tiny_chat.model, tiny_chat.processor.tokenizer, EngineSettings(kv_tokens=512))


TEXT = Prompt([20, 21, 22], [], [], ())


@pytest.mark.parametrize("start", [3, -4])
def test_a_start_outside_the_prompt_is_refused_before_anything_is_made(engine, start):
    params = SamplingParams(prompt_logprobs=0, prompt_logprobs_start=start)
    message = f"prompt_logprobs_start is {start}, and the prompt has 3 positions"
    with pytest.raises(ConfigError, match=message):
        engine.check_request(TEXT, params)
    with pytest.raises(ConfigError, match=message):
        engine.submit(TEXT, params, RequestHandle(1, engine.cancel))
    for start in (2, -3):
        engine.check_request(TEXT, SamplingParams(prompt_logprobs=0, prompt_logprobs_start=start))


def test_a_request_that_is_refused_late_leaves_no_matcher(engine, monkeypatch):
    pytest.importorskip("llguidance")

    def fail(*given):
        raise ConfigError("too late")

    params = SamplingParams(regex="a+", prompt_logprobs=0, max_tokens=2)
    with monkeypatch.context() as patch:
        patch.setattr("qwen2_audio.engine.engine.PromptLogprobs", fail)
        with pytest.raises(ConfigError, match="too late"):
            engine.submit(TEXT, params, RequestHandle(1, engine.cancel))
    assert engine.idle and not engine._forced_tokens.matchers
    handle = RequestHandle(1, engine.cancel)
    engine.submit(TEXT, params, handle)
    assert len(engine._forced_tokens.matchers) == 1
    while not engine.idle:
        engine.step()
    assert handle.completions()[0].text == "aa" and not engine._forced_tokens.matchers


def test_what_goes_wrong_at_the_end_is_the_error_of_the_last_chunk(engine, monkeypatch):
    def fail(*given):
        raise MemoryError("no room")

    monkeypatch.setattr("qwen2_audio.engine.prompt_outputs.pool", fail)
    handle = RequestHandle(1, engine.cancel)
    engine.submit(TEXT, PoolingParams(), handle)
    for _ in range(5):
        if not engine.idle:
            engine.step()
    assert engine.idle and handle.done
    (last,) = handle
    assert last.finish_reason == "error" and isinstance(last.error, MemoryError)
    assert engine.stats.finished == {"error": 1}
