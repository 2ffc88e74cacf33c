"""Types that every layer shares: sampling parameters, messages, completions. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from .errors import ConfigError

FinishReason = Literal["stop", "length", "context", "cancelled", "deadline", "error"]
Ending = Literal["answer", "continued", "closed"]
"""How a prompt ends: with the header of an answer, within the text of its last message, or after its last turn."""
Message = dict[str, Any]
"""`{"role": "system" | "user" | "assistant", "content": str | list[part]}`; a part is
`{"type": "text", "text": str}` or `{"type": "audio", "audio": source}`."""


@dataclass(frozen=True)
class SamplingParams:
    """How an answer is drawn. A field left at None takes the checkpoint's generation_config."""

    max_tokens: int | None = None  # new tokens at most
    min_tokens: int | None = None  # new tokens before the answer may end
    temperature: float | None = None  # 0 is greedy
    top_p: float | None = None  # keep the smallest set of tokens with this much probability
    top_k: int | None = None  # keep this many tokens; 0 keeps all
    min_p: float | None = None  # drop tokens below this share of the best one's probability
    repetition_penalty: float | None = None  # > 1 discourages ids already in prompt or answer
    frequency_penalty: float | None = None  # subtracted from a token's logit once per occurrence in the answer
    presence_penalty: float | None = None  # subtracted from a token's logit once if the answer contains it
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # added to the logits of these token ids
    seed: int | None = None  # same seed, same answer
    stop: tuple[str, ...] = ()  # end before any of these strings; they are not part of the answer
    logprobs: int | None = None  # return each token's log-probability, and those of this many most likely tokens
    logprob_token_ids: tuple[int, ...] = ()  # with logprobs: return those of these token ids too
    prompt_logprobs: int | None = None  # the same as logprobs, for the tokens of the prompt
    prompt_logprobs_start: int = 0  # the first position of the prompt whose token gets them; -1: the last one
    n: int = 1  # answers, drawn independently
    # What the answer is held to, one of them at most (docs/structured.md): JSON of a schema (a mapping, JSON text,
    # or a pydantic class), a regular expression that matches all of it, one of some texts, or a Lark or GBNF grammar.
    json_schema: Mapping[str, Any] | str | type | None = None
    regex: str | None = None
    choice: tuple[str, ...] | None = None
    grammar: str | None = None
    trigger: str | None = None  # the grammar, which begins with this text, holds only from where an answer says it on
    trigger_once: bool = False  # the answer ends with the first text of that grammar
    # Which of them was given, and its text; None: the answer is free.
    constraint: tuple[str, str] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        at_least = {
            "max_tokens": 1, "min_tokens": 0, "temperature": 0, "top_k": 0, "logprobs": 0, "prompt_logprobs": 0,
            "n": 1,
        }  # fmt: skip
        for name, low in at_least.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise ConfigError(f"{name} is {value}; expected a number of at least {low}.")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}; expected a probability between 0 and 1.")
        if self.repetition_penalty is not None and not self.repetition_penalty > 0:
            raise ConfigError(f"repetition_penalty is {self.repetition_penalty}; expected a number above 0.")
        for name in ("frequency_penalty", "presence_penalty"):
            value = getattr(self, name)
            if value is not None and not -2 <= value <= 2:
                raise ConfigError(f"{name} is {value}; expected a number between -2 and 2.")
        if not all(-100 <= bias <= 100 for bias in self.logit_bias.values()):
            raise ConfigError(f"logit_bias is {dict(self.logit_bias)}; expected numbers between -100 and 100.")
        if self.logprob_token_ids and self.logprobs is None:
            raise ConfigError("logprob_token_ids was given without logprobs; set logprobs to 0 or more.")
        if not all(self.stop):
            raise ConfigError("stop holds an empty string; every stop string needs at least one character.")
        if self.choice is not None:
            choice = (self.choice,) if isinstance(self.choice, str) else tuple(self.choice)
            object.__setattr__(self, "choice", choice)
        object.__setattr__(self, "constraint", _constraint(self))
        if self.trigger is not None and (not self.trigger or self.grammar is None):
            raise ConfigError(f"trigger is {self.trigger!r}; expected the text that a grammar begins with, beside one.")
        if self.trigger_once and self.trigger is None:
            raise ConfigError("trigger_once was given without a trigger; give one, or leave it out.")


def _constraint(params: SamplingParams) -> tuple[str, str] | None:
    """The kind and the text of what an answer is held to. Raises ConfigError for two of them, and for other types."""
    given: dict[str, Any] = {
        name: value
        for name in ("json_schema", "regex", "choice", "grammar")
        if (value := getattr(params, name)) is not None
    }
    if not given:
        return None
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} are given; an answer is held to one of them: leave the others out.")
    ((kind, value),) = given.items()
    if kind == "json_schema":
        return kind, _schema_text(value)
    if kind == "choice":
        if not value or not all(isinstance(text, str) for text in value):
            raise ConfigError(f"choice is {value!r}; expected texts, of which the answer is one.")
        return kind, json.dumps(value)
    if not isinstance(value, str):
        raise ConfigError(f"{kind} is a {type(value).__name__}; expected a string.")
    return kind, value


def _as_dict(value: Any) -> dict[str, Any]:
    """A mapping that json does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"it holds a {type(value).__name__}")


def _schema_text(schema: Any) -> str:
    """A JSON schema as JSON text."""
    if isinstance(schema, type) and hasattr(schema, "model_json_schema"):
        schema = schema.model_json_schema()
    try:
        value = json.loads(schema) if isinstance(schema, str) else schema
        text = json.dumps(value, allow_nan=False, default=_as_dict)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"json_schema is no JSON: {error}; expected a schema, as an object or as text.") from error
    if not isinstance(value, Mapping):
        raise ConfigError(f"json_schema is {text[:60]}; expected an object, such as {{'type': 'object'}}.")
    return text


Source = Literal["language_model", "encoder", "projector"]
Pooling = Literal["last", "mean", "none"]


@dataclass(frozen=True)
class PoolingParams:
    """What is taken of a prompt in place of an answer: hidden states of its positions. Raises ConfigError."""

    source: Source = "language_model"
    layer: int = -1  # of its hidden states: 0 is what enters the first layer, -1 the output of the whole source
    pooling: Pooling | None = None  # None: "last" of the language model, "mean" of the others
    normalize: bool = True  # to length 1
    n: ClassVar[int] = 1  # as SamplingParams has it

    def __post_init__(self) -> None:
        if self.source not in ("language_model", "encoder", "projector"):
            raise ConfigError(f"source is {self.source!r}; expected language_model, encoder or projector.")
        if self.pooling not in (None, "last", "mean", "none"):
            raise ConfigError(f"pooling is {self.pooling!r}; expected last, mean or none.")
        if isinstance(self.layer, bool) or not isinstance(self.layer, int):
            raise ConfigError(f"layer is {self.layer!r}; expected a number, of which -1 is the source's output.")

    @property
    def pooled_by(self) -> Pooling:
        """`pooling`, or the source's default."""
        return self.pooling or ("last" if self.source == "language_model" else "mean")


@dataclass(frozen=True)
class EmbeddingInput:
    """What one embedding is of: a message as it stands, a conversation in the chat template, or ids of text."""

    message: Message | None = None
    conversation: tuple[Message, ...] = ()
    ids: tuple[int, ...] = ()
    add_generation_prompt: bool = False  # of a conversation: it ends with the header of an answer


@dataclass(frozen=True)
class Heard:
    """How much of one clip the model was given."""

    seconds: float  # of audio
    tokens: int  # audio positions in the prompt, 25 per second
    notes: tuple[str, ...] = ()  # sentences on what of its source was lost, left out, or not chosen
    long: str = ""  # how a clip of more than a window was heard: "parts", "native", "transcript"; "": at once
    parts: int = 0  # in how many windows such a clip was heard; 0: at once

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object; `notes`, `long` and `parts` only where they say something."""
        facts: dict[str, Any] = {"seconds": self.seconds, "tokens": self.tokens}
        if self.notes:
            facts["notes"] = list(self.notes)
        return {**facts, "long": self.long, "parts": self.parts} if self.long else facts


@dataclass(frozen=True)
class Part:
    """A stretch of a long clip by itself, in seconds of the clip: what was answered about it, or what is said in it."""

    start: float
    end: float
    text: str
    used: bool = True  # the answer was made from it; else it says that the stretch does not hold the answer
    level: int = 0  # 0: a window was heard; 1: an answer about notes, or about text, of level 0; and so on

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object; `level` only above 0."""
        facts = {"start": round(self.start, 3), "end": round(self.end, 3), "text": self.text, "used": self.used}
        return {**facts, "level": self.level} if self.level else facts


@dataclass(frozen=True)
class Usage:
    """What a completion cost, in tokens."""

    prompt_tokens: int  # audio positions included
    audio_tokens: int
    completion_tokens: int
    # Prompt tokens taken from the prefix cache. Not compared: it describes how an answer was computed, not the answer.
    cached_tokens: int = field(default=0, compare=False)

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class TokenLogprob:
    """A token of an answer with its log-probability under the softmax of the model's unprocessed logits."""

    token: int  # id
    text: str  # U+FFFD when the token is part of a character
    data: bytes  # UTF-8
    logprob: float  # natural logarithm
    top: tuple[TokenLogprob, ...] = ()  # the most likely tokens at this position, best first
    rank: int | None = None  # among all tokens, 1 for the likeliest; only of a prompt's tokens
    asked: tuple[TokenLogprob, ...] = ()  # those of SamplingParams.logprob_token_ids, in that order


@dataclass(frozen=True)
class Completion:
    """One complete answer."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    heard: tuple[Heard, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()  # of every token, the end token included; empty unless requested
    # Of the prompt's tokens from `prompt_logprobs_start` on; None for the first token, before which nothing stands, and
    # for the positions of clips, which are no words. Empty unless requested.
    prompt_logprobs: tuple[TokenLogprob | None, ...] = ()
    parts: tuple[Part, ...] = ()  # of a long clip, all of them, used or not, in order of time within a level


@dataclass(slots=True)  # not frozen: one is made per token, and a frozen dataclass takes five times as long to make
class Chunk:
    """A delta of a streamed answer; the last one has no text and carries `finish_reason` and `usage`."""

    text: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    heard: tuple[Heard, ...] = field(default=())
    index: int = 0  # which of the `n` answers
    logprobs: tuple[TokenLogprob, ...] = ()  # of the tokens since the last chunk; empty unless requested
    error: Exception | None = None  # the cause when finish_reason is "error"
    num_tokens: int = field(default=0, compare=False)  # of the answer so far; 0 in the last chunk, which has the usage
    prompt_logprobs: tuple[TokenLogprob | None, ...] = ()  # in the last chunk of the first answer; see Completion
    embedding: Any = field(default=None, compare=False)  # float32 [H] or [T, H], in the last chunk; see PoolingParams
    part: Part | None = None  # of a long clip, as it was heard; such a chunk has no text
