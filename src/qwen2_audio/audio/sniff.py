"""What the first bytes of a file tell: why it is not a sound, and what its header promises."""

from __future__ import annotations

_WANTED = "expected a sound such as WAV, FLAC, MP3, Ogg, M4A or WebM"
_PLAYLISTS = (b"#EXTM3U", b"[playlist]", b"ffconcat", b"<?wpl", b"<asx")
OGG_PAGE_MAX = 27 + 255 + 255 * 255  # bytes: header, lacing values, body
_STREAMED_RIFF = 0x7FFF0000  # writers that do not know the length yet put a size from here up


def explain_undecodable(name: str, head: bytes) -> str:
    """One sentence on why `name`, which begins with `head`, could not be opened as a sound."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:16].lower().startswith(tuple(mark.lower() for mark in _PLAYLISTS)):
        return f"{name} is a playlist, not a sound; give the sound files it names."
    if _is_text(head):
        found = "an HTML page" if start[:15].lower().startswith((b"<!doctype html", b"<html")) else "text"
        return f"{name} is {found}, not a sound; {_WANTED}."
    return f"{name} could not be decoded: it is damaged, cut off, or not a sound at all; {_WANTED}."


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else only the last character is cut
            return False
        text = head[: error.start].decode("utf-8")
    return bool(text) and all(character.isprintable() or character in "\r\n\t\f" for character in text)


def promised_bytes(head: bytes) -> int | None:
    """The file size a RIFF header announces; None for other files and for WAV written to a pipe."""
    if head[:4] != b"RIFF" or len(head) < 8:
        return None
    size = int.from_bytes(head[4:8], "little")
    return size + 8 if 0 < size < _STREAMED_RIFF else None


def ends_inside_ogg_page(tail: bytes) -> bool:
    """Whether the last Ogg page in the file's last OGG_PAGE_MAX bytes is longer than what is there (RFC 3533)."""
    start = tail.rfind(b"OggS")
    if start < 0:
        return False
    header = tail[start : start + 27]
    lacing = tail[start + 27 : start + 27 + header[26]] if len(header) == 27 else b""
    return len(header) < 27 or len(lacing) < header[26] or len(tail) < start + 27 + len(lacing) + sum(lacing)


def promises_duration(head: bytes) -> bool:
    """Whether FFmpeg's duration is the header's word: not so for MP3 without a Xing header, ADTS and AMR, where
    it is a guess from the bit rate, and for WAV and Ogg, where FFmpeg takes it from the file's end."""
    if head[:4] in (b"fLaC", b"\x1aE\xdf\xa3") or head[4:8] == b"ftyp":
        return True
    return any(mark in head for mark in (b"Xing", b"Info"))
