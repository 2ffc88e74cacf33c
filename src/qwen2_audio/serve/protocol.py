"""The request schemas: the fields of OpenAI's API, and of vLLM's additions, that this server honours.

Every field below has an effect, and an unknown field is an error that names it. Fields in `NEUTRAL` have no effect;
they are accepted with values that ask for nothing, so that clients which send all their defaults are served.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..errors import did_you_mean
from .errors import ApiError

# field -> values that change nothing, reason why other values are refused
NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    "functions": (([],), "its name is tools today"),
    "function_call": (("none", "auto"), "its name is tool_choice today"),
    "modalities": ((["text"],), "answers are text; it does not speak"),
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
    "add_special_tokens": ((False,), "the chat template has them all"),
}


# Fields that clients of older servers send -> what they are called today.
RENAMED = {
    "guided_json": "structured_outputs.json",
    "guided_regex": "structured_outputs.regex",
    "guided_choice": "structured_outputs.choice",
    "guided_grammar": "structured_outputs.grammar",
    "guided_json_object": "structured_outputs.json_object",
    "guided_whitespace_pattern": "structured_outputs.whitespace_pattern",
    "json_schema": "response_format.json_schema",
    "regex": "structured_outputs.regex",
    "choice": "structured_outputs.choice",
    "grammar": "structured_outputs.grammar",
}


# pydantic's words for a value that is no JSON object; they name classes.
_NO_OBJECT = re.compile(r"Input should be a valid dictionary.*|Input should be an instance of .*")


class Fields(BaseModel):
    """A part of a request whose fields are all known. One that is null counts as absent."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None}


# OpenAI's limits.
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class StreamOptions(Fields):
    """What a stream sends besides the text."""

    include_usage: bool = False
    continuous_usage_stats: bool = False  # vLLM's: the usage so far in every chunk
    include_obfuscation: Literal[False] = False


class NamedSchema(Fields):
    """A JSON schema with its name."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")  # None: any object
    strict: bool | None = None  # it is kept in any case


class ResponseFormat(Fields):
    """What the answer is held to, as OpenAI spells it."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class StructuredOutputs(Fields):
    """What the answer is held to, as vLLM spells it: one of the first five, and how JSON is written."""

    json_schema: Any = Field(default=None, alias="json")  # checked in structured.py
    regex: str | None = None
    choice: Annotated[list[str], Field(min_length=1)] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    disable_any_whitespace: bool | None = None
    disable_additional_properties: bool | None = None
    whitespace_pattern: str | None = None
    disable_fallback: bool = False  # to another library; there is none


ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Function(Fields):
    """A function that an answer may call."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None  # JSON schema of its arguments; None: any object
    strict: bool | None = None  # true: a schema that cannot be honoured is refused also where no call has to be made


class CustomGrammar(Fields):
    """A grammar of a custom tool's input."""

    syntax: Literal["lark", "regex"]
    definition: str


class CustomFormat(Fields):
    """What a custom tool's input is held to."""

    type: Literal["text", "grammar"]
    grammar: CustomGrammar | None = None


class Custom(Fields):
    """A custom tool, whose input is text."""

    name: ToolName
    description: str | None = None
    format: CustomFormat | None = None  # None: any text


class ToolItem(Fields):
    """A tool as OpenAI spells it: one of the two, which `type` names."""

    type: Literal["function", "custom"]
    function: Function | None = None
    custom: Custom | None = None


class Sampling(Fields):
    """Sampling fields that chat and audio requests share."""

    model: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31)] | None = None  # 0 and vLLM's -1: all tokens
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None


class CacheHints(Fields):
    """OpenAI's fields about its prompt cache, without effect: ours finds prompts by their content."""

    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None


class Body(Fields):
    """The body of a request that draws no answer; routes have their own."""

    model: str | None = None
    priority: Annotated[int, Field(ge=0, le=1000)] = 0  # as in ChatRequest


class ChatRequest(Sampling, CacheHints):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]]  # checked in convert.py
    max_tokens: Annotated[int, Field(ge=1, le=2**31)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=2**31)] | None = None
    n: Annotated[int, Field(ge=1)] = 1
    stop: Annotated[list[str], BeforeValidator(_listed), Field(max_length=16)] = []
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=-1)] | None = None  # -1: all tokens; the server has a limit
    prompt_logprobs: Annotated[int, Field(ge=-1)] | None = None  # vLLM's, and the next three
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    echo: bool = False
    logit_bias: Annotated[dict[str, float], Field(max_length=1024)] | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None  # vLLM's
    tools: Annotated[list[ToolItem], Field(max_length=128)] = []
    tool_choice: Any = None  # checked in tools.py
    parallel_tool_calls: bool = True
    priority: Annotated[int, Field(ge=0, le=1000)] = 0  # vLLM's: a higher value waits longer
    long: str = "refuse"  # what becomes of a clip of more than 30 s; checked in convert.py
    user: Annotated[str, Field(max_length=256)] | None = None  # this and the next two are only logged
    safety_identifier: Annotated[str, Field(max_length=256)] | None = None
    metadata: Metadata | None = None


class SpeechRequest(Sampling):
    """POST /v1/audio/transcriptions and /v1/audio/translations, without the file."""

    language: str | None = None
    to_language: str | None = None  # vLLM's, of translations
    prompt: Annotated[str, Field(max_length=4000)] | None = None
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    timestamp_granularities: list[Literal["segment", "word"]] = []
    include: list[Literal["logprobs"]] = []
    stream: bool = False
    stream_include_usage: bool = True  # vLLM's, and the next one: usage in the last event, and in every event
    stream_continuous_usage_stats: bool = False
    chunking_strategy: Literal["auto"] | None = None  # accepted: a clip is one window and so one chunk


_Request = TypeVar("_Request", bound=BaseModel)


def parse_chat(fields: Any) -> ChatRequest:
    """Validates a request body. ApiError names the field that is wrong."""
    if not isinstance(fields, dict):
        raise ApiError(f"The body is {json_type(fields)}; expected an object with 'messages'.")
    return _validated(ChatRequest, without_neutral(fields))


def parse_speech(fields: Mapping[str, Any]) -> SpeechRequest:
    """Validates the fields of a form. ApiError names the field that is wrong."""
    return _validated(SpeechRequest, dict(fields))


def parse_body(model: type[_Request], fields: Any) -> _Request:
    """Validates a body of JSON; a field that is null counts as absent. ApiError names the field that is wrong."""
    if not isinstance(fields, dict):
        needed = [name for name, item in model.model_fields.items() if item.is_required()]
        raise ApiError(f"The body is {json_type(fields)}; expected an object with {' and '.join(map(repr, needed))}.")
    return _validated(model, {name: value for name, value in fields.items() if value is not None})


def without_neutral(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` without those that are null or in NEUTRAL. ApiError for a NEUTRAL field with any other value."""
    remaining = {}
    for name, value in fields.items():
        if value is None:
            continue
        if isinstance(value, dict):  # null counts as absent inside an object too: {"include_usage": null}
            value = {key: inner for key, inner in value.items() if inner is not None}
        if name in NEUTRAL:
            accepted, reason = NEUTRAL[name]
            if not any(value == neutral and type(value) is type(neutral) for neutral in accepted):
                raise ApiError(f"{name} cannot be honoured: {reason}.", param=name, code="unsupported_value")
            continue
        remaining[name] = value
    return remaining


def _validated(model: type[_Request], fields: dict[str, Any]) -> _Request:
    try:
        return model.model_validate(fields)
    except ValidationError as errors:
        raise _explain(errors, fields, list(model.model_fields)) from errors


def _explain(errors: ValidationError, fields: dict[str, Any], known: list[str]) -> ApiError:
    """The first validation error as a sentence."""
    error = errors.errors(include_url=False, include_context=False)[0]
    keys = [key for key in error["loc"] if key != "[key]"]  # pydantic's mark of a name that is wrong itself
    param = "".join(f"[{key}]" if isinstance(key, int) else f".{key[:80]}" for key in keys).lstrip(".")
    if error["type"] == "extra_forbidden":
        today = RENAMED.get(param)
        near = did_you_mean(str(error["loc"][-1])[:80], known) if today is None else f" It is {today} today."
        return ApiError(
            f"{param} is not a field that this server honours.{near}", param=param, code="unknown_parameter"
        )
    if error["type"] == "missing":
        return ApiError(f"{param} is missing; it is required.", param=param, code="missing_required_parameter")
    value = json.dumps(error["input"], ensure_ascii=False, default=repr)
    value = value if len(value) <= 100 else value[:100] + "..."
    return ApiError(f"{param} is {value}. {_NO_OBJECT.sub('Input should be an object', error['msg'])}.", param=param)


def json_type(value: Any) -> str:
    """What JSON calls the type of `value`, with its article."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "a value")
