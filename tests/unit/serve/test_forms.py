"""Multipart forms as clients send them: read whole, or refused in one sentence; their files are on disk no longer than
they are needed."""

from __future__ import annotations

import io
import tempfile

import pytest
import starlette.formparsers
from starlette.formparsers import MultiPartParser

from qwen2_audio.serve import bodies
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
        ([part("file", b"1", "a.wav"), part("file", "a.wav")], {}, "file is not a field that this server honours."),
    ],
)
def test_what_cannot_be_read_is_one_sentence(client, parts, options, sentence):
    answer = send(client, *parts, **options)
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert message.startswith(sentence)
    assert "\n" not in message


def test_a_file_that_is_too_large(client_of, wav):
    client = client_of(Settings(upload_bytes=len(wav)))
    answer = send(client, part("model", "fake"), part("file", wav, "a.wav"))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


def test_a_file_may_be_larger_than_a_clip_of_chat(client_of, wav, monkeypatch):
    monkeypatch.setattr("qwen2_audio.longform.transcribe.speech_detector", lambda: None)
    client = client_of(Settings(body_bytes=1000, clip_bytes=1000))
    answer = send(client, part("model", "fake"), part("file", wav, "a.wav"))
    assert (answer.status_code, answer.json()["usage"]["seconds"]) == (200, 1.0)


@pytest.fixture
def spooled(monkeypatch):
    """The temporary files that were made."""
    files = []

    def make(max_size):
        files.append(tempfile.SpooledTemporaryFile(max_size))  # noqa: SIM115
        return files[-1]

    monkeypatch.setattr(starlette.formparsers, "SpooledTemporaryFile", make)
    return files


LARGE = b"no sound" * (1 << 18)  # 2 MB


@pytest.mark.parametrize(
    ("parts", "options", "status"),
    [
        ([part("file", LARGE, "a.wav")], {}, 400),
        ([part("file", LARGE, "a.wav"), part("model", "gone")], {}, 404),
        ([part("file", LARGE, "a.wav"), part("model", "fake"), part("model", "fake")], {}, 400),
        ([part("file", LARGE, "a.wav"), part("file", b"1", "b.wav")], {}, 400),
        ([part("file", LARGE, "a.wav"), b"no part"], {}, 400),
    ],
)
def test_the_file_waits_on_disk_and_is_gone_after_the_answer(client, spooled, parts, options, status):
    assert send(client, *parts, **options).status_code == status
    assert (spooled[0]._rolled or len(parts) == 2) and all(file.closed for file in spooled)


def test_a_disk_that_is_full(client, spooled, monkeypatch):
    def write(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "write", write)
    answer = send(client, part("file", LARGE, "a.wav"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "insufficient_storage")
    assert "The server cannot keep this upload (No space left on device);" in answer.json()["error"]["message"]
    assert all(file.closed for file in spooled)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("malformed")], ids=["disk", "form"]
)
def test_what_is_on_disk_goes_before_the_rest_of_the_body_has_come(client, monkeypatch, error):
    """Also where starlette leaves it, as some of its versions do; and its last bytes may find the disk full, too."""
    drain, events = bodies._drain, []

    class Unwritten(io.BytesIO):
        def close(self):
            super().close()
            if "closed" not in events:
                events.append("closed")
            raise OSError(28, "No space left on device")

    class Leaving(MultiPartParser):
        async def parse(self):
            self._files_to_close_on_error.append(Unwritten())
            raise error

    async def drained(stream):
        events.append("drained")
        await drain(stream)

    monkeypatch.setattr(bodies, "_drain", drained)
    monkeypatch.setattr(bodies, "MultiPartParser", Leaving)
    assert send(client, part("file", LARGE, "a.wav")).status_code == (507 if isinstance(error, OSError) else 400)
    assert events == ["closed", "drained"]


def test_uploads_have_a_limit_of_their_own_on_disk(client_of, wav):
    client = client_of(Settings(max_spooled_bytes=len(wav) + 1000))
    state = client.app.state.server
    state.spooled_bytes = 2000  # of another
    answer = send(client, part("file", wav, "a.wav"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "overloaded")
    assert "disk space" in answer.json()["error"]["message"]
    state.spooled_bytes = 0
    assert send(client, part("file", wav, "a.wav")).status_code == 200
    assert state.spooled_bytes == state.reserved_bytes == 0
