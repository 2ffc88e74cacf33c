"""`input_audio` as clients spell it: the bytes decide, as docs/http.md says."""

from __future__ import annotations

import base64
import textwrap
from typing import Any

import pytest

from qwen2_audio.serve.convert import messages_of
from qwen2_audio.serve.errors import ApiError
from qwen2_audio.serve.protocol import parse_chat
from qwen2_audio.serve.settings import Settings

CLIP = b"RIFF\xfb\xff\xfe\xffWAVEfmt " + bytes(range(256))  # its base64 has + and /
STANDARD = base64.b64encode(CLIP).decode()
URL_SAFE = base64.urlsafe_b64encode(CLIP).decode()


def clip_of(source: Any, settings: Settings | None = None) -> Any:
    part = {"type": "input_audio", "input_audio": source}
    messages = messages_of(parse_chat({"messages": [{"role": "user", "content": [part]}]}), settings or Settings())
    return messages[0]["content"][0]["audio"]


@pytest.mark.parametrize(
    "data",
    [
        STANDARD,
        URL_SAFE,
        URL_SAFE.rstrip("="),
        "\n".join(textwrap.wrap(STANDARD, 76)),
        "\r\n".join(textwrap.wrap(URL_SAFE, 64)) + "\r\n",
        f" {STANDARD} ",
        "data:audio/wav;base64," + STANDARD,
        "DATA:audio/x-wav;base64," + URL_SAFE,
        " data:;base64," + "\n".join(textwrap.wrap(STANDARD, 76)),
    ],
)
def test_every_spelling_of_the_data(data: str) -> None:
    assert clip_of({"data": data, "format": "wav"}) == CLIP


@pytest.mark.parametrize(
    "form",
    [
        "x-wav",
        "WAV",
        ".wav",
        "audio/wav",
        "audio/x-m4a",
        "x-m4a",
        "oga",
        "wave",
        "vnd.wave",
        "mpeg3",
        "",
        None,
        "pcm16",
    ],
)
def test_every_spelling_of_the_format(form: str | None) -> None:
    assert clip_of({"data": STANDARD, "format": form}) == CLIP


def test_the_format_may_be_missing() -> None:
    assert clip_of({"data": STANDARD}) == CLIP


@pytest.mark.parametrize("form", ["pcm16", "PCM", "audio/l16", "g711_ulaw"])
def test_raw_samples_need_a_header(form: str) -> None:
    with pytest.raises(ApiError, match=r"Raw samples need a WAV header") as refused:
        clip_of({"data": base64.b64encode(bytes(1000)).decode(), "format": form})
    assert refused.value.param == "messages[0].content[0].input_audio.format"


@pytest.mark.parametrize("prefix", ["", "data:audio/wav;base64,"])
def test_a_clip_that_is_too_large_is_a_413_that_names_the_limit(prefix: str) -> None:
    with pytest.raises(ApiError, match=r"input_audio\.data is larger than 100 bytes, the limit for a clip") as refused:
        clip_of({"data": prefix + STANDARD}, Settings(clip_bytes=100))
    assert (refused.value.status, refused.value.code) == (413, "clip_too_large")
