"""Which replica should answer: requests about one clip, or of one conversation, go where its caches are.

A request's key is the digest of its first clip, or else of how its conversation begins; both stay the same from turn to
turn. A stored response is known to one replica, whose name its id carries.

Replicas are ordered by rendezvous hashing (Thaler and Ravishankar 1998): every gateway computes the same order without
asking anybody, and where a replica comes or goes, only the keys of that one move. A replica that is far busier than the
others is passed over, as in consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2016).
"""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from pydantic_core import from_json

SLACK = 8  # requests that a replica may have whatever the others have: so many decode at once at little cost
OVER_MEAN = 1.25  # a replica may have this many times the mean of all, before it is passed over
_CLIP_KEYS = ("data", "url", "audio_url", "audio", "input_audio", "file")
_BEGINNING = 2  # messages that tell conversations without clips apart: the system prompt and the first question
_STORED = r"resp_([a-z0-9]+)_[0-9a-f]{32}"  # the id of a response, as routes/responses.py makes it
_PARTS, _HEAD = 66, 8 << 10  # of a form that are looked at: as many as a replica takes; bytes of a part's headers
_FILE_NAME = re.compile(rb";\s*filename\*?=", re.I)


def affinity_key(content_type: str, body: bytes, path: str = "") -> str:
    """The key of a request: equal for requests that share a clip or a conversation; "" where any replica will do.

    Of a request that names a stored response it is "@" and the replica's name.
    """
    if (stored := re.fullmatch(rf"/v1/responses/{_STORED}", path)) is not None:
        return f"@{stored[1]}"
    kind, _, rest = content_type.partition(";")
    kind = kind.strip().lower()
    if kind == "application/json":
        return _key_of_json(body)
    if kind == "multipart/form-data" and (boundary := re.search(r'boundary="?([^";,\s]+)', rest)):
        return _key_of_form(body, boundary[1].encode("latin-1", "replace"))
    return ""


def preferred(key: str, loads: Mapping[str, int]) -> list[str]:
    """All replicas, the one to ask first at the front.

    Args:
        key: what `affinity_key` returned, not "".
        loads: requests that each replica has, by its name.
    """
    if key.startswith("@"):
        return sorted(loads, key=lambda name: (name != key[1:], loads[name]))
    bound = max(SLACK, math.ceil(OVER_MEAN * (sum(loads.values()) + 1) / max(len(loads), 1)))
    order = sorted(loads, key=lambda name: _digest(key.encode(), name.encode()), reverse=True)
    busy = [name for name in order if loads[name] >= bound]
    return [name for name in order if loads[name] < bound] + sorted(busy, key=lambda name: loads[name])


def _key_of_json(body: bytes) -> str:
    try:
        fields = from_json(body)
    except ValueError:  # the replica tells the client what is wrong with it
        return ""
    if not isinstance(fields, dict):
        return ""
    if (stored := re.fullmatch(_STORED, str(fields.get("previous_response_id")))) is not None:
        return f"@{stored[1]}"
    if (clip := next(_clips(fields, named=False), None)) is not None:
        return _digest(_bytes_of(clip))
    said = fields.get("messages", fields.get("input"))
    return _digest(repr(said[:_BEGINNING] if isinstance(said, list) else said).encode()) if said else ""


def _clips(value: Any, *, named: bool) -> Iterator[str]:
    """Strings that are clips or their URLs, in the order of the document. `named`: a key above says that it is one."""
    if isinstance(value, str):
        if named:
            yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _clips(inner, named=key in _CLIP_KEYS)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _clips(inner, named=named)


def _bytes_of(clip: str) -> bytes:
    """The file that a clip in base64 stands for, so that the same file uploaded has the same key; of a link its URL."""
    scheme, comma, data = clip.partition(",")
    text = data if comma and scheme[:5].lower() == "data:" else clip
    if re.match(r"\s*(?:https?|file):", text, re.I):
        return text.strip().encode()
    try:
        return binascii.a2b_base64(text)
    except (binascii.Error, ValueError):  # the replica tells the client
        return text.encode("utf-8", "replace")


def _key_of_form(body: bytes, boundary: bytes) -> str:
    """The digest of the form's file. A boundary is new in each request, so that the body itself says nothing.

    Only the beginning of each part is looked at, and of few parts: a client chooses both, and this holds the GIL.
    """
    marker = b"\r\n--" + boundary
    place = len(marker) - 2 if body.startswith(marker[2:]) else _after(body, marker, 0)
    for _ in range(_PARTS):
        if place < 0:
            break
        start = body.find(b"\r\n\r\n", place, place + _HEAD)
        if start >= 0 and any(_names_a_file(line) for line in body[place:start].split(b"\r\n")):
            end = body.find(marker, start + 4)
            return _digest(body[start + 4 : end if end >= 0 else len(body)])
        place = _after(body, marker, place)
    return ""


def _after(body: bytes, marker: bytes, start: int) -> int:
    """Where the next marker ends; -1 without one."""
    found = body.find(marker, start)
    return found + len(marker) if found >= 0 else -1


def _names_a_file(header: bytes) -> bool:
    return header[:20].lower() == b"content-disposition:" and _FILE_NAME.search(header) is not None


def _digest(data: bytes, person: bytes = b"") -> str:
    return blake2b(data, digest_size=16, key=blake2b(person, digest_size=16).digest()).hexdigest()
