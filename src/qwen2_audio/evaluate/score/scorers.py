"""The scorers that the registry names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..example import Prediction
from . import choices, judged, labels, letters, questions, transcripts, translation, voicebench
from .measure import Measuring

Skip = Callable[[Prediction], str | None]


def _without_reference(prediction: Prediction) -> str | None:
    return None if prediction.reference is not None else "no reference"


def _nothing(prediction: Prediction) -> str | None:
    return None


@dataclass(frozen=True)
class Scorer:
    """How the answers of a kind of task are scored."""

    measure: Measuring
    skip: Skip = _without_reference  # why a row cannot be scored; None where it can
    transcribes: bool = False  # its answers repeat what is said, so that a sentence around them is a fault


SCORERS: Mapping[str, Scorer] = {
    "wer": Scorer(transcripts.error_rates, transcribes=True),
    "cer": Scorer(transcripts.error_rates, transcribes=True),
    "bleu": Scorer(translation.bleu, transcribes=True),
    "accuracy": Scorer(labels.label_accuracy),
    "string_match": Scorer(choices.match_by_words, choices.skip_choice),
    "airbench_foundation": Scorer(letters.airbench_foundation, choices.skip_choice),
    "mmsu": Scorer(letters.mmsu, choices.skip_choice),
    "airbench_chat": Scorer(judged.airbench_chat, _nothing),
    "voicebench_open": Scorer(judged.by_judge, _nothing),
    "voicebench_qa": Scorer(judged.by_judge),
    "voicebench_mcq": Scorer(voicebench.multiple_choice, choices.skip_choice),
    "voicebench_bbh": Scorer(voicebench.puzzles, voicebench.skip_puzzle),
    "voicebench_ifeval": Scorer(voicebench.instructions, voicebench.skip_instructions),
    "voicebench_harm": Scorer(voicebench.refusals, _nothing),
    "openaudiobench_alpaca_eval": Scorer(judged.by_judge, _nothing),
    "openaudiobench_reasoning_qa": Scorer(judged.by_judge),
    "openaudiobench_llama_questions": Scorer(judged.by_judge),
    "openaudiobench_trivia_qa": Scorer(judged.by_judge),
    "openaudiobench_web_questions": Scorer(judged.by_judge),
    "qa": Scorer(questions.question_answers),
}
