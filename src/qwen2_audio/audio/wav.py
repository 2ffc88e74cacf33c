"""WAV dialects: which of them FFmpeg decodes as librosa does, and a decoder for those that it decodes otherwise.

FFmpeg reads the samples of big-endian RIFX as little-endian, reads samples of 24 valid bits in 32 as 24-bit samples,
and rounds MS ADPCM differently. libsndfile, which librosa uses, decodes all three correctly.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from struct import unpack
from typing import IO

import numpy as np

from ..errors import AudioError

_PCM, _MS_ADPCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 1, 2, 3, 6, 7, 0xFFFE
_UNCOMPRESSED = (_PCM, _FLOAT, _A_LAW, _MU_LAW)
# IMA ADPCM, GSM 6.10, MPEG layers 1 and 2, MP3, AAC, AC-3, FLAC: compressed forms that FFmpeg decodes exactly.
_LEFT_TO_FFMPEG = (0x11, 0x31, 0x50, 0x55, 0xFF, 0x1610, 0x2000, 0xF1AC)
# The ends of the GUIDs of WAVE_FORMAT_EXTENSIBLE, whose first two bytes are the tag: Microsoft's and Ambisonic's.
_GUID_ENDS = (bytes.fromhex("000000001000800000aa00389b71"), bytes.fromhex("00002107d3118644c8c1ca000000"))
_UNKNOWN_SIZE = 0xFFFFFFFF  # of RF64, whose size is in the "ds64" chunk, and of files written to a pipe
_BLOCK_FRAMES = 1 << 16  # decoded at a time
_ADAPTATION = np.array((230, 230, 230, 230, 307, 409, 512, 614, 768, 614, 512, 409, 307, 230, 230, 230), np.int64)
_SMALLEST_STEP = 16


@dataclass(frozen=True)
class WavForm:
    """The header of a WAV file."""

    order: str  # "<" little-endian, ">" big-endian (RIFX)
    tag: int  # the coding: 1 PCM, 3 float, ...
    channels: int
    rate: int  # Hz
    align: int  # bytes of a frame (all channels); of a block if the file is compressed
    bits: int  # stored bits per sample
    valid_bits: int  # used bits per sample
    extra: bytes  # of the "fmt " chunk, after its first 18 bytes
    start: int  # offset of the samples in the file
    size: int | None  # bytes of them; None: to the end of the file

    @property
    def width(self) -> int:
        """Bytes of one sample."""
        return (self.bits + 7) // 8

    @property
    def is_decoded_here(self) -> bool:
        """Whether FFmpeg's samples would differ from librosa's."""
        return self.order == ">" or self.valid_bits != self.bits or self.tag == _MS_ADPCM

    def check(self, name: str) -> None:
        """Raises AudioError for a dialect that neither FFmpeg nor this module decodes as librosa does."""
        decodable = self.order == "<" and self.tag in (*_LEFT_TO_FFMPEG, _MS_ADPCM)
        if not decodable and self.tag not in _UNCOMPRESSED:
            order = "big-endian " if self.order == ">" else ""
            raise AudioError(
                f"{name} is a {order}WAV file coded in a way (0x{self.tag:04X}) that is not read here exactly; "
                "convert it to WAV of 16-bit PCM, or to FLAC."
            )
        if self.tag == _MS_ADPCM and not self._is_whole_ms_adpcm:
            raise AudioError(f"{name} is a WAV file of MS ADPCM whose header is damaged; export it anew.")
        widths = {_PCM: (1, 2, 3, 4), _FLOAT: (4, 8), _A_LAW: (1,), _MU_LAW: (1,)}.get(self.tag)
        # FFmpeg and librosa both decode 24-bit samples in 4 bytes as noise.
        padded = self.tag == _PCM and self.width == 3 and self.align == 4 * self.channels
        if self.channels < 1 or (widths is not None and (self.width not in widths or padded)):
            raise AudioError(
                f"{name} is a WAV file of {self.bits}-bit samples in {self.align} bytes for {self.channels} "
                "channel(s), which is not read here exactly; convert it to WAV of 16-bit PCM, or to FLAC."
            )

    @property
    def _is_whole_ms_adpcm(self) -> bool:
        count = int.from_bytes(self.extra[2:4], "little")
        return self.align > 7 * self.channels and 1 <= self.channels <= 2 and 0 < 4 * count <= len(self.extra) - 4


def read_form(file: IO[bytes]) -> WavForm | None:
    """The form of a seekable WAV file; None for any other file, and for a header without "fmt " or "data"."""
    file.seek(0)
    head = file.read(12)
    if head[:4] not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or head[8:] != b"WAVE":
        return None
    order = ">" if head[:4] == b"RIFX" else "<"
    form, long_size, end = b"", None, file.seek(0, os.SEEK_END)
    position = 12
    while position + 8 <= end:
        file.seek(position)
        kind, size = unpack(f"{order}4sI", file.read(8))
        if kind == b"ds64":
            long_size = int.from_bytes(file.read(16)[8:], "little")
        elif kind == b"fmt ":
            form = file.read(min(size, 4096))
        elif kind == b"data":
            unknown = size in (0, _UNKNOWN_SIZE)
            return _form_of(form, order, position + 8, long_size if unknown else size)
        position += 8 + size + size % 2
    return None


def _form_of(form: bytes, order: str, start: int, size: int | None) -> WavForm | None:
    if len(form) < 16:
        return None
    tag, channels, rate, _, align, bits = unpack(f"{order}HHIIHH", form[:16])
    valid_bits, extra = bits, form[18:]
    if tag == _EXTENSIBLE and len(extra) >= 22 and extra[8:22] in _GUID_ENDS:
        (tag,) = unpack("<H", extra[6:8])
        valid_bits = unpack(f"{order}H", extra[:2])[0] or bits
    elif tag == _EXTENSIBLE and len(extra) >= 22 and order == ">":  # libsndfile swaps the GUID's first fields
        tag = unpack(">I", extra[6:10])[0] & 0xFFFF
        valid_bits = unpack(">H", extra[:2])[0] or bits
    return WavForm(order, tag, channels, rate, align, bits, valid_bits, extra, start, size)


def channel_blocks(file: IO[bytes], form: WavForm) -> Iterator[np.ndarray]:
    """Yield the samples of a file for which `is_decoded_here`, block by block: float32 [n, channels]."""
    compressed = form.tag == _MS_ADPCM
    unit = form.align if compressed else form.channels * form.width
    units = 256 if compressed else _BLOCK_FRAMES
    remaining = form.size
    file.seek(form.start)
    while True:
        data = file.read(unit * units if remaining is None else min(unit * units, remaining))
        length = len(data) - len(data) % unit  # bytes of complete frames or blocks
        if not length:
            return
        remaining = None if remaining is None else remaining - len(data)
        samples = _ms_adpcm(data[:length], form) if compressed else _uncompressed(data[:length], form)
        yield samples.reshape(-1, form.channels)


def _uncompressed(data: bytes, form: WavForm) -> np.ndarray:
    """Interleaved samples as float32, full scale 1."""
    if form.tag == _FLOAT:
        return np.frombuffer(data, f"{form.order}f{form.width}").astype(np.float32)
    if form.tag in (_A_LAW, _MU_LAW):
        table = _a_law() if form.tag == _A_LAW else _mu_law()
        return table[np.frombuffer(data, np.uint8)]
    if form.width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) * np.float32(1 / 128)
    raw = np.frombuffer(data, np.uint8).reshape(-1, form.width)
    wide: np.ndarray = np.zeros((len(raw), 4), np.uint8)  # the sample in the upper bytes of a little-endian int32
    wide[:, 4 - form.width :] = raw[:, ::-1] if form.order == ">" else raw
    return wide.view("<i4")[:, 0].astype(np.float32) * np.float32(2**-31)


def _mu_law() -> np.ndarray:
    """The value of each byte by G.711, float32 [256], full scale 1."""
    byte = ~np.arange(256, dtype=np.int64) & 0xFF
    size = (((byte & 15) << 3) + 0x84 << (byte >> 4 & 7)) - 0x84
    return (np.where(byte & 0x80, -size, size) / 32768).astype(np.float32)


def _a_law() -> np.ndarray:
    """The value of each byte by G.711, float32 [256], full scale 1."""
    byte = np.arange(256, dtype=np.int64) ^ 0x55
    exponent, size = byte >> 4 & 7, (byte & 15) << 4
    size = np.where(exponent == 0, size + 8, size + 0x108 << np.maximum(exponent - 1, 0))
    return (np.where(byte & 0x80, size, -size) / 32768).astype(np.float32)


def _ms_adpcm(data: bytes, form: WavForm) -> np.ndarray:
    """Complete blocks of MS ADPCM to float32, full scale 1; sums are rounded down, as libsndfile does.

    A block begins with the number of each channel's predictor (1 byte), its first step (int16), its second and its
    first sample (int16). 4 bits per sample follow.
    """
    channels = form.channels
    blocks = np.frombuffer(data, np.uint8).reshape(-1, form.align)
    (count,) = unpack("<H", form.extra[2:4])
    coefficients = np.frombuffer(form.extra[4 : 4 + 4 * count], "<i2").reshape(-1, 2).astype(np.int64)
    predictor = coefficients[np.minimum(blocks[:, :channels], len(coefficients) - 1)]  # [blocks, channels, 2]
    numbers = np.ascontiguousarray(blocks[:, channels : 7 * channels]).view("<i2").astype(np.int64)
    step, last, before = (numbers[:, i * channels : (i + 1) * channels] for i in range(3))
    body = blocks[:, 7 * channels :]
    codes = np.stack([body >> 4, body & 15], axis=2).reshape(len(blocks), -1, channels).astype(np.int64)
    out = np.empty((len(blocks), codes.shape[1] + 2, channels), np.int64)
    out[:, 0], out[:, 1] = before, last
    for i in range(codes.shape[1]):
        code = codes[:, i]
        predicted = last * predictor[..., 0] + before * predictor[..., 1] >> 8
        value: np.ndarray = np.clip(predicted + np.where(code > 7, code - 16, code) * step, -32768, 32767)
        step = np.maximum(step * _ADAPTATION[code] >> 8, _SMALLEST_STEP)
        last, before = value, last
        out[:, i + 2] = value
    per_block = unpack("<H", form.extra[:2])[0]
    return (out[:, :per_block].reshape(-1) / 32768).astype(np.float32)
