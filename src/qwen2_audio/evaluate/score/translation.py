"""BLEU by sacrebleu, from each sentence's counts of n-grams: the one place that imports it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ConfigError
from ..example import Prediction
from ..normalize.official import TAG
from ..task import Task
from .echoes import without_echo
from .judgement import Judgement
from .measure import Array, Measure, Scores

TOKENIZERS = {"zh": "zh", "ja": "ja-mecab"}  # by the target's language; "13a" for all others


def bleu(task: Task, predictions: Sequence[Prediction], judgements: Mapping[str, Sequence[Judgement]]) -> Scores:
    """Corpus BLEU of the raw texts, as the official evaluation takes it; `bleu_lenient` without tags and without a chat
    model's sentence around the translation."""
    metric = _metric(TOKENIZERS.get(task.language, "13a"))
    strict = _counts(metric, [(prediction.text, prediction.reference or "") for prediction in predictions])
    lenient = strict.copy()
    for row, prediction in enumerate(predictions):
        if (bare := _only_translation(prediction.text)) != prediction.text:
            lenient[row] = _counts(metric, [(bare, prediction.reference or "")])[0]

    def value(sums: Array) -> Array:
        flat = sums.reshape(-1, sums.shape[-1])
        return np.array([_bleu(metric, row) for row in flat]).reshape(sums.shape[:-1])

    return Scores(
        (Measure("bleu", strict, value), Measure("bleu_lenient", lenient, value)),
        signature={"sacrebleu": str(metric.get_signature()).replace("|", ",")},
    )


def _only_translation(text: str) -> str:
    return without_echo(TAG.sub(" ", text).strip())


def _metric(tokenizer: str) -> Any:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise ConfigError("BLEU needs sacrebleu: pip install 'qwen2-audio[eval]'.") from error
    try:
        metric = BLEU(tokenize=tokenizer)
        metric.corpus_score([""], [[""]])  # its signature wants to know the number of references
        return metric
    except (ImportError, RuntimeError) as error:
        raise ConfigError(f"BLEU of {tokenizer!r} needs more of sacrebleu: pip install 'sacrebleu[ja]'.") from error


def _counts(metric: Any, pairs: Sequence[tuple[str, str]]) -> Array:
    """[rows, 10]: right n-grams of the orders 1 to 4, all n-grams, lengths of answer and reference, in tokens."""
    counts = np.zeros((len(pairs), 10))
    for row, (answer, reference) in enumerate(pairs):
        found = metric.corpus_score([answer], [[reference]])
        counts[row] = *found.counts, *found.totals, found.sys_len, found.ref_len
    return counts


def _bleu(metric: Any, sums: Array) -> float:
    whole = [int(count) for count in sums]
    if not whole[8] and not whole[9]:
        return math.nan
    score = metric.compute_bleu(whole[:4], whole[4:8], whole[8], whole[9], smooth_method="exp", max_ngram_order=4)
    return float(score.score)
