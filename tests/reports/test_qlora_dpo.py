"""QLoRA on a CPU: passes with gradients and without compute the same, so that DPO's first loss is log 2."""

import math

import pytest

from qwen2_audio import lora
from qwen2_audio.quantize.linear import QuantizedLinear
from qwen2_audio.train import dpo, optim, sft
from qwen2_audio.train.metrics import read
from qwen2_audio.train.start import set_up


@pytest.mark.parametrize("scheme", ["int8", "int4"])
@pytest.mark.parametrize(
    "options",
    [
        {"parts": ["language_model"]},
        {"parts": ["encoder"]},
        {"parts": ["encoder", "projector", "language_model"]},
        {"parts": ["language_model"], "lora": {"language_model": r"layers\.0\.self_attn\.q_proj"}},
        {"parts": ["language_model"], "gradient_checkpointing": True},
    ],
    ids=["language_model", "encoder", "all", "one Linear", "recomputed"],
)
def test_the_first_loss_is_log_2(make, tmp_path, scheme, options):
    dpo.run(make(steps=1, method="lora", quantize=scheme, **options))
    first = read(tmp_path / "run" / "metrics.jsonl")[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["margin"] == first["reward_chosen"] == first["reward_rejected"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_an_evaluation_of_the_same_rows_has_the_step_s_loss(make, rows, tmp_path, scheme):
    data = {"batch_size": 6, "eval": str(rows)}
    sft.run(make(steps=1, method="lora", quantize=scheme, data=data, optim={"learning_rate": 1e-12}))
    step, evaluation = read(tmp_path / "run" / "metrics.jsonl")
    assert evaluation["eval_loss"] == pytest.approx(step["loss"], abs=1e-6)


def test_frozen_parts_before_the_trained_ones_keep_the_kernels(make):
    config = make(method="lora", quantize="int8", parts=["projector"])
    model = set_up(config).model
    optim.prepare(model, config)
    dequantizing = {
        part: {
            module.dequantizes for module in model.get_submodule(path).modules() if isinstance(module, QuantizedLinear)
        }
        for part, path in lora.PARTS.items()
    }
    assert dequantizing == {"encoder": {False}, "projector": {True}, "language_model": {True}}
