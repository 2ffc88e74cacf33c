"""Types that every layer shares: sampling parameters, messages, completions. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import ConfigError

FinishReason = Literal["stop", "length", "context", "cancelled", "deadline", "error"]
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
    n: int = 1  # answers, drawn independently

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        at_least = {"max_tokens": 1, "min_tokens": 0, "temperature": 0, "top_k": 0, "logprobs": 0, "n": 1}
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
        if not all(self.stop):
            raise ConfigError("stop holds an empty string; every stop string needs at least one character.")


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


@dataclass(frozen=True)
class Completion:
    """One complete answer."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    heard: tuple[Heard, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()  # of every token, the end token included; empty unless requested
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
    part: Part | None = None  # of a long clip, as it was heard; such a chunk has no text
