"""Converts a chat request to what the engine takes: messages with their clips, and sampling parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..audio.formats import format_of
from ..engine.structured import tool_calls
from ..errors import ConfigError, PromptError, did_you_mean
from ..longform.questions.policy import Policy, parse_policy
from ..text.chat_template import ROLES, check_role
from ..types import Ending, Message, SamplingParams
from .errors import ApiError
from .media import Link, from_base64, from_data_url
from .protocol import ChatRequest, Sampling, json_type
from .settings import Settings
from .structured import constraint_of
from .tools import calls_as_text, in_order_of_calls, joined_turns, params_for, tool_use_of, with_tools

ALL_TOKENS = 1 << 31  # more than any vocabulary has
RENAMED_ROLES = {"developer": "system"}
# input_audio.format is not read: the clip's bytes say what it is. Raw samples have no header, and these formats promise
# them.
_RAW_FORMATS = ("pcm", "pcm16", "raw", "l16", "s16le", "g711_ulaw", "g711_alaw", "mulaw", "ulaw", "alaw")
_MESSAGE_KEYS = ("role", "content", "name")
# Keys of a message without which it would say something else, and that do not reach the model.
_REFUSED_KEYS = (
    "function_call",
    "audio",
    "audio_url",
    "audios",
    "input_audio",
    "image",
    "images",
    "files",
)
_KINDS = ("text", "input_audio", "audio_url", "audio")
FILE_SOURCES = ("file_data", "file_url")  # keys of an input_file
# Keys under which a part names its clip.
_SOURCES = {"audio_url": ("audio_url",), "audio": ("audio_url", "audio", "url"), "input_file": FILE_SOURCES}
_MAY_BE_BASE64 = ("audio", "file_data")  # as in transformers


@dataclass
class _MessageConverter:
    """Converts the messages of one request and counts their clips."""

    settings: Settings
    files: bool = False  # a clip may be an input_file, which is not of chat
    clips: int = 0

    def convert(self, message: Mapping[str, Any], where: str, place: str) -> Message:
        """`place`: the request's field of the content."""
        fields = {key: value for key, value in message.items() if value is not None and value != []}
        role = _role(fields.get("role"), where)
        for key in fields:  # any other one is the client's own, for which the chat template has no place
            near = "" if key in _MESSAGE_KEYS else did_you_mean(key, _MESSAGE_KEYS)
            if near or key in _REFUSED_KEYS:
                raise _invalid(f"{where}.{key} would not reach the model; leave it out.{near}", f"{where}.{key}")
        if "name" in fields:
            _text(fields["name"], f"{where}.name")
        content = fields.get("content")
        if content is None and role in ("assistant", "tool"):  # nothing but calls, or nothing came back
            content = ""
        if "tool_calls" in fields and role != "assistant":
            param = f"{where}.tool_calls"
            raise _invalid(f"{param} stands in a turn of {role}; only the assistant calls.", param)
        if isinstance(content, str):
            text = _text(content, place)
            return _with_calls({"role": role, "content": text}, fields.get("tool_calls"), where)
        if not isinstance(content, list):
            raise _invalid(f"{where} has no content; expected a string or a list of parts.", place)
        parts = [self.convert_part(part, f"{place}[{number}]") for number, part in enumerate(content)]
        return _with_calls({"role": role, "content": parts}, fields.get("tool_calls"), where)

    def convert_part(self, part: Any, where: str) -> dict[str, Any]:
        if not isinstance(part, dict):
            raise _invalid(f"{where} is {json_type(part)}; expected an object with a type.", where)
        part = _without_nulls(part)
        kind = _kind(part)
        if kind not in _KINDS and not (self.files and kind == "input_file"):
            raise _invalid(
                f"{where} has the type {kind!r}; the model takes {', '.join(_KINDS)}."
                f"{did_you_mean(kind, list(_KINDS)) if isinstance(kind, str) else ''}",
                where,
            )
        if kind == "text":
            _refuse_unknown(part, ("type", "text"), where)
            return {"type": "text", "text": _text(part.get("text"), f"{where}.text")}
        self.clips += 1
        if self.clips > self.settings.clips:
            raise _invalid(
                f"The request has more than {self.settings.clips} clips, the limit.", where, "too_many_clips"
            )
        return {"type": "audio", "audio": self.clip(kind, part, where)}

    def clip(self, kind: str, part: dict[str, Any], where: str) -> bytes | Link:
        if kind == "input_audio":
            _refuse_unknown(part, ("type", "input_audio", "uuid"), where)
            return self.inline_clip(part.get("input_audio"), f"{where}.input_audio")
        keys = _SOURCES[kind]
        _refuse_unknown(part, ("type", "uuid", *keys), where)
        present = [key for key in keys if key in part]
        if len(present) != 1:
            raise _invalid(f"{where} names {len(present)} clips; expected one, under {' or '.join(keys)}.", where)
        source, param = part[present[0]], f"{where}.{present[0]}"
        if isinstance(source, dict):
            source = _without_nulls(source)
            _refuse_unknown(source, ("url",), param)
            source, param = source.get("url"), f"{param}.url"
        elif part.get("type") == "audio_url" and isinstance(source, str):
            raise _invalid(f"{param} is a string; expected an object, {{'url': ...}}.", param)
        url = _text(source, param)
        if present[0] in _MAY_BE_BASE64 and not re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]*:", url):  # no URL
            return from_base64(url, param, self.settings.clip_bytes)
        return self.clip_of_url(url, param)

    def inline_clip(self, source: Any, where: str) -> bytes:
        if not isinstance(source, dict):
            raise _invalid(f"{where} is missing or no object; expected {{'data': base64, 'format': 'wav'}}.", where)
        source = _without_nulls(source)
        _refuse_unknown(source, ("data", "format"), where)
        param = f"{where}.format"
        audio_format = _text(source.get("format", "wav"), param).strip().lower()
        data = from_base64(_text(source.get("data"), f"{where}.data"), f"{where}.data", self.settings.clip_bytes)
        if audio_format.rpartition("/")[2].lstrip(".") in _RAW_FORMATS and format_of(data[:4096]) is None:
            raise _invalid(
                f"{param} is {audio_format!r} and the bytes have no header. Raw samples need a WAV header.", param
            )
        return data

    def clip_of_url(self, url: str, param: str) -> bytes | Link:
        url = url.strip()
        scheme = url[:6].lower()
        if scheme.startswith("data:"):
            return from_data_url(url, param, self.settings.clip_bytes)
        if not scheme.startswith(("http:", "https:", "file:")):
            raise _invalid(
                f"{param} is {url[:60]!r}; expected an http(s) URL, a data: URL, or a file: URL in the allowed folder.",
                param,
                "invalid_audio_url",
            )
        return Link(url, param)


def _kind(part: Mapping[str, Any]) -> Any:
    return part.get("type", next((key for key in _KINDS if key in part), None))


def _with_calls(message: Message, calls: Any, where: str) -> Message:
    """The turn with the assistant's calls behind its text, or with what a tool gave back, in Qwen2.5's words."""
    role, content = message["role"], message["content"]
    if role == "tool":
        role, (before, _, after) = "user", tool_calls.response_words("|").partition("|")
    elif calls is not None:
        before, after = "", ("\n" if content else "") + calls_as_text(calls, f"{where}.tool_calls")
    else:
        return message
    if isinstance(content, str):
        return {"role": role, "content": before + content + after}
    texts = [[{"type": "text", "text": text}] if text else [] for text in (before, after)]
    return {"role": role, "content": [*texts[0], *content, *texts[1]]}


def _role(role: Any, where: str) -> str:
    """The role as the chat template has it. ApiError unless it is one of OpenAI's, or another word."""
    if isinstance(role, str):
        try:
            check_role(role, where)
        except PromptError as error:
            if role not in RENAMED_ROLES:
                raise _invalid(str(error), f"{where}.role") from error
        return RENAMED_ROLES.get(role, role)
    what = "has no role" if role is None else f"has {json_type(role)} as its role"
    raise _invalid(f"{where} {what}; expected one of {', '.join((*ROLES, *RENAMED_ROLES))}.", f"{where}.role")


def messages_of(request: ChatRequest, settings: Settings) -> list[Message]:
    """The conversation; a clip is its bytes, or a Link that `media.fetch_links` replaces. ApiError names the field."""
    messages, use = conversation_of(request.messages, settings), tool_use_of(request)
    if use is None:
        return messages
    if request.echo:
        raise _invalid("echo has no place beside tools; leave one of them out.", "echo")
    return with_tools(messages, use)


def conversation_of(
    messages: Sequence[Any], settings: Settings, field: str = "messages", places: Sequence[str] | None = None
) -> list[Message]:
    """The conversation in a field of a request, as `messages_of`. What several tools gave back is one turn.

    `places`: the request's field of each message's content, where `field` is no list of these messages but input of
    OpenAI's newer paths, in which a clip may be an input_file.
    """
    if not messages:
        raise _invalid(f"{field} is empty; expected at least one message.", field)
    converter, converted, before = _MessageConverter(settings, files=places is not None), list[Message](), None
    for number in in_order_of_calls(messages):
        message, where = messages[number], f"{field}[{number}]"
        if not isinstance(message, dict):
            raise _invalid(f"{where} is {json_type(message)}; expected an object with a role.", where)
        if places is not None:
            where = places[number].rpartition(".")[0] or places[number]
        place = f"{where}.content" if places is None else places[number]
        turn, role = converter.convert(message, where, place), message.get("role")
        if role == before == "tool":
            turn = joined_turns(converted.pop(), turn)
        converted.append(turn)
        before = role
    return converted


def parts_of(parts: Sequence[Any], settings: Settings, field: str) -> list[dict[str, Any]]:
    """The parts of a message in a field of a request, as `messages_of`."""
    converter = _MessageConverter(settings)
    return [converter.convert_part(part, f"{field}[{number}]") for number, part in enumerate(parts)]


def clip_params(messages: Sequence[Any], places: Sequence[str] | None = None) -> list[str]:
    """The request's field of each clip of messages, such as `messages[0].content[1]`. `places` as in `conversation_of`,
    whose messages these are, before or after."""
    return [
        f"{places[number] if places else f'messages[{number}].content'}[{index}]"
        for number in in_order_of_calls(messages)
        if isinstance(messages[number].get("content"), list)
        for index, part in enumerate(messages[number]["content"])
        if _kind(_without_nulls(part)) != "text"
    ]


def long_of(request: ChatRequest) -> Policy:
    """What becomes of a clip of more than 30 s. ApiError for another value."""
    try:
        return parse_policy(request.long)
    except ConfigError as error:
        raise _invalid(str(error), "long") from error


def params_of(request: ChatRequest, settings: Settings) -> SamplingParams:
    """The sampling parameters. ApiError for a value out of range, or for fields that contradict each other."""
    if request.n > settings.answers:
        raise _invalid(f"n is {request.n}; expected at most {settings.answers}.", "n")
    if request.stream_options is not None and not request.stream:
        raise _invalid("stream_options was given without stream; leave it out, or set stream.", "stream_options")
    if request.top_logprobs is not None and not request.logprobs:
        raise _invalid("top_logprobs was given without logprobs; set logprobs to true.", "top_logprobs")
    if request.prompt_logprobs is not None and request.stream:
        raise _invalid("prompt_logprobs are not streamed; leave out stream.", "prompt_logprobs")
    if request.max_tokens is not None and request.max_completion_tokens not in (None, request.max_tokens):
        raise _invalid("max_tokens and max_completion_tokens differ; give one of them.", "max_tokens")
    form, use = constraint_of(request)[0], tool_use_of(request)
    answer = {"stop": tuple(request.stop), **(form if use is None else params_for(use, form))}
    return sampling_params(
        request,
        max_tokens=request.max_completion_tokens or request.max_tokens,
        min_tokens=request.min_tokens,
        logit_bias=_logit_bias(request.logit_bias or {}),
        logprobs=alternatives(request.top_logprobs or 0, "top_logprobs", settings) if request.logprobs else None,
        prompt_logprobs=(
            None
            if request.prompt_logprobs is None
            else alternatives(request.prompt_logprobs, "prompt_logprobs", settings)
        ),
        n=request.n,
        **answer,
    )


def ending_of(request: ChatRequest) -> Ending:
    """How the prompt ends. ApiError for two ends at once."""
    if not request.continue_final_message:
        return "answer" if request.add_generation_prompt else "closed"
    if request.add_generation_prompt and "add_generation_prompt" in request.model_fields_set:
        message = "continue_final_message goes on with the last message, and add_generation_prompt begins an answer; "
        raise _invalid(message + "give one of them.", "continue_final_message")
    return "continued"


def echo_of(request: ChatRequest, messages: Sequence[Message]) -> str:
    """What `echo` puts before the answer: the text of the last message, if it is an assistant's, as the answer is."""
    if not request.echo or messages[-1]["role"] != "assistant":
        return ""
    content = messages[-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def alternatives(asked: int, param: str, settings: Settings) -> int:
    """How many tokens are named beside one; -1 asks for all. ApiError for more than the operator allows."""
    allowed = settings.logprobs
    if allowed != -1 and not 0 <= asked <= allowed:
        what = "all tokens" if asked == -1 else str(asked)
        raise _invalid(
            f"{param} asks for {what}, and this server names at most {allowed} tokens beside one (--max-logprobs).",
            param,
        )
    return ALL_TOKENS if asked == -1 else asked


def sampling_params(request: Sampling, **others: Any) -> SamplingParams:
    """SamplingParams from the fields that chat and audio requests share, and from `others`."""
    shared = ("temperature", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty", "seed")
    fields = {name: getattr(request, name) for name in shared}
    top_k = None if request.top_k is None else max(request.top_k, 0)
    try:
        return SamplingParams(**{**fields, "top_k": top_k, "max_tokens": request.max_completion_tokens, **others})
    except ConfigError as error:
        raise ApiError(str(error), param=str(error).partition(" ")[0]) from error


def _logit_bias(bias_by_token: Mapping[str, float]) -> dict[int, float]:
    biases = {}
    wrong = [token for token in bias_by_token if not (token.isascii() and token.isdecimal() and len(token) < 10)]
    if wrong:
        keys = ", ".join(repr(token[:40]) for token in wrong[:8])
        raise _invalid(f"logit_bias has the key {keys}; expected token ids such as '50256'.", "logit_bias")
    for token, bias in bias_by_token.items():
        if not -100 <= bias <= 100:
            raise _invalid(f"logit_bias of {token} is {bias:g}; expected a number between -100 and 100.", "logit_bias")
        biases[int(token)] = float(bias)
    return biases


def _without_nulls(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _refuse_unknown(part: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in part:
        if key not in known:
            near = did_you_mean(key, known)
            raise _invalid(f"{where}.{key} is not read; expected {', '.join(known)}.{near}", f"{where}.{key}")


def _text(value: Any, param: str) -> str:
    if not isinstance(value, str):
        what = "is missing" if value is None else f"is {json_type(value)}"
        raise _invalid(f"{param} {what}; expected a string.", param)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _invalid(f"{param} holds half of a surrogate pair, which is no character.", param) from error
    return value


def _invalid(message: str, param: str, code: str = "invalid_value") -> ApiError:
    return ApiError(message, param=param, code=code)
