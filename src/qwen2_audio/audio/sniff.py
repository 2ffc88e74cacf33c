"""Facts read from a file's first and last bytes: why it is not audio, and how long its header says it is."""

from __future__ import annotations

from typing import Literal

from .formats import format_of

_WANTED = "expected a sound such as WAV, FLAC, MP3, Ogg, M4A or WebM"
_PLAYLISTS = (b"#EXTM3U", b"[playlist]", b"ffconcat", b"<?wpl", b"<asx")
OGG_PAGE_MAX = 27 + 255 + 255 * 255  # bytes: header, lacing values, body
_STREAMED = 0x7F000000  # writers that do not know the length yet put this size or a larger one
# The size field of a container: its offset, its length, its byte order, and the bytes of the file it does not count.
_Size = tuple[int, int, Literal["little", "big"], int]
_SIZES: dict[bytes, _Size] = {  # by the first bytes of the container
    b"RIFF": (4, 4, "little", 8),
    b"RIFX": (4, 4, "big", 8),
    b"RF64": (20, 8, "little", 8),
    b"riff": (16, 8, "little", 0),  # Wave64
    b"FORM": (4, 4, "big", 8),  # AIFF
}


def explain_undecodable(name: str, head: bytes) -> str:
    """One sentence on why the file `name`, whose first bytes are `head`, could not be opened as audio."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:16].lower().startswith(tuple(mark.lower() for mark in _PLAYLISTS)):
        return f"{name} is a playlist, not a sound; give the sound files it names."
    if _is_text(head) and format_of(head) is None:
        found = "an HTML page" if start[:15].lower().startswith((b"<!doctype html", b"<html")) else "text"
        return f"{name} is {found}, not a sound; {_WANTED}."
    known = format_of(head)
    if known is not None and known.demuxer is None:
        return f"{name} is {known.name}, which is not read here; {_WANTED}."
    if known is not None:
        variant = f"{known.name} of a variant that is not read here"
        return f"{name} could not be decoded: it is damaged, cut off, or {variant}; {_WANTED}."
    return f"{name} could not be decoded: it is damaged, cut off, or not a sound at all; {_WANTED}."


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # an error in the last 3 bytes may be a character cut by the end of `head`
            return False
        text = head[: error.start].decode("utf-8")
    return bool(text) and all(character.isprintable() or character in "\r\n\t\f" for character in text)


def promised_bytes(head: bytes) -> int | None:
    """The file size in bytes that a header announces; None when it announces none, as in a file written to a pipe."""
    field = _SIZES.get(head[:4])
    if head[:4] == b".snd":  # AU: the header's size at byte 4, then the samples' size at byte 8
        field = (8, 4, "big", int.from_bytes(head[4:8], "big"))
    elif head[:4] == b"caff":
        chunk = _caf_samples(head)
        field = (chunk + 4, 8, "big", chunk + 12)
    if field is None:
        return None
    offset, length, order, uncounted = field
    size = int.from_bytes(head[offset : offset + length], order)
    return size + uncounted if 0 < size < _STREAMED else None


def _caf_samples(head: bytes) -> int:
    """The offset of CAF's "data" chunk; `len(head)` or more when it lies beyond `head`."""
    offset = 8
    while offset < len(head) and head[offset : offset + 4] != b"data":
        offset += 12 + int.from_bytes(head[offset + 4 : offset + 12], "big")
    return offset


def id3_bytes(head: bytes) -> int:
    """Bytes of the ID3v2 tag that a file begins with; 0 without one. MP3 files keep cover art in it."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if head[5] & 0x10 else 0)  # header, body, and a footer where the flag says so


def ends_inside_ogg_page(tail: bytes) -> bool:
    """Whether the file ends before its last Ogg page does; `tail` is its last OGG_PAGE_MAX bytes (RFC 3533)."""
    start = tail.rfind(b"OggS")
    if start < 0:
        return False
    header = tail[start : start + 27]
    lacing = tail[start + 27 : start + 27 + header[26]] if len(header) == 27 else b""
    return len(header) < 27 or len(lacing) < header[26] or len(tail) < start + 27 + len(lacing) + sum(lacing)


def promises_duration(head: bytes) -> bool:
    """Whether FFmpeg's duration comes from the header `head` (without an ID3v2 tag).

    For MP3 without a Xing header, ADTS and AMR, FFmpeg estimates the duration from the bit rate; for WAV and Ogg it
    computes it from the end of the file. For those this is False.
    """
    if head[:4] in (b"fLaC", b"\x1aE\xdf\xa3") or head[4:8] == b"ftyp":
        return True
    return any(mark in head for mark in (b"Xing", b"Info"))
