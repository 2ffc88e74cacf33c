"""The bodies of chat answers, whole and streamed, in the shapes of OpenAI's client types (`openai` 3.x)."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..types import Chunk, Completion, FinishReason, Heard, TokenLogprob, Usage

# OpenAI's words for how an answer ends; one that ends in another way is an error there.
FINISH: dict[FinishReason, str] = {"stop": "stop", "length": "length", "context": "length"}
FLOOR = -9999.0  # stands for the logarithm of 0, as OpenAI has it


@dataclass(frozen=True)
class Head:
    """What all parts of one answer have in common."""

    model: str
    object: str = "chat.completion"
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def with_choices(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """A body."""
        return {
            "id": self.id, "object": self.object, "created": self.created, "model": self.model,
            "system_fingerprint": None, "choices": choices, **more,
        }  # fmt: skip


def completion_body(head: Head, answers: Sequence[Completion], *, logprobs: bool) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": logprobs_body(answer.logprobs) if logprobs else None,
            **finish_fields(answer.finish_reason),
        }
        for index, answer in enumerate(answers)
    ]
    return head.with_choices(choices, usage=usage_body([a.usage for a in answers], answers[0].heard))


def delta_choice(chunk: Chunk, delta: dict[str, Any], *, logprobs: bool, last: bool = False) -> dict[str, Any]:
    """The one choice of a streamed piece."""
    return {
        "index": chunk.index,
        "delta": delta,
        "logprobs": logprobs_body(chunk.logprobs) if logprobs and not last else None,
        **(finish_fields(chunk.finish_reason) if last and chunk.finish_reason else {"finish_reason": None}),
    }


def finish_fields(reason: FinishReason) -> dict[str, Any]:
    """`finish_reason` in OpenAI's words, and ours beside it where those say less."""
    said = FINISH[reason]
    return {"finish_reason": said} if said == reason else {"finish_reason": said, "finish_detail": reason}


def logprobs_body(tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
    """A choice's logprobs."""
    content = [{**_token(one), "top_logprobs": [_token(other) for other in one.top]} for one in tokens]
    return {"content": content, "refusal": None}


def _token(one: TokenLogprob) -> dict[str, Any]:
    return {"token": one.text, "logprob": max(one.logprob, FLOOR), "bytes": list(one.data)}


def usage_body(usages: Sequence[Usage], heard: Sequence[Heard]) -> dict[str, Any]:
    """What a request cost: the prompt once, however many answers; and what was heard of each clip."""
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
        "heard": [{"seconds": round(clip.seconds, 3), "tokens": clip.tokens} for clip in heard],
    }
