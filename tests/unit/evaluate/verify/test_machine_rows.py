"""Every path of the machine has a row that is in bounds, and out of them once the path has a fault."""

import os

import pytest
import torch

from qwen2_audio.engine.executor import cuda_graphs
from qwen2_audio.engine.executor.forward_batch import ForwardBatch
from qwen2_audio.evaluate.verify import fast_paths, readable_path
from qwen2_audio.evaluate.verify.fast_paths import engine_rows, kv_rows, quantized_rows
from qwen2_audio.evaluate.verify.readable_path import golden_row, half_precision_rows, log_mel_row, readable_rows
from qwen2_audio.evaluate.verify.shared_model import shared_model_row
from qwen2_audio.evaluate.verify.subject import Truth, nano, readable
from qwen2_audio.inputs import log_mel_torch
from qwen2_audio.model import attention
from qwen2_audio.model.cache import KVCache
from qwen2_audio.model.encoder import Qwen2AudioEncoder
from qwen2_audio.model.paged import PagedStorage
from qwen2_audio.native import dense, fused, library, ops

CPU = torch.device("cpu")
NATIVE = pytest.mark.skipif(library.load().library is None, reason="no native kernels")


def states(rows):
    return {row.check: row.state for row in rows}


def scaled(original, factor=1.01):
    """The function, whose tensors come out a little too large."""

    def wrong(*arguments, **options):
        out = original(*arguments, **options)
        return (
            tuple(t * factor if isinstance(t, torch.Tensor) else t for t in out)
            if isinstance(out, tuple)
            else out * factor
        )

    return wrong


def test_all_rows_are_in_bounds(subject, truth, model):
    rows = [golden_row(CPU), log_mel_row(CPU), *readable_rows(subject, model, truth)]
    rows += [*engine_rows(subject, truth, CPU), *kv_rows(subject, truth, CPU), *quantized_rows(subject, CPU)]
    assert [row for row in rows if row.state == "OUT OF BOUNDS"] == []
    missing = {row.check for row in rows if row.state == "not here"} - {"engine: prompt lookup"}  # test_draft_tokens
    assert not missing or library.load().library is None


def test_rows_of_a_gpu_are_not_here(subject, truth, model):
    assert set(states(half_precision_rows(subject, model, truth)).values()) == {"not here"}


# -- faults


def test_the_readable_path(monkeypatch):
    monkeypatch.setattr(attention, "_eager", scaled(attention._eager))
    assert golden_row(CPU).state == "OUT OF BOUNDS"


def test_the_log_mel_on_a_device(monkeypatch):
    monkeypatch.setattr(log_mel_torch, "_scaled", scaled(log_mel_torch._scaled, 1.0001))
    assert log_mel_row(CPU).state == "OUT OF BOUNDS"


def test_sdpa(subject, truth, model, monkeypatch):
    monkeypatch.setattr(attention, "_sdpa", scaled(attention._sdpa))
    found = states(readable_rows(subject, model, truth))
    assert found["attention: sdpa"] == "OUT OF BOUNDS"
    assert found["KV cache: in pieces"] == "ok"


def test_a_mask_of_padding_that_is_lost(subject, truth, model, monkeypatch):
    sdpa = attention._sdpa

    def wrong(q, k, v, visible, *rest, **options):
        return sdpa(
            q, k, v, attention.AttentionMask(causal=True) if visible.keys is not None else visible, *rest, **options
        )

    monkeypatch.setattr(attention, "_sdpa", wrong)
    found = states(readable_rows(subject, model, truth))
    assert found["attention: a batch with padding"] == "OUT OF BOUNDS"
    assert found["attention: sdpa"] == "ok"


def test_the_encoder_without_its_window(subject, truth, model, monkeypatch):
    monkeypatch.setattr(Qwen2AudioEncoder, "encode", scaled(Qwen2AudioEncoder.encode))
    assert states(readable_rows(subject, model, truth))["encoder: without the padded window"] == "OUT OF BOUNDS"


def test_the_contiguous_cache(subject, truth, model, monkeypatch):
    update = KVCache.update

    def wrong(self, layer, key, value):
        keys, values = update(self, layer, key, value)
        return keys, values * 1.01

    monkeypatch.setattr(KVCache, "update", wrong)
    found = states(readable_rows(subject, model, truth))
    assert found["KV cache: in pieces"] == "OUT OF BOUNDS"
    assert found["attention: sdpa"] == "ok"


def test_steps_of_fixed_shape(subject, truth, model, monkeypatch):
    step = cuda_graphs.step

    def wrong(model, storage, buffers):
        step(model, storage, buffers)
        buffers.logits.mul_(1.01)

    monkeypatch.setattr(cuda_graphs, "step", wrong)
    found = states(readable_rows(subject, model, truth))
    assert [name for name, state in found.items() if state == "OUT OF BOUNDS"] == [
        "decode step of fixed shape, as CUDA graphs replay it"
    ]


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "bfloat16, flash attention"])
def test_half_precision_and_flash_attention(subject, truth, model, monkeypatch, kind):
    """On the CPU, as if it were a GPU; flash attention's place is taken by sdpa."""
    sdpa = attention._sdpa
    monkeypatch.setattr(readable_path, "_on_a_gpu", lambda model: True)
    for place in (readable_path, attention):
        monkeypatch.setattr(place, "check_implementation", lambda name: name)
    monkeypatch.setattr("qwen2_audio.model.qwen2_audio.check_implementation", lambda name: name)
    monkeypatch.setattr(attention, "_flash", sdpa)
    assert states(half_precision_rows(subject, model, truth))[kind] == "ok"
    monkeypatch.setattr(attention, "_flash" if "flash" in kind else "_sdpa", scaled(sdpa, 1.5))
    assert states(half_precision_rows(subject, model, truth))[kind] == "OUT OF BOUNDS"


@NATIVE
def test_dense_kernels(subject, truth, monkeypatch):
    monkeypatch.setattr(dense.DenseLinear, "forward", scaled(dense.DenseLinear.forward))
    assert states(engine_rows(subject, truth, CPU))["kernels: float32"] == "OUT OF BOUNDS"


def test_the_paged_cache(subject, truth, monkeypatch):
    monkeypatch.setattr(ForwardBatch, "run", scaled(ForwardBatch.run, 1.1))
    found = states(engine_rows(subject, truth, CPU))
    assert found["engine: paged cache, prompts in pieces"] == "OUT OF BOUNDS"
    assert found["kernels: float32"] != "OUT OF BOUNDS"


def only_where(condition, factor=1.1):
    """ForwardBatch.run with a fault in the batches for which `condition` holds."""
    run = ForwardBatch.run

    def wrong(self, *arguments, **options):
        return run(self, *arguments, **options) * (factor if condition(self) else 1)

    return wrong


def test_a_batch_of_several(subject, truth, monkeypatch):
    monkeypatch.setattr(ForwardBatch, "run", only_where(lambda batch: len(batch.block_tables) > 1))
    found = states(engine_rows(subject, truth, CPU))
    assert found["engine: alone and in a batch"] == "OUT OF BOUNDS"
    assert found["engine: paged cache, prompts in pieces"] == found["engine: again, from the prefix cache"] == "ok"


def test_a_prefix_that_is_not_what_was_cached(subject, truth, monkeypatch):
    monkeypatch.setattr(PagedStorage, "copy_block", lambda self, source, target: None)
    found = states(engine_rows(subject, truth, CPU))
    assert found["engine: again, from the prefix cache"] == "OUT OF BOUNDS"
    assert found["engine: paged cache, prompts in pieces"] == "ok"


def test_a_prefix_cache_that_is_off(subject, truth, monkeypatch):
    settings = fast_paths.EngineSettings
    monkeypatch.setattr(
        fast_paths, "EngineSettings", lambda **options: settings(**options, enable_prefix_caching=False)
    )
    assert states(engine_rows(subject, truth, CPU))["engine: again, from the prefix cache"] == "OUT OF BOUNDS"


def test_draft_tokens(monkeypatch):
    """On nano: the random model's answers repeat nothing."""
    subject = nano()
    truth = Truth.of(readable(subject, CPU), subject)
    assert states(engine_rows(subject, truth, CPU))["engine: prompt lookup"] == "ok"
    monkeypatch.setattr(ForwardBatch, "run", only_where(lambda batch: max(batch.num_logits) > 1))
    found = states(engine_rows(subject, truth, CPU))
    assert [name for name, state in found.items() if state == "OUT OF BOUNDS"] == ["engine: prompt lookup"]


def uneven(layers):
    """`fused.layers_` with every other column too large: a norm would hide a fault in all of them."""

    def wrong(*arguments):
        layers(*arguments)
        arguments[-1][..., ::2] *= 1.3

    return wrong


@NATIVE
@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_the_native_cache(subject, truth, monkeypatch, kind):
    monkeypatch.setattr(fused, "layers_", uneven(fused.layers_))
    assert states(kv_rows(subject, truth, CPU))[f"KV cache: {kind}"] == "OUT OF BOUNDS"


@NATIVE
@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_quantised_kernels(subject, monkeypatch, scheme):
    linears = ops.linears

    def wrong(handles, x):
        outs = linears(handles, x)
        for out in outs:
            out[..., -16:] = 0  # a panel of outputs
        return outs

    monkeypatch.setattr(ops, "linears", wrong)
    found = states(quantized_rows(subject, CPU))
    assert found[f"{scheme} kernels: one product"] == found[f"{scheme} kernels: logits"] == "OUT OF BOUNDS"


@NATIVE
@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_all_layers_in_one_call(subject, monkeypatch, scheme):
    monkeypatch.setattr(fused, "layers_", uneven(fused.layers_))
    found = states(quantized_rows(subject, CPU))
    assert found[f"{scheme} kernels: logits"] == "OUT OF BOUNDS"
    assert found[f"{scheme} kernels: one product"] == "ok"


@NATIVE
@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_quantised_batches(subject, monkeypatch, scheme):
    monkeypatch.setattr(ForwardBatch, "run", only_where(lambda batch: len(batch.block_tables) > 1, 1.0001))
    found = states(quantized_rows(subject, CPU))
    assert found[f"{scheme}: alone and in a batch"] == "OUT OF BOUNDS"
    assert found[f"{scheme} kernels: logits"] == "ok"


def test_processes_that_share_a_model(subject, truth, monkeypatch, tmp_path):
    row = shared_model_row(subject, truth, CPU)
    assert row.state == "ok", row.note
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('RANK') == '1':\n"
        "    from qwen2_audio.distributed import tensor_parallel as tp\n"
        "    forward = tp.RowParallelLinear.forward\n"
        "    tp.RowParallelLinear.forward = lambda self, x: forward(self, x * 1.01)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    assert shared_model_row(subject, truth, CPU).state == "OUT OF BOUNDS"
