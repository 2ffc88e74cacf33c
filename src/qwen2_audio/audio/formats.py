"""The formats of files by their first bytes, so that a refusal names them and FFmpeg tries only what a file can be."""

from __future__ import annotations

from dataclasses import dataclass

# Common formats, which FFmpeg may recognise by itself.
ALWAYS = "wav,w64,mp3,flac,ogg,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,aac,aiff,au,caf,amr,asf"
_TS_PACKETS = (188, 192, 204)  # bytes: plain, with timestamps (.m2ts), with error correction


@dataclass(frozen=True)
class FileFormat:
    """A format by its signature, the bytes at `offset`."""

    name: str  # with its article, for messages
    signature: bytes
    offset: int = 0
    demuxer: str | None = None  # FFmpeg's name of it; None: it is not read
    is_sound: bool = True


_FORMATS = (
    FileFormat("a WAV file", b"WAVE", 8, "wav"),
    FileFormat("an AVI file", b"AVI ", 8, "avi"),
    FileFormat("a Wave64 file", b"riff", 0, "w64"),
    FileFormat("an Ogg file", b"OggS", 0, "ogg"),
    FileFormat("a FLAC file", b"fLaC", 0, "flac"),
    FileFormat("an MP3 file", b"ID3", 0, "mp3"),
    FileFormat("a WebM or Matroska file", b"\x1aE\xdf\xa3", 0, "matroska"),
    FileFormat("an MP4 file", b"ftyp", 4, "mp4"),
    FileFormat("an AIFF file", b"AIF", 8, "aiff"),
    FileFormat("an AU file", b".snd", 0, "au"),
    FileFormat("a CAF file", b"caff", 0, "caf"),
    FileFormat("an AMR file", b"#!AMR", 0, "amr"),
    FileFormat("a WMA file", b"0&\xb2u\x8ef\xcf\x11", 0, "asf"),
    FileFormat("a NIST SPHERE file", b"NIST_1A", 0, "nistsphere"),
    FileFormat("a WavPack file", b"wvpk", 0, "wv"),
    FileFormat("a Creative Voice file", b"Creative Voice File\x1a", 0, "voc"),
    FileFormat("an AVR file", b"2BIT", 0, "avr"),
    FileFormat("an Amiga 8SVX file", b"8SVX", 8, "iff"),
    FileFormat("an Amiga 16SV file", b"16SV", 8, "iff"),
    FileFormat("a DSDIFF file", b"FRM8", 0, "iff"),
    FileFormat("a PVF file", b"PVF1\n", 0, "pvf"),
    FileFormat("an IRCAM file", b"\x64\xa3", 0, "ircam"),
    FileFormat("an IRCAM file", b"\xa3\x64", 2, "ircam"),
    FileFormat("an Ensoniq PARIS file", b"fap ", 0, "epaf"),
    FileFormat("an Ensoniq PARIS file", b" paf", 0, "epaf"),
    FileFormat("a True Audio file", b"TTA1", 0, "tta"),
    FileFormat("a Monkey's Audio file", b"MAC ", 0, "ape"),
    FileFormat("a DSF file", b"DSD ", 0, "dsf"),
    FileFormat("a Musepack file", b"MP+", 0, "mpc"),
    FileFormat("a Musepack file", b"MPCK", 0, "mpc8"),
    FileFormat("a TAK file", b"tBaK", 0, "tak"),
    FileFormat("a Shorten file", b"ajkg", 0, "shn"),
    FileFormat("a SoX file", b".SoX", 0, "sox"),
    FileFormat("a SoX file", b"XoS.", 0, "sox"),
    FileFormat("a Flash video", b"FLV\x01", 0, "flv"),
    FileFormat("an MPEG program stream", b"\x00\x00\x01\xba", 0, "mpeg"),
    FileFormat("a DTS file", b"\x7f\xfe\x80\x01", 0, "dts"),
    FileFormat("an AC-3 file", b"\x0bw", 0, "ac3,eac3"),
    FileFormat("a RealAudio file", b".RMF", 0, "rm"),
    FileFormat("a RealAudio file", b".ra\xfd", 0, "rm"),
    FileFormat("a QCP file", b"QLCM", 8, "qcp"),
    FileFormat("an XWMA file", b"XWMA", 8, "xwma"),
    FileFormat("a little-endian AU file", b"dns."),
    FileFormat("a MIDI file, which holds notes and no sound", b"MThd"),
    FileFormat("an Akai MPC file", b"\x01\x04"),
    FileFormat("a FastTracker instrument", b"Extended Instrument"),
    FileFormat("a Psion file", b"ALawSoundFile**"),
    FileFormat("a MATLAB file", b"MATLAB", is_sound=False),
    FileFormat("a PNG image", b"\x89PNG", is_sound=False),
    FileFormat("a JPEG image", b"\xff\xd8\xff", is_sound=False),
    FileFormat("a GIF image", b"GIF8", is_sound=False),
    FileFormat("a PDF document", b"%PDF", is_sound=False),
    FileFormat("a ZIP archive (as .npz and .docx are)", b"PK\x03\x04", is_sound=False),
    FileFormat("a gzip archive", b"\x1f\x8b", is_sound=False),
    FileFormat("a numpy file", b"\x93NUMPY", is_sound=False),
    FileFormat("a tar archive", b"ustar", 257, is_sound=False),
)
_SHORTENED = FileFormat("a NIST SPHERE file compressed by Shorten", b"NIST_1A")
_TRANSPORT = FileFormat("an MPEG transport stream", b"G", 0, "mpegts")


def format_of(head: bytes) -> FileFormat | None:
    """The format of a file whose first bytes (a KB or more) are `head`; None where they have no known signature."""
    for size in _TS_PACKETS:
        first = 4 if size == 192 else 0
        if len(head) > first + 3 * size and {head[first + i * size] for i in range(4)} == {ord("G")}:
            return _TRANSPORT
    for known in _FORMATS:
        if head.startswith(known.signature, known.offset):
            shortened = known.demuxer == "nistsphere" and b"shorten" in head[:1024].lower()
            return _SHORTENED if shortened else known
    return None


def demuxers_for(head: bytes) -> str:
    """FFmpeg's list of formats to try on a file that begins with `head`.

    Formats other than the common ones are tried only on files that have their signature: FFmpeg goes by likelihood, and
    would take noise for one of them. None of the list reads other files or the network, and none is a playlist.
    """
    known = format_of(head)
    return ALWAYS if known is None or known.demuxer is None else f"{ALWAYS},{known.demuxer}"
