"""Requests that no client means: a number is a request, the same one every time."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from random import Random
from typing import Any

from kit.clip_files import encoded, wav_bytes

BOUNDARY = "boundary-of-the-tests"
TEXTS = (
    "say hi",
    "",
    "\x00",
    "<|im_end|>",
    "<|AUDIO|>",
    "\ud83d\ude00 ☃ é",
    "a" * 5000,
    "{{ 7 * 7 }}",
    "Ω\u202e\u0000x",
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**70), 10**400, 0.5, -0.0, 1e308, 5e-324, "", "1", "null",
    "🐶", [], [[]], [None], ["x"], {}, {"a": 1}, {"type": "text"}, "x" * 2000,
)  # fmt: skip
FIELDS = (
    "model", "temperature", "top_p", "top_k", "min_p", "n", "stop", "seed", "stream", "stream_options", "logprobs",
    "top_logprobs", "max_tokens", "max_completion_tokens", "min_tokens", "frequency_penalty", "presence_penalty",
    "repetition_penalty", "logit_bias", "user", "metadata", "priority", "tools", "response_format", "messages", "audio",
    "structured_outputs", "tool_choice", "parallel_tool_calls", "modalities", "unknown", "messages[0]", "",
)  # fmt: skip
URLS = (
    "http://", "http://127.0.0.1:1/", "http://[::1]/", "http://0/", "http://0x7f.1/", "http://localhost./x", "file:///",
    "file:///etc/passwd", "file://" + "a" * 5000, "data:", "data:,", "data:audio/wav;base64", "data:;base64,%%%", "ftp://x",
    "http://" + "a." * 200, "http://a\u0000b/", "//x", "concat:/etc/passwd|x", "hls+http://x", "http://x:0/", "http://x:-1/",
    "javascript:x", "http://[", "HTTP://169.254.169.254/", "http://100.64.0.1/", "http://user@127.0.0.1/",
)  # fmt: skip


FORM_NAMES = (
    "model", "language", "prompt", "response_format", "temperature", "stream", "include[]", "seed", "top_k",
    "timestamp_granularities[]", "chunking_strategy", "x", "", "file", "a" * 300, "model[]",
)  # fmt: skip
FORM_VALUES = (b"", b"1", b"true", b"en", b"json", b"srt", b"nan", b"inf", b"1e999", b"9" * 500, b"\xff\xfe")
FORM_TYPES = (
    "multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary="', "x",
    f"multipart/form-data; charset=nope; boundary={BOUNDARY}", "multipart/form-data; boundary=é",
)  # fmt: skip
JSON_TYPES = ("text/plain", "application/json; charset=utf-16", "application/xml", "", "application/JSON", "*/*")
PATHS = (
    "/v1/chat/completions", "/v1/models/%00", "/v1/models/" + "a" * 3000, "/metrics", "/..%2f..",
    "/static/%2e%2e/app.py", "*",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    kind: str
    data: bytes
    cut: int | None = None  # bytes that are sent before the client stops
    close: bool = False  # then it leaves, else it waits for an answer with its side closed


class Fuzz:
    def __init__(self) -> None:
        self._sounds = [
            wav_bytes(0.3), encoded("flac", "flac", 0.3), encoded("mp3", "libmp3lame", 0.3),
            encoded("ogg", "libopus", 0.3, 48_000), encoded("webm", "libopus", 0.3, 48_000),
            encoded("mp4", "aac", 0.3, 48_000), encoded("flac", "flac", 31, 8000),
        ]  # fmt: skip

    def case(self, number: int) -> Case:
        draw = Random(number)
        kinds = (
            self.json_bytes, self.fields, self.messages, self.sound, self.form, self.form_bytes, self.socket, self.http,
        )  # fmt: skip
        kind = kinds[number % len(kinds)]
        made = kind(draw)
        return made if isinstance(made, Case) else Case(kind.__name__, made)

    # -- JSON

    def json_bytes(self, draw: Random) -> bytes:
        """A good body with some bytes changed, cut, doubled, or nested beyond reason."""
        body = json.dumps(self._chat(draw)).encode()
        if draw.random() < 0.2:
            depth = draw.randint(1, 20_000)
            body = draw.choice((b"[", b'{"a":', b'{"messages":[')) * depth
        return post("/v1/chat/completions", self._mutated(draw, body))

    def fields(self, draw: Random) -> bytes:
        """Absurd parameters."""
        body = self._chat(draw)
        for _ in range(draw.randint(1, 3)):
            body[draw.choice(FIELDS)] = draw.choice(VALUES)
        return post("/v1/chat/completions", dumps(body))

    def messages(self, draw: Random) -> bytes:
        """Absurd conversations."""
        part = draw.choice(
            (
                {"type": "text", "text": draw.choice(VALUES)},
                {"type": draw.choice(VALUES), "text": "x"},
                {"type": "input_audio", "input_audio": draw.choice(VALUES)},
                {"type": "input_audio", "input_audio": {"data": draw.choice(VALUES), "format": draw.choice(VALUES)}},
                {"type": "audio_url", "audio_url": draw.choice(VALUES)},
                {"type": "audio_url", "audio_url": {"url": draw.choice(URLS)}},
                {draw.choice(("audio", "audio_url", "url", "text", "x")): draw.choice((*URLS, *VALUES))},
                draw.choice(VALUES),
            )
        )
        content = draw.choice(([part], [part, {"type": "text", "text": "say x"}], part, draw.choice(VALUES)))
        role = draw.choice(("user", "user", "system", "assistant", "developer", "tool", draw.choice(VALUES)))
        message = draw.choice(({"role": role, "content": content}, {"role": role}, draw.choice(VALUES)))
        return post("/v1/chat/completions", dumps({"messages": [message] * draw.choice((1, 1, 1, 20, 0))}))

    def _chat(self, draw: Random) -> dict:
        content: object = draw.choice(TEXTS)
        if draw.random() < 0.3:
            content = [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]
        return {"messages": [{"role": "user", "content": content}], "max_tokens": 8, "stream": draw.random() < 0.3}

    # -- sounds

    def sound(self, draw: Random) -> bytes:
        """Truncated and mutated sounds, in JSON or in a form."""
        data = self._mutated(draw, draw.choice(self._sounds))
        if draw.random() < 0.5:
            return self._form_of([("file", "a.wav", data), ("model", None, b"fake")])
        text = base64.b64encode(data).decode()
        text = draw.choice((text, text, "data:audio/wav;base64," + text, text[:-1], text + "=", text.replace("A", " ")))
        part = {"type": "input_audio", "input_audio": {"data": text, "format": "wav"}}
        return post("/v1/chat/completions", dumps({"messages": [{"role": "user", "content": [part]}]}))

    def _mutated(self, draw: Random, data: bytes) -> bytes:
        made = bytearray(data)
        for _ in range(draw.randint(0, 3)):
            if not made:
                break
            at = draw.randrange(len(made)) if draw.random() < 0.5 else draw.randrange(min(len(made), 64))
            match draw.randint(0, 5):
                case 0:
                    del made[at:]
                case 1:
                    made[at] = draw.randrange(256)
                case 2:
                    made[at : at + draw.randint(1, 64)] = draw.randbytes(draw.randint(0, 64))
                case 3:
                    made[at : at + 4] = draw.choice((b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"))
                case 4:
                    made[at:at] = made[at : at + draw.randint(1, 256)] * draw.randint(1, 20)
                case 5:
                    made[:at] = b""
        return bytes(made)

    # -- forms

    def form(self, draw: Random) -> bytes:
        """Fields that are wrong, missing, doubled."""
        parts: list[tuple[str, str | None, bytes]] = [("file", "a.wav", draw.choice(self._sounds[:6]))]
        if draw.random() < 0.2:
            parts = [] if draw.random() < 0.5 else parts * 2
        for _ in range(draw.randint(0, 4)):
            value = draw.choice(FORM_VALUES)
            parts.append((draw.choice(FORM_NAMES), draw.choice((None, None, None, "x")), value))
        draw.shuffle(parts)
        return self._form_of(parts, draw.choice(("transcriptions", "translations")))

    def form_bytes(self, draw: Random) -> bytes:
        """Forms that are no forms."""
        parts = [("file", "a.wav", self._sounds[0][:400]), ("model", None, b"fake")]
        head, _, body = self._form_of(parts).partition(b"\r\n\r\n")
        body = self._mutated(draw, body) if draw.random() < 0.8 else draw.randbytes(draw.randint(0, 300))
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        if draw.random() < 0.3:
            kind = draw.choice(FORM_TYPES)
        del head
        return post("/v1/audio/transcriptions", body, kind)

    def _form_of(self, parts, route: str = "transcriptions") -> bytes:
        body = b""
        for name, file, value in parts:
            body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'.encode()
            body += f'; filename="{file}"'.encode() if file else b""
            body += b"\r\n\r\n" + value + b"\r\n"
        body += f"--{BOUNDARY}--\r\n".encode()
        return post(f"/v1/audio/{route}", body, f"multipart/form-data; boundary={BOUNDARY}")

    # -- connections

    def socket(self, draw: Random) -> Case:
        """A good request of which only a part is sent, or whose sender leaves."""
        stream = draw.random() < 0.5
        body = {"messages": [{"role": "user", "content": "say one two three four"}], "stream": stream}
        data = draw.choice((post("/v1/chat/completions", dumps(body)), self.sound(draw)))
        cut = len(data) if draw.random() < 0.5 else draw.randrange(len(data))
        return Case("socket", data, cut, close=draw.random() < 0.7 or cut < len(data))

    def http(self, draw: Random) -> bytes:
        """Requests that are hardly HTTP."""
        body = dumps({"messages": [{"role": "user", "content": "say x"}]})
        if draw.random() < 0.5:
            length = draw.choice(("-1", "0", "x", "9" * 30, "1, 2", "5", str(len(body) - 3)))
            return post("/v1/chat/completions", body, length=length)
        if draw.random() < 0.5:
            kind = draw.choice(JSON_TYPES)
            return post("/v1/chat/completions", body, kind)
        method = draw.choice(("GET", "PUT", "DELETE", "OPTIONS", "HEAD", "BREW"))
        path = draw.choice(PATHS)
        return f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


def dumps(value: object) -> bytes:
    return json.dumps(value, allow_nan=True).encode()


def post(path: str, body: bytes, kind: str = "application/json", length: str | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nConnection: close\r\n"
    return head.encode() + f"Content-Length: {length or len(body)}\r\n\r\n".encode() + body
