"""The rows of decisions and embeddings, on a tiny random checkpoint."""

from benchmarks.harness.id_tokenizer import IdTokenizer
from benchmarks.structured.decide_rows import decide_rows


def test_both_rows(tiny_chat):
    ratio, equal = decide_rows(tiny_chat.model, IdTokenizer(), repeats=2, quick=True, progress=lambda _: None)
    assert (ratio.name, ratio.unit, ratio.limit) == ("decide.ratio", "x faster", 5.0)
    assert ratio.value > 1 and ratio.spread is not None
    assert equal.name == "embed.batch_equal" and 0 <= equal.value <= equal.limit
