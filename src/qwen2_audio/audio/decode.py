"""Decode an audio file, in any container that PyAV reads, to float32 mono at 16 kHz. No header is trusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ..errors import AudioError
from . import wav
from .formats import demuxers_for
from .limits import Deadline, Limits
from .resample import StreamResampler, join, tracks_of
from .sniff import OGG_PAGE_MAX, ends_inside_ogg_page, explain_undecodable, id3_bytes, promised_bytes, promises_duration

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

_FULL_SCALE = {"u8": 2**7, "s16": 2**15, "s32": 2**31, "s64": 2**63, "flt": 1, "dbl": 1}
# In AU files G.721 and G.723 become noise by FFmpeg's decoder of G.726; `wav` decodes MS ADPCM, exactly, in WAV files.
_NOT_EXACT = ("g726", "g726le", "adpcm_ms")
_MOST_FAILURES = 8  # of the demuxer in a row, until the rest of a file is given up
_ROUNDING_SECONDS = 0.25  # encoder delay and padding make correct headers differ from the samples by up to this much
_LONGEST_GAP = 60.0  # s that silence may stand for in a file that does not say how long it is
_SILENCE = 1 << 16  # samples of silence at a time


@dataclass(frozen=True)
class Header:
    """A container's description of its default audio stream. It may be wrong; `EncodedSound` counts samples instead."""

    codec: str
    rate: int  # Hz
    channels: int
    seconds: float  # 0 when the header does not say


def _safe_options(head: bytes) -> dict[str, str]:
    """Without these, playlists and containers with external references could make FFmpeg open files and URLs."""
    return {"format_whitelist": demuxers_for(head), "protocol_whitelist": "none"}


def read_header(file: IO[bytes]) -> Header:
    """The header of a seekable file; nothing is decoded. Raises AudioError when it describes no audio stream."""
    import av

    file.seek(0)
    head = file.read(4096)
    file.seek(0)
    try:
        with av.open(file, mode="r", options=_safe_options(head)) as container:
            if not container.streams.audio:
                raise AudioError("The header promises no sound: there is no audio stream.")
            stream = track_of(container)
            return Header(stream.codec_context.name, stream.rate, stream.channels, (container.duration or 0) / 1e6)
    except (av.FFmpegError, OSError) as error:
        raise AudioError(f"The header promises no sound: {error}.") from error


@dataclass
class EncodedSound:
    """An open audio file, its name and its limits; `decode` reads it at once, `blocks` bit by bit."""

    file: IO[bytes]  # seekable
    name: str  # for messages: the path, the URL, "The sound given as bytes"
    limits: Limits
    deadline: Deadline
    fill_gaps: bool = False  # let silence stand where sound is missing, so that what follows keeps its time
    damage: str | None = field(default=None, init=False)  # one sentence, when part of the audio was lost
    note: str | None = field(default=None, init=False)  # one sentence, when the file has tracks that are not heard
    promised: float | None = field(default=None, init=False)  # s that the header promises
    seconds: float = field(default=0.0, init=False)  # decoded so far
    _missing: float = field(
        default=0.0, init=False
    )  # s that the frames' clock skipped so far, and no silence stands for
    _filled: float = field(default=0.0, init=False)  # s of silence that stand for missing sound
    _largest_gap: tuple[float, float] = field(default=(0.0, 0.0), init=False)  # s: how long, and at which second

    def decode(self) -> np.ndarray:
        """float32 [S] at 16 kHz, the mean over channels. Raises AudioError without samples or beyond the limits."""
        return join(block for (block,) in self.blocks(count_first=True))

    def blocks(self, *, split: bool = False, count_first: bool = False) -> Iterator[list[np.ndarray]]:
        """The samples as they are decoded, float32 [n] at 16 kHz: of each channel with `split`, else one, their mean.

        `damage` is known at the end. `count_first`: a file whose length is doubtful is read once before. Raises
        AudioError, after some blocks perhaps: no samples, beyond the limits, another number of channels on the way.
        """
        size = self.file.seek(0, 2)
        if size == 0:
            raise AudioError(
                f"{self.name} is empty (0 bytes); expected an encoded sound such as WAV, FLAC, MP3 or WebM."
            )
        self.limits.check_bytes(size, self.name)
        form = wav.read_form(self.file)
        if form is not None:
            form.check(self.name)
        bad: list[float] = []  # at which second a packet could not be decoded
        if form is not None and form.is_decoded_here:
            self.limits.check_form(form.channels, form.rate, self.name)
            samples = ((channels, form.rate) for channels in wav.channel_blocks(self.file, form))
            yield from self._resampled(samples, split)
        else:
            with self._open_counted(count_first) as container:
                self.promised = _promised_seconds(container)
                self.note = _note_on_tracks(container, self.name)
                yield from self._resampled(self._frames(container, bad), split)
        if self.seconds <= self._filled:
            raise AudioError(f"{self.name} holds no samples: {'it is damaged' if bad else 'it has 0 s of sound'}.")
        self.damage = self._describe_damage(bad, size)

    def _resampled(self, samples: Iterable[tuple[np.ndarray, int]], split: bool) -> Iterator[list[np.ndarray]]:
        """Blocks [n, channels] with their rates to blocks at 16 kHz. Raises AudioError for NaN or infinite samples."""
        resamplers: list[StreamResampler] = []
        for block, rate in samples:
            tracks = tracks_of(block, split=split)
            resamplers = resamplers or [StreamResampler() for _ in tracks]
            if len(tracks) != len(resamplers):
                raise AudioError(
                    f"{self.name} has {len(resamplers)} channels and, from {self.seconds:.2f} s on, {len(tracks)}; "
                    "its channels cannot be told apart. Read it without splitting them."
                )
            if not all(np.isfinite(track).all() for track in tracks):
                raise AudioError(f"{self.name} holds NaN or infinite samples; expected finite ones. Export it anew.")
            out = [resampler.push(track, rate) for resampler, track in zip(resamplers, tracks, strict=True)]
            self.seconds = resamplers[0].seconds
            self.limits.check_seconds(self.seconds, self.name)
            self.deadline.check(self.name)
            yield out
        yield [resampler.finish() for resampler in resamplers] or [np.zeros(0, np.float32)]

    def _head(self, start: int = 0) -> bytes:
        self.file.seek(start)
        return self.file.read(4096)

    def _open(self) -> InputContainer:
        import av

        head = self._head()
        options = _safe_options(head)
        if head[:4] in (b"RIFF", b"RF64"):
            options["probesize"] = "32768"  # by default FFmpeg searches PCM for DTS frames, 50 ms per file
        self.file.seek(0)
        try:
            container = av.open(self.file, mode="r", options=options, metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            raise AudioError(explain_undecodable(self.name, head)) from error
        if not container.streams.audio:
            types = ", ".join(sorted({stream.type for stream in container.streams})) or "no"
            container.close()
            raise AudioError(f"{self.name} holds no sound: found only {types} streams; expected an audio stream.")
        context = track_of(container).codec_context
        if context is None or context.name in _NOT_EXACT:
            container.close()
            raise AudioError(f"{self.name} is coded in a way this decoder does not know; convert it to WAV or FLAC.")
        return container

    def _open_counted(self, count_first: bool) -> InputContainer:
        """The container; if its length is doubtful, after counting its packets."""
        container = self._open()
        if count_first and self._length_is_doubtful(container):
            with container:
                self._count_packets(container)
            container = self._open()
        return container

    def _length_is_doubtful(self, container: InputContainer) -> bool:
        return container.duration is None or container.duration / 1e6 > self.limits.max_seconds

    def _count_packets(self, container: InputContainer) -> None:
        """Check a missing or excessive duration against the packets before decoding: 2 MB can hold ten hours.

        A file whose header is wrong is stopped later, by the count of decoded samples.
        """
        unit = float(track_of(container).time_base or 0)  # s; read once: every read makes a new Fraction
        ticks = 0
        for packet in self._packets(container, bad=[]):
            ticks += packet.duration or 0
            self.limits.check_seconds(ticks * unit, self.name)

    def _packets(self, container: InputContainer, bad: list[float]) -> Iterator[Any]:
        """Packets of the default audio stream. `bad` gets the second of each place that cannot be demuxed; what lies
        behind it is read where the demuxer finds it."""
        import av

        failures = 0  # in a row
        packets = container.demux(track_of(container))
        while True:
            self.deadline.check(self.name)
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError):
                if not failures:
                    bad.append(self.seconds)
                failures += 1
                if failures == _MOST_FAILURES:
                    return
                packets = container.demux(track_of(container))
                continue
            if packet is None:
                return
            failures = 0
            yield packet

    def _frames(self, container: InputContainer, bad: list[float]) -> Iterator[tuple[np.ndarray, int]]:
        """Decoded frames, float32 [n, channels], with their rates. Skips undecodable packets: `bad` as `_packets`."""
        import av

        start: float | None = None  # s by the frames' own clock
        lost = _LostBytes() if container.format.name == "mp3" else None
        for packet in self._packets(container, bad):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                bad.append(self.seconds)
                if lost is not None:
                    lost.add(packet, decoded=False)
                continue
            if lost is not None:
                lost.add(packet, decoded=True)
            for frame in frames:
                self.limits.check_form(frame.layout.nb_channels, frame.sample_rate, self.name)
                if frame.time is not None:
                    start = frame.time if start is None else start
                    yield from self._silence_before(frame, frame.time - start + (lost.seconds if lost else 0.0))
                yield _channels(frame), frame.sample_rate

    def _silence_before(self, frame: Any, time: float) -> Iterator[tuple[np.ndarray, int]]:
        """Silence up to the `time` of a frame, in s, where sound is missing before it and gaps are filled."""
        gap = time - self.seconds - self._missing
        if gap <= _ROUNDING_SECONDS:
            return
        self._largest_gap = max(self._largest_gap, (gap, self.seconds))
        latest = self.seconds + _LONGEST_GAP if self.promised is None else self.promised + _ROUNDING_SECONDS
        if not self.fill_gaps or self.seconds + gap > latest:  # a damaged clock may say anything
            self._missing += gap
            return
        self._filled += gap
        count, channels = round(gap * frame.sample_rate), frame.layout.nb_channels
        for begin in range(0, count, _SILENCE):
            yield np.zeros((min(_SILENCE, count - begin), channels), np.float32), frame.sample_rate

    def _describe_damage(self, bad: list[float], size: int) -> str | None:
        seconds, promised = self.seconds - self._filled, self.promised
        silence = f", and {self._filled:.2f} s of silence stand for what is missing" if self._filled else ""
        remedy = f"the {seconds:.2f} s that could be decoded are used{silence}."
        if bad:
            return (
                f"{self.name} is damaged ({len(bad)} packets could not be decoded); {remedy} "
                f"Sound is missing at {bad[0]:.2f} s{f', and last at {bad[-1]:.2f} s' if len(bad) > 1 else ''}."
            )
        head = self._head()
        expected_size = promised_bytes(head)
        if expected_size is not None and size < expected_size - 1:  # 1 byte of padding may be missing without loss
            return f"{self.name} is cut off ({size:,} of {expected_size:,} bytes are there); {remedy}"
        self.file.seek(max(0, size - OGG_PAGE_MAX))
        if head[:4] == b"OggS" and ends_inside_ogg_page(self.file.read(OGG_PAGE_MAX)):
            return f"{self.name} is cut off (its last Ogg page is not whole); {remedy}"
        missing, at = self._largest_gap
        if self._filled:
            return f"{self.name} has a gap (at {at:.2f} s, {missing:.2f} s are missing); {remedy}"
        if promised is None or seconds >= promised - _ROUNDING_SECONDS:
            return None
        if self._missing:
            return f"{self.name} has a gap (at {at:.2f} s, {missing:.2f} s are missing); {remedy}"
        if head[:4] == b"OggS":
            return f"{self.name} has a gap (its pages count {promised:.2f} s); {remedy}"
        if promises_duration(self._head(id3_bytes(head))):
            return f"{self.name} is cut off (its header promises {promised:.2f} s); {remedy}"
        return None


class _LostBytes:
    """Packets of MP3 that cannot be decoded, as seconds: at the mean rate of those that can. They hold any number of
    frames, and FFmpeg counts one."""

    def __init__(self) -> None:
        self._seconds, self._bytes = 0.0, 0
        self.seconds = 0.0  # lost so far, that FFmpeg's times do not count

    def add(self, packet: Any, *, decoded: bool) -> None:
        duration = float((packet.duration or 0) * (packet.time_base or 0))
        if decoded:
            self._seconds, self._bytes = self._seconds + duration, self._bytes + packet.size
        elif self._bytes:
            self.seconds += max(0.0, packet.size * self._seconds / self._bytes - duration)


def track_of(container: InputContainer) -> AudioStream:
    """The audio stream that players choose: the one marked as the default, else the one with the most in it."""
    tracks = container.streams.audio
    best = container.streams.best("audio") if len(tracks) > 1 else None
    return tracks[0] if best is None else tracks[[track.index for track in tracks].index(best.index)]


def _note_on_tracks(container: InputContainer, name: str) -> str | None:
    tracks = container.streams.audio
    if len(tracks) == 1:
        return None
    track = track_of(container)
    number = [other.index for other in tracks].index(track.index) + 1
    label = track.metadata.get("title") or track.metadata.get("language", "und")
    named = f" ({label})" if label != "und" else ""
    return (
        f"{name} has {len(tracks)} audio tracks; track {number}{named}, the default one, is "
        "heard and the others are not. Extract another one to have it heard."
    )


def _promised_seconds(container: InputContainer) -> float | None:
    stream = track_of(container)
    if stream.duration is not None and stream.time_base is not None:
        # An Ogg recording of a broadcast counts from the start of the broadcast: subtract the recording's start.
        start = (stream.start_time or 0) if container.format.name == "ogg" else 0
        return float((stream.duration - start) * stream.time_base)
    audio_only = len(container.streams) == 1  # otherwise the container's duration may be that of its video
    return container.duration / 1e6 if audio_only and container.duration is not None else None


def _channels(frame: Any) -> np.ndarray:
    """One decoded frame as float32 [n, channels], full scale 1: float32 before any mean, as librosa does."""
    kind = frame.format.name.removesuffix("p")
    raw = frame.to_ndarray()  # planar [channels, n], packed [1, n * channels]
    block = raw.T if frame.format.is_planar else raw.reshape(-1, frame.layout.nb_channels)
    samples: np.ndarray = block.astype(np.float32)
    if kind == "u8":
        samples -= 128
    if _FULL_SCALE[kind] != 1:
        samples *= np.float32(1 / _FULL_SCALE[kind])
    return samples
