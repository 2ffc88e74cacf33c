"""Multipart forms as clients send them: read whole, or refused in one sentence."""

from __future__ import annotations

import pytest

from qwen2_audio.serve.settings import Settings

PATH = "/v1/audio/transcriptions"
BOUNDARY = "a-boundary"


def part(name: str, value: str | bytes, filename: str | None = None) -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + (value.encode() if isinstance(value, str) else value) + b"\r\n"


def send(client, *parts: bytes, end: bytes = f"--{BOUNDARY}--\r\n".encode(), boundary: str | None = BOUNDARY):
    kind = "multipart/form-data" + ("" if boundary is None else f"; boundary={boundary}")
    return client.post(PATH, content=b"".join(parts) + end, headers={"content-type": kind})


def test_fields_and_the_file_arrive(client, wav):
    answer = send(
        client,
        part("model", "fake"),
        part("response_format", "text"),
        part("include[]", ""),
        part("file", wav, "a.wav"),
    )
    assert answer.status_code == 400  # an empty name in a list is refused by its own name
    assert answer.json()["error"]["param"] == "include[0]"
    answer = send(client, part("response_format", "text"), part("model", "fake"), part("file", wav, "a.wav"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("parts", "options", "sentence"),
    [
        ([], {"boundary": None}, "The form cannot be read: Missing boundary"),
        ([b"no part at all"], {"end": b""}, "The form cannot be read: "),
        ([part(f"field{n}", "x") for n in range(65)], {}, "The form cannot be read: Too many fields."),
        ([part("file", b"1", "a.wav"), part("file", b"2", "b.wav")], {}, "The form cannot be read: Too many files."),
        ([part("prompt", "x" * ((64 << 10) + 1))], {}, "The form cannot be read: Part exceeded maximum size of 64KB."),
        ([part("model", "fake"), part("model", "fake")], {}, "The form has 'model' twice."),
        ([part("sound", b"1", "a.wav")], {}, "The form has a file called 'sound'; expected 'file'."),
        ([part("model", "fake")], {}, "The form has no file: send the clip as the file 'file'."),
    ],
)
def test_what_cannot_be_read_is_one_sentence(client, parts, options, sentence):
    answer = send(client, *parts, **options)
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert message.startswith(sentence)
    assert "\n" not in message


def test_a_file_that_is_too_large(client_of, wav):
    client = client_of(Settings(clip_bytes=len(wav) - 1))
    answer = send(client, part("model", "fake"), part("file", wav, "a.wav"))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "clip_too_large"
