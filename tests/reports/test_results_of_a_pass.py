"""Results are dicts, tuples when asked, and pytrees: what Trainer, accelerate, DataParallel and torch.export expect."""

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from torch.utils import _pytree as pytree

from kit.tiny import tiny_model
from qwen2_audio.model.outputs import EncoderOutput, Qwen2AudioCausalLMOutput

ONE, TWO = torch.ones(2, 3), torch.full((2,), 2.0)


def result():
    return Qwen2AudioCausalLMOutput(logits=ONE, attention_mask=TWO)


def test_a_dict_of_what_is_there():
    out = result()
    assert isinstance(out, dict)
    assert dict(out) == {"logits": ONE, "attention_mask": TWO}
    assert {**out}.keys() == {"logits", "attention_mask"}
    assert out["logits"] is out.logits is out[0] is out[:1][0]
    assert out.to_tuple()[1] is TWO
    with pytest.raises(KeyError):
        out["loss"]
    with pytest.raises(IndexError):
        out[2]


def test_a_field_that_is_set_enters_and_leaves():
    out = result()
    out.loss = TWO
    out["attention_mask"] = None
    assert list(out) == ["logits", "loss"]
    assert out.attention_mask is None
    with pytest.raises(KeyError, match="has no field 'lgits'"):
        out["lgits"] = ONE
    for change in (lambda: out.pop("loss"), lambda: out.update(loss=ONE), lambda: out.__delitem__("loss")):
        with pytest.raises(TypeError, match="set one to None instead"):
            change()


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda out: pickle.loads(pickle.dumps(out))])
def test_copies(again):
    other = again(result())
    assert type(other) is Qwen2AudioCausalLMOutput
    assert list(other) == ["logits", "attention_mask"]
    assert torch.equal(other.logits, ONE)


def test_made_from_pairs_alone():
    """accelerate: `type(out)({name: converted})`; DataParallel: `type(out)((name, gathered) for name in out)`."""
    for made in (type(result())(dict(result())), type(result())((name, result()[name]) for name in result())):
        assert list(made) == ["logits", "attention_mask"]
        assert made.loss is None


def test_accelerate_converts_it():
    operations = pytest.importorskip("accelerate.utils.operations")
    out = operations.convert_to_fp32(Qwen2AudioCausalLMOutput(logits=ONE.half()))
    assert type(out) is Qwen2AudioCausalLMOutput
    assert out.logits.dtype == torch.float32


def test_a_pytree():
    leaves, spec = pytree.tree_flatten(result())
    assert [leaf is tensor for leaf, tensor in zip(leaves, (ONE, TWO), strict=True)] == [True, True]
    doubled = pytree.tree_unflatten([2 * leaf for leaf in leaves], spec)
    assert type(doubled) is Qwen2AudioCausalLMOutput
    assert torch.equal(doubled.logits, 2 * ONE)
    assert doubled.loss is None


# The encoder exported and traced


@pytest.fixture
def encoder():
    return tiny_model(noise=0.2).audio_tower


@torch.no_grad()
def test_export(encoder):
    mel, other = torch.randn(2, 8, 60), torch.randn(5, 8, 60)
    clips = torch.export.Dim("clips")
    exported = torch.export.export(encoder, (mel,), dynamic_shapes={"input_features": {0: clips}}, strict=False)
    out = exported.module()(other)
    assert isinstance(out, EncoderOutput)
    torch.testing.assert_close(out.last_hidden_state, encoder(other).last_hidden_state)
    mask = torch.tensor([[1] * 20 + [0] * 10, [1] * 30])
    masked = torch.export.export(encoder, (mel, mask)).module()(mel, mask)
    torch.testing.assert_close(masked.last_hidden_state, encoder(mel, mask).last_hidden_state)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_trace(encoder, implementation):
    """As in the reference: with strict=False, or with a config that asks for tuples."""
    encoder.config._attn_implementation = implementation
    mel, other = torch.randn(1, 8, 60), torch.randn(1, 8, 60)
    traced = torch.jit.trace(encoder, mel, strict=False)
    expected = encoder(other).last_hidden_state
    torch.testing.assert_close(traced(other)["last_hidden_state"], expected)
    encoder.config.return_dict = False
    (found,) = torch.jit.trace(encoder, mel)(other)
    torch.testing.assert_close(found, expected)


def test_outputs_are_what_ordered_dicts_are_to_a_caller():
    assert list(OrderedDict(result()).items()) == list(result().items())
