"""A chat request to what the engine takes: messages with their clips, and how the answer is to be drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, did_you_mean
from ..types import Message, SamplingParams
from .errors import ApiError
from .media import Link, from_base64, from_data_url
from .protocol import ChatRequest, Sampling
from .settings import Settings

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# What sounds are called in input_audio. The bytes decide; raw samples have no header, so they cannot be told.
FORMATS = (
    "wav", "mp3", "flac", "ogg", "opus", "webm", "m4a", "mp4", "aac", "mpga", "mpeg", "aiff", "caf", "amr", "3gp",
)  # fmt: skip
_MESSAGE_KEYS = ("role", "content", "name")
_KINDS = ("text", "input_audio", "audio_url", "audio")


@dataclass
class _Reader:
    """Walks the messages of one request."""

    settings: Settings
    clips: int = 0

    def message(self, message: Mapping[str, Any], where: str) -> Message:
        given = {key: value for key, value in message.items() if value is not None and value != []}
        role = given.get("role")
        if not isinstance(role, str) or role not in ROLES:
            what = "has no role" if role is None else f"has the role {role!r}"
            raise _wrong(f"{where} {what}; expected one of {', '.join(ROLES)}.", f"{where}.role")
        for key in given:
            if key not in _MESSAGE_KEYS or key == "name":
                near = did_you_mean(key, _MESSAGE_KEYS)
                raise _wrong(f"{where}.{key} would not reach the model; leave it out.{near}", f"{where}.{key}")
        content = given.get("content")
        if isinstance(content, str):
            return {"role": ROLES[role], "content": _text(content, f"{where}.content")}
        if not isinstance(content, list):
            raise _wrong(f"{where} has no content; expected a string or a list of parts.", f"{where}.content")
        parts = [self.part(part, f"{where}.content[{number}]") for number, part in enumerate(content)]
        return {"role": ROLES[role], "content": parts}

    def part(self, part: Any, where: str) -> dict[str, Any]:
        if not isinstance(part, dict):
            raise _wrong(f"{where} is a {type(part).__name__}; expected an object with a type.", where)
        part = {key: value for key, value in part.items() if value is not None}
        kind = part.get("type", next((key for key in _KINDS if key in part), None))
        if kind not in _KINDS:
            raise _wrong(
                f"{where} has the type {kind!r}; the model takes {', '.join(_KINDS)}."
                f"{did_you_mean(kind, list(_KINDS)) if isinstance(kind, str) else ''}",
                where,
            )
        if kind == "text":
            _only(part, ("type", "text"), where)
            return {"type": "text", "text": _text(part.get("text"), f"{where}.text")}
        self.clips += 1
        if self.clips > self.settings.clips:
            raise _wrong(f"The request has more than {self.settings.clips} clips, the limit.", where, "too_many_clips")
        return {"type": "audio", "audio": self.sound(kind, part, where)}

    def sound(self, kind: str, part: dict[str, Any], where: str) -> bytes | Link:
        if kind == "input_audio":
            _only(part, ("type", "input_audio", "uuid"), where)
            return self.sent(part.get("input_audio"), f"{where}.input_audio")
        keys = ("audio_url",) if kind == "audio_url" else ("audio_url", "audio", "url")
        _only(part, ("type", "uuid", *keys), where)
        named = [key for key in keys if key in part]
        if len(named) != 1:
            raise _wrong(f"{where} names {len(named)} sounds; expected one, under {' or '.join(keys)}.", where)
        source, param = part[named[0]], f"{where}.{named[0]}"
        if isinstance(source, dict):
            _only(source, ("url",), param)
            source, param = source.get("url"), f"{param}.url"
        return self.named(_text(source, param), param)

    def sent(self, sound: Any, where: str) -> bytes:
        if not isinstance(sound, dict):
            raise _wrong(f"{where} is missing or no object; expected {{'data': base64, 'format': 'wav'}}.", where)
        _only(sound, ("data", "format"), where)
        form = sound.get("format", "wav")
        if form not in FORMATS:
            raise _wrong(
                f"{where}.format is {form!r}; expected one of {', '.join(FORMATS)}. Raw samples need a WAV header.",
                f"{where}.format",
            )
        data = _text(sound.get("data"), f"{where}.data")
        return from_base64(data, f"{where}.data", self.settings.clip_bytes)

    def named(self, url: str, param: str) -> bytes | Link:
        scheme = url[:6].lower()
        if scheme.startswith("data:"):
            return from_data_url(url, param, self.settings.clip_bytes)
        if not scheme.startswith(("http:", "https:", "file:")):
            raise _wrong(
                f"{param} is {url[:60]!r}; expected an http(s) URL, a data: URL, or a file: URL in the allowed folder.",
                param,
                "invalid_audio_url",
            )
        return Link(url, param)


def messages_of(request: ChatRequest, settings: Settings) -> list[Message]:
    """The conversation; clips are bytes, or a Link where they are still to be fetched. ApiError names the place."""
    if not request.messages:
        raise _wrong("messages is empty; expected at least one message.", "messages")
    reader = _Reader(settings)
    return [reader.message(message, f"messages[{number}]") for number, message in enumerate(request.messages)]


def params_of(request: ChatRequest, settings: Settings) -> SamplingParams:
    """How the answers are drawn. ApiError for values that cannot be, or that exclude each other."""
    if request.n > settings.answers:
        raise _wrong(f"n is {request.n}; expected at most {settings.answers}.", "n")
    if request.stream_options is not None and not request.stream:
        raise _wrong("stream_options was given without stream; leave it out, or set stream.", "stream_options")
    if request.top_logprobs is not None and not request.logprobs:
        raise _wrong("top_logprobs was given without logprobs; set logprobs to true.", "top_logprobs")
    if request.max_tokens is not None and request.max_completion_tokens not in (None, request.max_tokens):
        raise _wrong("max_tokens and max_completion_tokens differ; give one of them.", "max_tokens")
    return drawn_as(
        request,
        max_tokens=request.max_completion_tokens or request.max_tokens,
        min_tokens=request.min_tokens,
        logit_bias=_biases(request.logit_bias or {}),
        stop=tuple(request.stop),
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        n=request.n,
    )


def drawn_as(request: Sampling, **others: Any) -> SamplingParams:
    """SamplingParams from the fields that chat and speech share, and `others`."""
    shared = ("temperature", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty", "seed")
    fields = {name: getattr(request, name) for name in shared}
    top_k = None if request.top_k is None else max(request.top_k, 0)
    try:
        return SamplingParams(**{**fields, "top_k": top_k, "max_tokens": request.max_completion_tokens, **others})
    except ConfigError as error:
        raise ApiError(str(error), param=str(error).partition(" ")[0]) from error


def _biases(given: Mapping[str, float]) -> dict[int, float]:
    biases = {}
    for token, bias in given.items():
        if not (token.isascii() and token.isdecimal() and len(token) < 10):
            raise _wrong(f"logit_bias has the key {token[:40]!r}; expected token ids such as '50256'.", "logit_bias")
        if not -100 <= bias <= 100:
            raise _wrong(f"logit_bias of {token} is {bias:g}; expected a number between -100 and 100.", "logit_bias")
        biases[int(token)] = float(bias)
    return biases


def _only(part: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in part:
        if key not in known:
            near = did_you_mean(key, known)
            raise _wrong(f"{where}.{key} is not read; expected {', '.join(known)}.{near}", f"{where}.{key}")


def _text(value: Any, param: str) -> str:
    if not isinstance(value, str):
        what = "is missing" if value is None else f"is a {type(value).__name__}"
        raise _wrong(f"{param} {what}; expected a string.", param)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _wrong(f"{param} holds half of a surrogate pair, which is no character.", param) from error
    return value


def _wrong(message: str, param: str, code: str = "invalid_value") -> ApiError:
    return ApiError(message, param=param, code=code)
