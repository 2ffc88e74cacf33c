"""Which replica a request goes to: the same for one clip or conversation, and not always the same one."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter

from kit.clip_files import wav_bytes
from qwen2_audio.serve.ray_affinity import SLACK, affinity_key, preferred

DOG, BELL = wav_bytes(1.0), wav_bytes(2.0)
IDLE = {f"replica-{number}": 0 for number in range(5)}


def asked(*messages, **fields) -> bytes:
    return json.dumps({"model": "nano", "messages": list(messages), **fields}).encode()


def user(text: str, *clips: bytes, key: str = "input_audio"):
    data = [base64.b64encode(clip).decode() for clip in clips]
    parts = {
        "input_audio": lambda text: {"type": "input_audio", "input_audio": {"data": text, "format": "wav"}},
        "audio_url": lambda text: {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{text}"}},
        "audio": lambda text: {"type": "audio", "audio": text},
    }
    return {"role": "user", "content": [*map(parts[key], data), {"type": "text", "text": text}]}


def key(body: bytes, content_type: str = "application/json") -> str:
    return affinity_key(content_type, body)


def test_questions_about_one_clip_share_a_key_however_it_is_sent():
    first = key(asked(user("What is it?", DOG)))
    assert first and first == key(asked(user("How many?", DOG), stream=True), "application/json; charset=utf-8")
    assert {key(asked(user("x", DOG, key=kind))) for kind in ("input_audio", "audio_url", "audio")} == {first}
    assert key(asked(user("What is it?", BELL))) != first


def test_an_uploaded_file_has_the_key_of_the_same_clip_in_a_conversation():
    def form(boundary: str, clip: bytes, field: bytes = b"") -> str:
        marker = b"--" + boundary.encode()
        parts = [
            marker + b'\r\nContent-Disposition: form-data; name="model"\r\n\r\nnano\r\n',
            marker + b'\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
            b"Content-Type: audio/wav\r\n\r\n" + clip + b"\r\n",
            field, marker + b"--\r\n",
        ]  # fmt: skip
        return key(b"".join(parts), f'multipart/form-data; boundary="{boundary}"')

    other = b'--b\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n'
    assert form("a", DOG) == form("b", DOG, other) == key(asked(user("What is it?", DOG)))
    assert form("a", BELL) != form("a", DOG)


def test_a_conversation_keeps_its_key_as_it_grows():
    system, first = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}
    more = [{"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Why?"}]
    assert key(asked(system, first)) == key(asked(system, first, *more)) != ""
    assert key(asked(system, first)) != key(asked(system, {"role": "user", "content": "Goodbye."}))
    clip = user("What is it?", DOG)
    assert key(asked(system, clip)) == key(asked(system, clip, *more, user("And this?", BELL)))


def test_a_link_is_its_own_key_and_a_question_is_no_clip():
    def linked(url: str, text: str) -> str:
        part = {"type": "audio_url", "audio_url": {"url": url}}
        return key(asked({"role": "user", "content": [{"type": "text", "text": text}, part]}))

    assert linked("https://a.example/dog.wav", "What?") == linked("https://a.example/dog.wav", "Why?")
    assert linked("https://a.example/dog.wav", "What?") != linked("https://a.example/cat.wav", "What?")


def test_a_stored_response_is_where_its_id_says():
    name = f"resp_replica3_{'0' * 32}"
    wanted = key(json.dumps({"input": "And then?", "previous_response_id": name}).encode())
    assert wanted == affinity_key("", b"", f"/v1/responses/{name}") == "@replica3"
    busy = {"replica1": 0, "replica2": 1, "replica3": 99}
    assert preferred(wanted, busy) == ["replica3", "replica1", "replica2"]
    del busy["replica3"]
    assert preferred(wanted, busy) == ["replica1", "replica2"]
    alone = f"resp_{'0' * 32}"
    assert affinity_key("", b"", f"/v1/responses/{alone}") == "", "of a server in one process"
    first, again = {"input": "Hello."}, {"input": "Hello.", "store": False}
    assert key(json.dumps(first).encode()) == key(json.dumps(again).encode()) != ""


def test_what_cannot_be_read_may_go_anywhere():
    for body in (b"", b"no JSON", b"[]", b"3", b'{"prompt": "x"}'):
        assert key(body) == ""
    assert key(b"--x", "multipart/form-data; boundary=x") == key(b"x", "multipart/form-data") == key(DOG, "") == ""
    assert key(asked({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "no base64!"}}]}))


def test_keys_spread_over_the_replicas_and_each_stays_with_one():
    first = Counter(preferred(f"key-{number}", IDLE)[0] for number in range(2000))
    assert set(first) == set(IDLE) and min(first.values()) > 300  # 400 each; five standard deviations below is 310
    again = [preferred("key-7", dict(reversed(IDLE.items()))) for _ in range(3)]
    assert again == [preferred("key-7", IDLE)] * 3 and sorted(again[0]) == sorted(IDLE)


def test_a_replica_that_goes_takes_only_its_own_keys_along():
    keys = [f"key-{number}" for number in range(500)]
    before = {name: preferred(name, IDLE) for name in keys}
    left = {name: load for name, load in IDLE.items() if name != "replica-3"}
    for name in keys:
        expected = [replica for replica in before[name] if replica != "replica-3"]
        assert preferred(name, left) == expected


def test_a_replica_that_is_far_busier_than_the_others_is_passed_over():
    order = preferred("key", IDLE)
    slightly = {**IDLE, order[0]: SLACK - 1}
    assert preferred("key", slightly) == order, "a few requests decode together at little cost"
    much = {**IDLE, order[0]: 30}
    assert preferred("key", much) == [*order[1:], order[0]]
    all_busy = dict.fromkeys(IDLE, 30) | {order[0]: 31}
    assert preferred("key", all_busy) == order, "busy like the others is not too busy"
    assert preferred("key", {}) == []


def test_a_form_without_end_costs_no_time():
    """A pattern that goes on from every header to the end of the form took minutes for this, and held the GIL."""
    kind = "multipart/form-data; boundary=b"
    heads = b"--b\r\n" + b"content-disposition:" * 50_000
    begun = time.perf_counter()
    assert key(heads, kind) == key(b"--b\r\n" + b"content-disposition: ; filename=x" * 30_000, kind) == ""
    assert key(b"--b\r\n" + b"\r\n--b" * 200_000, kind) == ""
    assert time.perf_counter() - begun < 1.0
