import asyncio
import base64

import pytest

from qwen2_audio.serve import media
from qwen2_audio.serve.errors import ApiError
from qwen2_audio.serve.media import Link, fetch_links, from_base64, links_of
from qwen2_audio.serve.settings import FetchPolicy, Settings


def read(url, folder, reserve=lambda size: None, **settings):
    part = {"type": "audio", "audio": Link(url, "here")}
    rules = Settings(fetch=FetchPolicy(folder=folder), **settings)
    messages = [{"role": "user", "content": "hi"}, {"role": "user", "content": [part, {"type": "text", "text": "x"}]}]
    asyncio.run(fetch_links(links_of(messages), rules, reserve))
    return part["audio"]


def test_a_file_in_the_folder_and_none_outside(tmp_path):
    folder = tmp_path / "open"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a b.wav").write_bytes(b"sound")
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    assert read(f"file://{folder}/in/a%20b.wav", folder) == b"sound"
    assert read(f"file://localhost{folder}/in/../in/a%20b.wav", folder) == b"sound"
    for url in (
        f"file://{tmp_path}/secret", f"file://{folder}/../secret", f"file://{folder}/%2e%2e/secret", f"file://{folder}/link",
        f"file://elsewhere{folder}/in/a%20b.wav", "file:///etc/passwd", f"file://{folder}/%00", "file://",
    ):  # fmt: skip
        with pytest.raises(ApiError, match="nowhere else"):
            read(url, folder)
    for url in (f"file://{folder}/none.wav", f"file://{folder}/in"):
        with pytest.raises(ApiError, match="no file"):
            read(url, folder)
    with pytest.raises(ApiError, match="larger than 2 bytes") as large:
        read(f"file://{folder}/in/a%20b.wav", folder, clip_bytes=2)
    assert large.value.status == 413
    assert large.value.param == "here"


def test_memory_is_reserved_before_a_file_is_read(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(b"sound")
    reserved = []
    assert read(f"file://{tmp_path}/a.wav", tmp_path, reserved.append) == b"sound"
    assert reserved == [5]

    def full(size):
        raise ApiError("memory is short", status=429)

    monkeypatch.setattr(media, "_read_file", lambda *_: pytest.fail("it was read"))
    with pytest.raises(ApiError, match="memory is short"):
        read(f"file://{tmp_path}/a.wav", tmp_path, full)


def test_without_a_folder_no_file_is_read(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"sound")
    with pytest.raises(ApiError, match="nowhere else"):
        read(f"file://{tmp_path}/a.wav", None)


@pytest.mark.parametrize("text", ["AAEC", "AAEC\n", "data:audio/wav;base64,AAEC"])
def test_base64(text):
    assert from_base64(text, "here", 100) == b"\x00\x01\x02"


@pytest.mark.parametrize("text", ["not base64!", "AAE*", "ÄÄ", "A", "data:,"])
def test_what_is_no_base64(text):
    if text == "data:,":
        assert from_base64(text, "here", 100) == b""
        return
    with pytest.raises(ApiError, match="here is not base64") as refused:
        from_base64(text, "here", 100)
    assert refused.value.param == "here"


def test_too_much_base64():
    with pytest.raises(ApiError, match="larger than 100 bytes") as refused:
        from_base64(base64.b64encode(bytes(103)).decode(), "here", 100)
    assert refused.value.status == 413
    assert from_base64(base64.b64encode(bytes(100)).decode(), "here", 100) == bytes(100)
