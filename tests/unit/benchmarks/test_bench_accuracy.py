"""What quantising loses: on a model where it must lose something, and where it cannot."""

from __future__ import annotations

import torch

from benchmarks import accuracy
from qwen2_audio import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration
from qwen2_audio.evaluate.random_checkpoint import Shape

TINY = Shape(
    2, 32, 2, 64, 2, 64, 2, 96, vocab_size=600, audio_token_index=500, label="tiny"
)  # fmt: skip


def test_every_format_has_its_rows(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(accuracy, "SECONDS", (0.5, 1.0))
    lines: list[str] = []
    report = accuracy.run(accuracy.Options(shape=TINY, new_tokens=4, threads=1), lines.append)
    rows = {row.name: row.value for row in report.rows}
    for form in ("int4", "int8", "int4.kv_int8", "int8.kv_int8", "fp32.kv_float16", "fp32.kv_int8"):
        for what in ("kl", "same", "answers"):
            assert f"tiny.{form}.{what}" in rows, form
        assert 0 <= rows[f"tiny.{form}.same"] <= 1 and 0 <= rows[f"tiny.{form}.answers"] <= 1
    assert 0.05 < rows["tiny.int4.error.language_model"] < 0.12
    assert 0.003 < rows["tiny.int8.error.language_model"] < 0.007
    assert rows["tiny.int4.kl"] > 5 * rows["tiny.int8.kl"] > 0
    assert rows["tiny.fp32.kv_float16.kl"] < 1e-5
    assert "int4" in lines and report.machine["checkpoint"].startswith("random-")


def test_a_model_is_itself_and_another_is_not():
    config = Qwen2AudioConfig.from_dict(TINY.to_config())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        one, other = (Qwen2AudioForConditionalGeneration(config).eval() for _ in range(2))
    for model in (one, other):
        model.generation_config.pad_token_id = 0
    prompt = {"input_ids": torch.arange(3, 9)[None], "attention_mask": torch.ones(1, 6, dtype=torch.int64)}
    answers = [accuracy.answer(one, prompt, 5)]
    assert answers[0].log_probs.shape == (answers[0].ids.shape[1], 600)
    itself = {row.name: row.value for row in accuracy.compare("x", one, answers)}
    assert abs(itself["x.kl"]) < 1e-6 and itself["x.same"] == itself["x.answers"] == 1
    assert accuracy.compare("x", other, answers)[0].value > 1e-4
