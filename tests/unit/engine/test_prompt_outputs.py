import numpy as np
import pytest
import torch

from qwen2_audio.engine.executor.forward_batch import ForwardOutput
from qwen2_audio.engine.prompt_outputs import HiddenStates, PromptLogprobs, pool
from qwen2_audio.errors import NumericsError
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
