"""What a figure must reach: by its row's name, in its row's unit. Meant for two cores with AVX2."""

from __future__ import annotations

SHAPES = ("4096x11008", "11008x4096", "4096x4096")  # inputs x outputs

AT_LEAST: dict[str, float] = {
    **{f"w4a8.decode.{shape}": 45.0 for shape in SHAPES},
    **{f"w4a8.prefill{rows}.{shape}": 300.0 for shape in SHAPES for rows in (128, 780)},
    **{f"w8.decode.{shape}": 20.0 for shape in SHAPES},
    **{f"w8.prefill{rows}.{shape}": 200.0 for shape in SHAPES for rows in (128, 780)},
    "model.int4.decode100": 4.5,
    "engine.decode16_speedup": 2.5,
    "engine.run16_speedup": 1.3,
    "engine.nano16_speedup": 4.0,
    "engine.vs_transformers": 3.0,
    "engine.second_turn_ratio": 5.0,
    "jobs.local_efficiency": 0.85,
    "jobs.ray_efficiency": 0.85,
    "long.speedup": 2.5,
    "decide.ratio": 5.0,
    "long.vad_x_real_time": 500.0,
    "long.words_in_place": 97.0,
    "long.word_start_real": 80.0,
    "long.find_fact": 80.0,
}
AT_MOST: dict[str, float] = {
    **{f"w8.error.{shape}": 0.008 for shape in SHAPES},
    "model.int4.ttft_3s": 8.0,
    "model.int4.ttft_30s": 60.0,
    "model1b.int4.ttft_3s": 1.2,
    "model1b.int4.ttft_30s": 8.0,
    "model.int4.peak_gb": 6.5,
    "model.int8.peak_gb": 11.0,
    "model.int4.load_s": 3.0,
    "model.int8.load_s": 3.0,
    "model1b.int4.load_s": 3.0,
    "model.int4.step_over_products": 1.25,
    "model1b.int4.step_over_products": 1.25,
    "engine.short_ttft_ratio": 1.0,  # of twice its time on an idle engine plus one chunk
    "engine.overhead_pct": 5.0,
    "engine.nano_overhead_ms": 1.0,
    "structured.overhead_pct": 3.0,
    "structured.overhead_worst_pct": 3.0,
    "structured.compile_ms": 5.0,
    "embed.batch_equal": 1e-5,
    "jobs.chaos": 0.0,
    "jobs.ray_overhead_ms": 5.0,
    "jobs.first_result_s": 10.0,
    "jobs.memory_growth": 10.0,
    "long.wer_excess": 1.5,
    "long.wer_excess_20db": 3.0,
    "long.word_start_ms": 40.0,
    "long.cuts_in_speech": 2.0,
    "long.cuts_in_speech_10db": 5.0,
    "long.unaccounted": 0.0,
    "long.memory_growth": 10.0,
}
# Times better than transformers on the same checkpoint, in fp32: expected from computing valid frames only.
RATIOS: dict[str, float] = {
    "model1b.fp32.logmel_3s": 3.0,
    "model1b.fp32.encoder_3s": 7.0,
    "model1b.fp32.ttft_1s": 3.0,
    "model1b.fp32.ttft_3s": 2.0,
    "model1b.fp32.ttft_10s": 1.0,
    "model1b.fp32.ttft_30s": 1.0,
    "model1b.fp32.decode100": 1.0,
    # A training step: no padding to 30 s, and never more memory.
    **{f"{model}.train.{method}.rate": 1.5 for model in ("model1b", "nano") for method in ("lora", "full")},
    **{f"{model}.train.{method}.peak_gb": 1.0 for model in ("model1b", "nano") for method in ("lora", "full")},
}


def bar(name: str) -> float | None:
    """The value that row `name` must reach, or stay under; None: it has no limit."""
    return AT_LEAST.get(name, AT_MOST.get(name))
