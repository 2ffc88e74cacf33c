"""Questions with given answers: the probability of each, from one prefill and no decoding. No torch in here.

    letters   the choices stand in the prompt under A, B, C, ...; read are the logits of the letters where the answer
              begins. So servers with /v1/decisions do it (vLLM 0.33), and so models are trained on multiple choice
    words     the prompt is the question alone; each choice is scored as the whole answer, all of its tokens and the end

Either way a probability is the choice's share of what all choices have together, and `label_mass` says how much that
is: near 0, the model wanted to say something else, and the shares mean little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError, LongClipError, PromptError, refuse_unknown
from ..inputs.messages import user
from ..types import Completion, Heard, Message, SamplingParams, Usage

if TYPE_CHECKING:
    from ..engine.request import RequestHandle
    from .service import Service

Kind = Literal["choice", "predicate", "score"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST_LEVELS = 10  # of a scale, as OpenAI and vLLM have it
MOST_QUESTIONS = 200  # about one input, as vLLM has it
MOST_REQUESTS = 512  # that they make, half of what an engine takes: with labels="words" each choice is one
_KEYS = ("question", "choices", "levels", "labels")


@dataclass(frozen=True)
class Question:
    """A question and what may be answered. `of` reads it from a dict."""

    text: str
    options: tuple[tuple[str | bool, str], ...]  # value and description; of a predicate: True and False
    kind: Kind = "choice"
    labels: Literal["letters", "words"] = "letters"

    def __post_init__(self) -> None:
        most = MOST_LEVELS if self.kind == "score" else len(LETTERS)
        if not isinstance(self.text, str):
            raise PromptError(f"A question is {self.text!r:.80}; expected a text.")
        if not self.text.strip():
            raise PromptError("A question is empty; say what is to be decided.")
        if self.labels not in ("letters", "words"):
            raise PromptError(f"labels is {self.labels!r}; expected letters or words.")
        if not 2 <= len(self.options) <= most:
            what = "levels" if self.kind == "score" else "choices"
            raise PromptError(f"The question {self.text[:60]!r} has {len(self.options)} {what}; expected 2 to {most}.")
        names = [shown(value) for value, _ in self.options]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise PromptError(f"The question {self.text[:60]!r} has the choice {name!r} twice.")
        if not all(name.strip() for name in names):
            raise PromptError(f"The question {self.text[:60]!r} has a choice without a text.")

    @classmethod
    def of(cls, source: Any) -> Question:
        """From `{"question", "choices"}`, whose choices are a list, or a dict of descriptions; `{"question", "levels"}`
        for a scale, lowest first; `{"question"}` alone for yes or no. Raises PromptError."""
        if isinstance(source, cls):
            return source
        if not isinstance(source, Mapping) or "question" not in source:
            raise PromptError(f"A question is {source!r:.80}; expected a dict with 'question' and 'choices'.")
        refuse_unknown(dict(source), _KEYS, PromptError, "A question has the key", f"; expected {', '.join(_KEYS)}.")
        if "choices" in source and "levels" in source:
            raise PromptError("A question has choices and levels; give one of them.")
        kind: Kind = "choice" if "choices" in source else "score" if "levels" in source else "predicate"
        options = described(source.get("choices", source.get("levels", {True: "", False: ""})), source["question"])
        return cls(source["question"], options, kind, source.get("labels", "letters"))

    def prompt(self) -> str:
        """What the model is asked."""
        if self.labels == "words":
            return self.text
        lines = [
            f"{letter}. {shown(value)}{f': {description}' if description else ''}"
            for letter, (value, description) in zip(LETTERS, self.options, strict=False)
        ]
        return "\n".join([self.text, *lines, "Answer with the letter alone."])


def described(options: Any, question: Any = "") -> tuple[tuple[str | bool, str], ...]:
    """Values and descriptions, from a list of values or a dict of descriptions. Raises PromptError."""
    if isinstance(options, Mapping):
        pairs = [(value, "" if text is None else text) for value, text in options.items()]
    elif isinstance(options, (list, tuple)):
        pairs = [(value, "") for value in options]
    else:
        raise PromptError(f"The choices of {str(question)[:60]!r} are {options!r:.80}; expected a list.")
    for value, text in pairs:
        if not isinstance(value, (str, bool)) or not isinstance(text, str):
            raise PromptError(f"A choice of {str(question)[:60]!r} is {value!r:.80}; expected a string.")
    return tuple(pairs)


def shown(value: str | bool) -> str:
    """A choice as the model reads it."""
    return ("yes" if value else "no") if isinstance(value, bool) else value


@dataclass(frozen=True)
class Decision:
    """The answer to a Question. Probabilities add up to 1; `confidence` is the best one times `label_mass`."""

    question: Question
    probabilities: tuple[float, ...]  # of its options, in their order
    label_mass: float  # probability of all options together, among all that the model could have said
    argmax_is_label: bool | None  # the likeliest first token is an option's letter; None where words are scored
    usage: Usage  # of all that was computed for this question
    heard: tuple[Heard, ...] = ()

    @property
    def choice(self) -> str | bool:
        """The likeliest option; the first of equal ones."""
        return self.question.options[self.probabilities.index(max(self.probabilities))][0]

    @property
    def confidence(self) -> float:
        return max(self.probabilities) * self.label_mass

    @property
    def probability(self) -> float:
        """Of the first option: that a predicate is true."""
        return self.probabilities[0]

    @property
    def score(self) -> float:
        """The expected level of a scale, 0 for its first one."""
        return sum(level * probability for level, probability in enumerate(self.probabilities))

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        named = {shown(value): p for (value, _), p in zip(self.question.options, self.probabilities, strict=True)}
        own: dict[str, Any] = {"choice": self.choice}
        if self.question.kind == "predicate":
            own = {"probability": self.probability}
        elif self.question.kind == "score":
            own |= {"score": self.score}
        return {
            "question": self.question.text, **own, "probabilities": named, "confidence": self.confidence,
            "label_mass": self.label_mass, "argmax_is_label": self.argmax_is_label,
        }  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A question as requests: for each an answer that its prompt is continued with, and what is wanted of it."""

    question: Question
    messages: list[Message]
    requests: tuple[tuple[str, SamplingParams], ...]

    def decision(self, completions: Sequence[Completion]) -> Decision:
        """From the completions of `requests`."""
        by_words = self.question.labels == "words"
        logs = _of_words(completions) if by_words else [one.logprob for one in completions[0].logprobs[0].asked]
        label_mass = sum(map(math.exp, logs))
        best = max(logs)
        shares = [math.exp(log - best) for log in logs]  # relative to the best: all may be too small for a float
        argmax = None
        if not by_words:
            first = completions[0].logprobs[0]
            argmax = first.token in [one.token for one in first.asked]
        usages = [completion.usage for completion in completions]
        usage = Usage(
            sum(usage.prompt_tokens for usage in usages),
            sum(usage.audio_tokens for usage in usages),
            0,
            sum(usage.cached_tokens for usage in usages),
        )
        probabilities = tuple(share / sum(shares) for share in shares)
        return Decision(self.question, probabilities, min(label_mass, 1.0), argmax, usage, completions[0].heard)


def _of_words(completions: Sequence[Completion]) -> list[float]:
    """The logarithm of each answer's probability: of all its tokens, and then of an end."""
    logs = []
    for completion in completions:
        tokens = [one.logprob for one in completion.prompt_logprobs if one is not None]
        ends = [math.exp(one.logprob) for one in completion.logprobs[0].asked]
        logs.append(sum(tokens) + math.log(max(sum(ends), 1e-300)))
    return logs


@dataclass(frozen=True)
class PendingDecision:
    """A question that was submitted: its requests are `handles`, of which `asked.decision` makes the Decision."""

    asked: Asked
    handles: list[RequestHandle]

    def done(self) -> bool:
        return all(handle.done for handle in self.handles)

    def result(self) -> Decision:
        """Wait for it. Raises the error that a request ended with."""
        return self.asked.decision([completion for handle in self.handles for completion in handle.completions()])

    def cancel(self) -> None:
        for handle in self.handles:
            handle.cancel()


def ask_all(
    messages: Sequence[Message],
    questions: Sequence[Question],
    encode: Callable[[str], list[int]],
    end_ids: Collection[int],
) -> list[Asked]:
    """Questions about one conversation as requests. `encode`: text to ids; `end_ids`: those that end an answer.

    Raises PromptError for no or too many questions, and ConfigError where a letter is not a token of its own.
    """
    if not 1 <= len(questions) <= MOST_QUESTIONS:
        raise PromptError(f"There are {len(questions)} questions; expected 1 to {MOST_QUESTIONS} about one input.")
    asked = []
    for question in questions:
        by_words = question.labels == "words"
        requests = _word_requests(question, encode, end_ids) if by_words else (_letter_request(question, encode),)
        asked.append(Asked(question, conversation(messages, question.prompt()), requests))
    if (total := sum(len(item.requests) for item in asked)) > MOST_REQUESTS:
        raise PromptError(
            f"The questions have {total} choices to score by their words; expected at most {MOST_REQUESTS}. "
            "Ask in parts."
        )
    return asked


def _letter_request(question: Question, encode: Callable[[str], list[int]]) -> tuple[str, SamplingParams]:
    ids = [encode(letter) for letter in LETTERS[: len(question.options)]]
    if any(len(tokens) != 1 for tokens in ids):
        raise ConfigError("The tokenizer has no token for each letter; give the question labels='words'.")
    letters = tuple(tokens[0] for tokens in ids)
    return "", SamplingParams(max_tokens=1, temperature=0.0, logprobs=0, logprob_token_ids=letters)


def _word_requests(
    question: Question, encode: Callable[[str], list[int]], end_ids: Collection[int]
) -> tuple[tuple[str, SamplingParams], ...]:
    """Each choice stands behind the prompt, and the token that follows it must be an end."""
    texts = [shown(value) for value, _ in question.options]
    return tuple(
        (text, SamplingParams(max_tokens=1, temperature=0.0, logprobs=0, logprob_token_ids=tuple(sorted(end_ids)),
                              prompt_logprobs=0, prompt_logprobs_start=-len(encode(text))))
        for text in texts
    )  # fmt: skip


def conversation(messages: Sequence[Message], text: str) -> list[Message]:
    """`messages` and the question behind them: in the last message if that is the user's, so that all questions about
    one conversation have the same beginning. A last message that is malformed stays as it is, to be refused."""
    question = {"type": "text", "text": text}
    last = messages[-1] if messages else {}
    if isinstance(last, dict) and last.get("role") != "user":
        return [*messages, {"role": "user", "content": [question]}]
    content = last.get("content") if isinstance(last, dict) else None
    if isinstance(content, str):
        content = [{"type": "text", "text": f"{content}\n\n"}] if content else []
    elif not isinstance(content, (list, tuple)):
        return list(messages)
    elif content and isinstance(content[-1], dict) and isinstance(said := content[-1].get("text"), str):
        content = [*content[:-1], {**content[-1], "text": f"{said}\n\n"}]
    return [*messages[:-1], {**last, "content": [*content, question]}]


def run(service: Service, audio: Any, questions: Any) -> Decision | list[Decision]:
    """`m.decide`: a Decision of one question, a list of a list of them. `audio`: what `user()` takes as clips, or the
    messages of a conversation."""
    several = isinstance(questions, (list, tuple))
    parsed = [Question.of(question) for question in (questions if several else [questions])]
    is_conversation = isinstance(audio, (list, tuple)) and bool(audio) and _is_message(audio[0])
    messages = list(audio) if is_conversation else [audio] if _is_message(audio) else [user(audio=audio)]
    pending = service.submit_decisions(messages, parsed)
    try:
        decisions = [one.result() for one in pending]
    except LongClipError as error:  # of which str() names what m.chat can do
        raise LongClipError(error.sentence) from error
    finally:
        for one in pending:
            one.cancel()  # stops what is left after an error or an interrupt
    return decisions if several else decisions[0]


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value
