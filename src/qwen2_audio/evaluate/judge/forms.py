"""What each benchmark's authors ask a judge, and how they read a score out of its reply."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..example import Prediction
from ..prompts.prompt import find_prompt

Value = tuple[float, ...]  # the model's score, and where two answers are compared the reference's behind it
VOICEBENCH_SYSTEM = "You are a helpful assistant who tries to help answer the user's question."


@dataclass(frozen=True)
class JudgeForm:
    """One benchmark's way to ask a judge."""

    prompt: str  # a key of evaluate/prompts
    values: Callable[[Prediction], Mapping[str, str]]  # what is set into it, by placeholder
    parse: Callable[[str], Value | None]  # None: the reply holds no score
    metric: str  # "score" or "accuracy_judge"
    both_orders: bool = False  # two answers are compared: asked a second time with them exchanged
    system: str | None = None

    def text(self, prediction: Prediction, *, swapped: bool) -> str:
        """The judge's message, `swapped` with the model's answer first.

        Placeholders are replaced in one pass, so that an answer cannot hold one.
        """
        values = dict(self.values(prediction))
        if swapped:
            values["XAssistant1X"], values["XAssistant2X"] = values["XAssistant2X"], values["XAssistant1X"]
        pattern = "|".join(re.escape(name) for name in values)
        text = find_prompt(self.prompt).text
        return re.sub(pattern, lambda match: values[match[0]], text)


def _column(prediction: Prediction, *names: str) -> str:
    """The first of these columns that is there, else the prompt, in which the question was asked."""
    for name in names:
        if prediction.columns.get(name):
            return str(prediction.columns[name])
    return prediction.prompt or ""


def _airbench(prediction: Prediction) -> dict[str, str]:
    return {
        "XAudioX": str(prediction.columns.get("meta_info", "")),
        "XQuestionX": _column(prediction, "question"),
        "XAssistant1X": prediction.reference or "",
        "XAssistant2X": prediction.text,
    }


def _voicebench(prediction: Prediction) -> dict[str, str]:
    return {
        "{prompt}": _column(prediction, "prompt", "question"),
        "{reference}": prediction.reference or "",
        "{response}": prediction.text,
    }


def _openaudiobench(prediction: Prediction) -> dict[str, str]:
    """Of str.format's doubled braces one stays, as in the text that the judge is sent."""
    question = _column(prediction, "question", "instruction", "Question", "Questions", "Prompt", "prompt")
    reference = prediction.reference or ""
    return {"{question}": question, "{answer}": reference, "{prediction}": prediction.text, "{{": "{", "}}": "}"}


def parse_two(reply: str) -> Value | None:
    """AIR-Bench: a single line of two whole numbers up to 10."""
    parts = reply.strip().replace("\n", "").split(" ")
    if len(parts) != 2 or not all(re.fullmatch(r"[+-]?\d+", part) for part in parts):
        return None
    pair = (float(parts[0]), float(parts[1]))
    return pair if all(0 <= value <= 10 for value in pair) else None


def parse_one_to_five(reply: str) -> Value | None:
    """VoiceBench: a number, or one in [[ ]]."""
    try:
        return _within(float(reply.strip()), 1, 5)
    except ValueError:
        found = re.search(r"\[\[(\d+)\]\]", reply)
        return _within(float(found[1]), 1, 5) if found else None


def parse_yes_no(reply: str) -> Value | None:
    """VoiceBench: "Yes" or "No", with or without a stop."""
    word = reply.strip().strip(".\"'*").lower()
    return {"yes": (1.0,), "no": (0.0,)}.get(word)


def parse_rating(reply: str) -> Value | None:
    """OpenAudioBench alpaca_eval: the last [[1-10]], times ten."""
    found = re.findall(r"\[\[(\d+(?:\.\d+)?)\]\]", reply)
    value = _within(float(found[-1]), 1, 10) if found else None
    return value and (10 * value[0],)


def parse_points(reply: str) -> Value | None:
    """OpenAudioBench reasoning_qa: the last [0-5], times twenty."""
    found = re.findall(r"\[([0-5])\]", reply)
    return (20 * float(found[-1]),) if found else None


def parse_the_score(reply: str) -> Value | None:
    """OpenAudioBench llama_questions: "the score is [Correct]"."""
    found = re.search(r"[Tt]he score is \[(Correct|Incorrect|correct|incorrect)\]", reply)
    return (float(found[1].lower() == "correct"),) if found else None


def parse_judgment(reply: str) -> Value | None:
    """OpenAudioBench trivia_qa, web_questions: the key "judgment" of the first JSON object, read tolerantly."""
    found = re.search(r"\{.*?\}", reply, re.DOTALL)
    if not found:
        return None
    try:
        judgment: Any = json.loads(found[0]).get("judgment")
    except (ValueError, AttributeError):
        match = re.search(r"judgment[\"'‘’“”]?\s*:\s*[\"'‘’“”]?(correct|incorrect)", found[0], re.IGNORECASE)
        judgment = match[1] if match else None
    word = str(judgment).strip().lower()
    return {"correct": (1.0,), "incorrect": (0.0,)}.get(word)


def _within(value: float, low: float, high: float) -> Value | None:
    return (value,) if low <= value <= high else None


# By the scorer that the registry names for a task.
FORMS: Mapping[str, JudgeForm] = {
    "airbench_chat": JudgeForm("airbench_chat_judge", _airbench, parse_two, "score", both_orders=True),
    "voicebench_open": JudgeForm(
        "voicebench_meta_prompt_open", _voicebench, parse_one_to_five, "score", system=VOICEBENCH_SYSTEM
    ),
    "voicebench_qa": JudgeForm(
        "voicebench_meta_prompt_qa", _voicebench, parse_yes_no, "accuracy_judge", system=VOICEBENCH_SYSTEM
    ),
    "openaudiobench_alpaca_eval": JudgeForm("openaudiobench_alpaca_eval", _openaudiobench, parse_rating, "score"),
    "openaudiobench_reasoning_qa": JudgeForm("openaudiobench_reasoning_qa", _openaudiobench, parse_points, "score"),
    "openaudiobench_llama_questions": JudgeForm(
        "openaudiobench_llama_questions", _openaudiobench, parse_the_score, "accuracy_judge"
    ),
    "openaudiobench_trivia_qa": JudgeForm(
        "openaudiobench_trivia_qa", _openaudiobench, parse_judgment, "accuracy_judge"
    ),
    "openaudiobench_web_questions": JudgeForm(
        "openaudiobench_web_questions", _openaudiobench, parse_judgment, "accuracy_judge"
    ),
    "qa": JudgeForm("voicebench_meta_prompt_qa", _voicebench, parse_yes_no, "accuracy_judge", system=VOICEBENCH_SYSTEM),
}
