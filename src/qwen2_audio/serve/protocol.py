"""The requests of the OpenAI API, as far as this server honours them, and vLLM's additions to it.

Every field here acts. One that asks for something else is refused by name, unless its value asks for nothing:
`NEUTRAL` has those, so that a client which writes out its defaults is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..errors import did_you_mean
from .errors import ApiError

# What other values of these would ask for.
NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    "tools": (([],), "no tools are called"),
    "tool_choice": (("none", "auto"), "no tools are called"),
    "functions": (([],), "no functions are called"),
    "function_call": (("none", "auto"), "no functions are called"),
    "parallel_tool_calls": ((True, False), "no tools are called"),
    "modalities": ((["text"],), "answers are text; it does not speak"),
    "response_format": (({"type": "text"},), "answers are not held to a JSON schema"),
    "store": ((False,), "nothing is stored"),
    "service_tier": (("auto", "default"), "there is one tier"),
    "verbosity": (("medium",), "ask for it in the prompt"),
    "reasoning_effort": (("none",), "the model does not reason first"),
    "best_of": ((1,), "ask for n answers"),
    "use_beam_search": ((False,), "answers are drawn"),
    "length_penalty": ((1, 1.0), "it belongs to beam search"),
    "ignore_eos": ((False,), "answers end where the model ends them"),
    "stop_token_ids": (([],), "give strings under stop"),
    "include_stop_str_in_output": ((False,), "a stop string is not part of the answer"),
    "skip_special_tokens": ((True,), "control tokens are not text"),
    "spaces_between_special_tokens": ((True, False), "control tokens are not text"),
    "add_generation_prompt": ((True,), "the answer is always a turn of its own"),
    "continue_final_message": ((False,), "the answer is always a turn of its own"),
    "add_special_tokens": ((False,), "the chat template has them all"),
    "echo": ((False,), "the answer is the answer alone"),
}


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class StreamOptions(_Fields):
    """What a stream tells besides the text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class Sampling(_Fields):
    """How the answer is drawn: what both APIs have in common."""

    model: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31)] | None = None  # vLLM writes -1 for all of them
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]]  # read by convert.py
    max_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=2**31)] | None = None
    n: Annotated[int, Field(ge=1)] = 1
    stop: Annotated[list[str], BeforeValidator(_listed), Field(max_length=16)] = []
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=1024)] | None = None
    priority: Annotated[int, Field(ge=0, le=1000)] = 0  # vLLM's: higher waits longer; nobody may push in
    user: Annotated[str, Field(max_length=256)] | None = None  # this and the next two are written to the log
    safety_identifier: Annotated[str, Field(max_length=256)] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None


class SpeechRequest(Sampling):
    """The fields of POST /v1/audio/transcriptions and translations, the file apart."""

    language: str | None = None
    prompt: Annotated[str, Field(max_length=4000)] | None = None
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    timestamp_granularities: list[Literal["segment"]] = []
    include: list[Literal["logprobs"]] = []
    stream: bool = False
    chunking_strategy: Literal["auto"] | None = None  # a clip of one window is one chunk


_Request = TypeVar("_Request", bound=Sampling)


def parse_chat(fields: Any) -> ChatRequest:
    """A request body, checked. ApiError names the field that is wrong."""
    if not isinstance(fields, dict):
        raise ApiError(f"The body is a JSON {type(fields).__name__}; expected an object with 'messages'.")
    return _validated(ChatRequest, without_neutral(fields))


def parse_speech(fields: Mapping[str, Any]) -> SpeechRequest:
    """The fields of a form, checked. ApiError names the field that is wrong."""
    return _validated(SpeechRequest, dict(fields))


def without_neutral(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Less the fields that ask for nothing: those that are null, and those whose value is what happens anyway."""
    kept = {}
    for name, value in fields.items():
        if value is None:
            continue
        if name in NEUTRAL:
            accepted, reason = NEUTRAL[name]
            if not any(value == one and type(value) is type(one) for one in accepted):
                raise ApiError(f"{name} cannot be honoured: {reason}.", param=name, code="unsupported_value")
            continue
        kept[name] = value
    return kept


def _validated(model: type[_Request], fields: dict[str, Any]) -> _Request:
    try:
        return model.model_validate(fields)
    except ValidationError as errors:
        raise _explain(errors, fields, list(model.model_fields)) from errors


def _explain(errors: ValidationError, fields: dict[str, Any], known: list[str]) -> ApiError:
    """The first thing that is wrong, in a sentence."""
    error = errors.errors(include_url=False, include_context=False)[0]
    param = "".join(f"[{key}]" if isinstance(key, int) else f".{key[:80]}" for key in error["loc"]).lstrip(".")
    if error["type"] == "extra_forbidden":
        near = did_you_mean(str(error["loc"][-1])[:80], known)
        return ApiError(
            f"{param} is not a field that this server honours.{near}", param=param, code="unknown_parameter"
        )
    if error["type"] == "missing":
        return ApiError(f"{param} is missing; it is required.", param=param, code="missing_required_parameter")
    found = repr(error["input"])
    found = found if len(found) <= 100 else found[:100] + "..."
    return ApiError(f"{param} is {found}. {error['msg']}.", param=param)
