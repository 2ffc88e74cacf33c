"""Response bodies of chat completions, complete and streamed, in the shapes of OpenAI's client (`openai` 3.x)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..types import Chunk, Completion, FinishReason, Heard, TokenLogprob, Usage
from .tools import ToolUse, answer_message

# Our finish reasons in OpenAI's words. An answer that ends for any other reason is sent as an error.
OPENAI_FINISH_REASON: dict[FinishReason, str] = {"stop": "stop", "length": "length", "context": "length"}
MIN_LOGPROB = -9999.0  # OpenAI's stand-in for the logarithm of 0


@dataclass(frozen=True)
class Envelope:
    """The fields that all bodies of one response share."""

    model: str
    object: str = "chat.completion"
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def with_choices(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """A response body with these choices and `more` top-level fields."""
        return {
            "id": self.id, "object": self.object, "created": self.created, "model": self.model,
            "system_fingerprint": None, "choices": choices, **more,
        }  # fmt: skip


def completion_body(
    envelope: Envelope, answers: Sequence[Completion], *, logprobs: bool, use: ToolUse | None = None, echo: str = ""
) -> dict[str, Any]:
    """The body of a response that is not streamed. `use`: the tools that the answers may call. `echo`: text that stands
    before each answer."""
    choices = []
    for index, answer in enumerate(answers):
        message: dict[str, Any] = {"role": "assistant", "content": echo + answer.text, "refusal": None}
        reason = None
        if use is not None:
            message, reason = answer_message(answer, use)
        shown = logprobs_body(answer.logprobs) if logprobs else None
        finish = finish_fields(answer.finish_reason) if reason is None else {"finish_reason": reason}
        choices.append({"index": index, "message": message, "logprobs": shown, **finish})
    more: dict[str, Any] = {}
    if prompt := answers[0].prompt_logprobs:
        more["prompt_logprobs"] = prompt_logprobs_body(prompt)
    if parts := answers[0].parts:
        more["parts"] = [part.to_dict() for part in parts]
    return envelope.with_choices(choices, usage=usage_body([a.usage for a in answers], answers[0].heard), **more)


def delta_choice(chunk: Chunk, delta: dict[str, Any], *, logprobs: bool, last: bool = False) -> dict[str, Any]:
    """The only choice of a streamed chunk; `last`: the one that tells the finish reason."""
    return {
        "index": chunk.index,
        "delta": delta,
        "logprobs": logprobs_body(chunk.logprobs) if logprobs and not last else None,
        **(finish_fields(chunk.finish_reason) if last and chunk.finish_reason else {"finish_reason": None}),
    }


def finish_fields(reason: FinishReason) -> dict[str, Any]:
    """`finish_reason` in OpenAI's words, and `finish_detail` in ours if it says more."""
    fields = {"finish_reason": OPENAI_FINISH_REASON[reason]}
    return fields if fields["finish_reason"] == reason else {**fields, "finish_detail": reason}


def logprobs_body(tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
    """The `logprobs` of a choice."""
    content = [{**_token(token), "top_logprobs": [_token(other) for other in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def prompt_logprobs_body(tokens: Iterable[TokenLogprob | None]) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: for each position of the prompt, its token and the likeliest ones by their ids."""
    return [
        None
        if token is None
        else {
            str(one.token): {"logprob": max(one.logprob, MIN_LOGPROB), "rank": one.rank, "decoded_token": one.text}
            for one in (token, *token.top)
        }
        for token in tokens
    ]


def _token(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.text, "logprob": max(token.logprob, MIN_LOGPROB), "bytes": list(token.data)}


def usage_body(usages: Sequence[Usage], heard: Sequence[Heard]) -> dict[str, Any]:
    """The `usage` of a request, its prompt counted once for all answers, and what was heard of each clip."""
    first, completion = usages[0], sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": first.prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": first.prompt_tokens + completion,
        "prompt_tokens_details": {
            "audio_tokens": first.audio_tokens,
            "cached_tokens": first.cached_tokens,
            "audio_seconds": round(sum(clip.seconds for clip in heard), 3),
        },
        "heard": heard_body(heard),
    }


def running_usage(prompt: Usage | None, completion: int) -> dict[str, int]:
    """The `usage` of a request so far."""
    prompt_tokens = 0 if prompt is None else prompt.prompt_tokens
    return {
        "prompt_tokens": prompt_tokens, "completion_tokens": completion, "total_tokens": prompt_tokens + completion,
    }  # fmt: skip


def heard_body(heard: Sequence[Heard]) -> list[dict[str, Any]]:
    """What was heard of each clip, with `notes` where something of it was lost or left out."""
    return [{**clip.to_dict(), "seconds": round(clip.seconds, 3)} for clip in heard]
