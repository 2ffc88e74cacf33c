"""`load`: a clip from any source as float32 mono samples at 16 kHz."""

from __future__ import annotations

import io
import os
import re
import stat
import tempfile
import threading
import warnings
import wave
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import numpy as np

from ..errors import AudioError
from .arrays import channels_from_array
from .decode import EncodedSound
from .fetch import IN_MEMORY, decode_base64, fetch, read_data_uri
from .formats import format_of
from .limits import LONGEST_PATH, Deadline, Limits
from .resample import SAMPLE_RATE, join

__all__ = ["SAMPLE_RATE", "Limits", "SoundWarning", "load"]

_SOURCES = (
    "a path, bytes, a binary file, an http(s) URL, a data: URI, base64, (array, rate), "
    "{'array', 'sampling_rate'}, or an array of samples"
)
_BLOCK_SAMPLES = 1 << 20  # of a plain WAV file read at a time, 65 s
_SHORTEST_BASE64 = 64  # characters; fewer cannot hold a sound file, and are a misspelt path
_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]+={0,2}\s*")
_Opened = AbstractContextManager[IO[bytes]]


class SoundWarning(UserWarning):
    """Part of a clip was lost or is left out."""


# Show the warning for every clip: by default Python shows equal texts once. It is appended, so that the user's own
# filters win.
warnings.simplefilter("always", SoundWarning, append=True)

_in_use: set[int] = set()  # id() of the file objects that are being read
_in_use_changed = threading.Condition()


def load(source: Any, *, sampling_rate: int | None = None, limits: Limits | None = None) -> np.ndarray:
    """Read one clip: float32 [S], mono (the mean over channels), 16 kHz, full scale 1.

    Decoding and resampling give the same samples as librosa's `load(sr=16000)`.

    Args:
        source: a path (str, Path or file:// URL); the bytes of an encoded file; a binary file object, which is read
            from its start and stays open, and which several threads may load at the same time; an http(s) URL; a
            data: URI; base64 that is no existing path; `(array, rate)`; a value of an audio column of Hugging Face's
            datasets, `{"array", "sampling_rate"}` or `{"bytes", "path"}`; or an array, list or torch tensor of
            samples: [S], or 2-D with the channels on
            the axis of at most 8, in floats, int16, int32 or uint8.
        sampling_rate: Hz of an array, 16,000 by default. An encoded file carries its own rate: for it, leave this out
            or give 16,000.
        limits: ceilings for bytes, seconds, channels and time; None means `Limits()`.

    Warns:
        SoundWarning: the file is damaged or cut off; the part that could be decoded is returned. Or it has several
            audio tracks; the default one is returned.

    Raises:
        AudioError: the clip has no samples, has NaN or infinite samples, or exceeds `limits`.
    """
    waveform, notes = load_with_notes(source, sampling_rate=sampling_rate, limits=limits)
    for sentence in notes:
        warnings.warn(sentence, SoundWarning, stacklevel=2)
    return waveform


def load_with_notes(
    source: Any, *, sampling_rate: int | None = None, limits: Limits | None = None, name: str | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """As `load`, with the sentences that it warns of: what of the source was lost, or is not heard.

    `name` is what messages call a source that has neither path nor URL.
    """
    stream = SoundStream(source, sampling_rate=sampling_rate, limits=limits, name=name, count_first=True)
    blocks = (block for (block,) in stream.blocks())
    first, second = next(blocks), next(blocks, None)  # most clips are one block, which is not copied
    waveform = first if second is None else join(chain((first, second), blocks))
    return waveform, tuple(stream.notes)


class SoundStream:
    """A sound from any source that `load` takes, block by block: in bounded memory, from before it is read to its end.

    Attributes: `name` for messages; `seconds`, how long it should be by its header, or None; `notes`, the sentences
    that `load` warns of. The last two are set when the first block comes, and `notes` is complete after the last one.
    """

    def __init__(
        self,
        source: Any,
        *,
        split: bool = False,
        sampling_rate: int | None = None,
        limits: Limits | None = None,
        name: str | None = None,
        count_first: bool = False,
        fill_gaps: bool = False,
    ) -> None:
        """`split`: each channel by itself. `count_first`: a file of doubtful length is read before it is decoded, so
        that a longer one than `limits` allow is refused early. `fill_gaps`: silence stands where a damaged file lacks
        sound, so that what follows keeps its time. `name`: of a source with neither path nor URL."""
        self._source, self._split, self._rate = source, split, sampling_rate
        self._limits, self._count_first, self._fill_gaps = limits or Limits(), count_first, fill_gaps
        self.name = name_of(source) or name or "The sound"
        self._named = name is not None and name_of(source) is None
        self.seconds: float | None = None
        self.notes: list[str] = []

    def blocks(self) -> Generator[list[np.ndarray], None, None]:
        """Lists of float32 [n] at 16 kHz: of each channel with `split`, else of one, their mean. Raises as `load`."""
        source, rate, limits = self._source, self._rate, self._limits
        if isinstance(source, Mapping) or hasattr(source, "get_all_samples"):
            source = _of_dataset(source)
        if isinstance(source, tuple) or _is_array_like(source):
            if isinstance(source, tuple):
                source, rate = _array_and_rate(source, rate)
            elif rate is None:
                rate = SAMPLE_RATE
            tracks = channels_from_array(source, rate, limits, split=self._split)
            self.seconds = len(tracks[0]) / SAMPLE_RATE
            yield tracks
            return
        if rate is not None and rate != SAMPLE_RATE:
            raise AudioError(
                f"sampling_rate={rate!r} was given with an encoded sound, which carries its own; leave it out."
            )
        deadline = Deadline(limits.deadline)
        own_name, opened = _open(source, limits, deadline)
        self.name = self.name if self._named else own_name
        with opened as file:
            span = _plain_wav(file, self.name, limits)
            if span is not None:
                self.seconds = span[1] / SAMPLE_RATE
                yield from ([block] for block in _plain_blocks(file, *span))
                return
            encoded = EncodedSound(file, self.name, limits, deadline, self._fill_gaps)
            for tracks in encoded.blocks(split=self._split, count_first=self._count_first):
                if self.seconds is None:
                    self.seconds = encoded.promised
                yield tracks
        self.notes += filter(None, (encoded.damage, encoded.note))


def read_plain_wav(file: IO[bytes], name: str, limits: Limits) -> np.ndarray | None:
    """The samples of a seekable file that is a whole WAV file, 16-bit mono at 16 kHz; None for any other.

    They equal FFmpeg's, in a tenth of the time. Files that are cut off or have a second data chunk are left to FFmpeg.
    Raises AudioError for more than `limits` allow.
    """
    span = _plain_wav(file, name, limits)
    return None if span is None else join(_plain_blocks(file, *span))


def _plain_wav(file: IO[bytes], name: str, limits: Limits) -> tuple[int, int] | None:
    """Where the samples of such a file begin (bytes), and how many there are; None for any other file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    span = None
    try:
        with wave.open(file) as header:
            count = header.getnframes()
            form = (header.getnchannels(), header.getsampwidth(), header.getframerate())
            start = file.tell()
            if form == (1, 2, SAMPLE_RATE) and 0 < 2 * count <= size - start:  # it may end within a sample
                limits.check_bytes(size, name)
                limits.check_form(1, SAMPLE_RATE, name)
                limits.check_seconds(count / SAMPLE_RATE, name)
                file.seek(start + 2 * count)
                span = (start, count) if _ends_with_its_data(file, size) else None
    except (wave.Error, EOFError, RuntimeError):  # RuntimeError: of a chunk that promises more than there is
        pass
    file.seek(0)
    return span


def _plain_blocks(file: IO[bytes], start: int, count: int) -> Iterator[np.ndarray]:
    """`count` samples of 16 bits from byte `start` of a file on, as float32 [n]."""
    file.seek(start)
    while count > 0 and (data := file.read(2 * min(count, _BLOCK_SAMPLES))):
        count -= len(data) // 2
        yield np.frombuffer(data, "<i2", len(data) // 2).astype(np.float32) / 32768


def _ends_with_its_data(file: IO[bytes], size: int) -> bool:
    """Whether a WAV file of `size` bytes, read to the end of its first data chunk, is whole and has no second one."""
    rest = file.read(1 << 16)
    file.seek(4)
    promised = int.from_bytes(file.read(4), "little") + 8
    return b"data" not in rest and len(rest) < 1 << 16 and promised <= size + 1  # a padding byte may be missing


def name_of(source: Any) -> str | None:
    """The path or URL of a clip, for messages; None when it has none, or one of more than 200 characters."""
    text = str(source) if isinstance(source, str) or hasattr(source, "__fspath__") else getattr(source, "name", None)
    return text if isinstance(text, str) and 0 < len(text) <= 200 and text[:5].lower() != "data:" else None


def _is_array_like(source: Any) -> bool:
    """Whether `source` holds samples itself: numpy array, torch tensor, list of numbers."""
    return isinstance(source, list) or hasattr(source, "__array__")


def _of_dataset(value: Any) -> Any:
    """A value of an audio column of Hugging Face's datasets, as a source that `load` takes.

    It is a dict, or, where datasets decodes by torchcodec, an AudioDecoder. Raises AudioError for any other dict.
    """
    if not isinstance(value, Mapping):
        samples = value.get_all_samples()
        return samples.data, samples.sample_rate
    fields = {key: item for key, item in value.items() if item is not None}
    if "array" in fields and set(fields) <= {"array", "sampling_rate", "path", "bytes"}:
        array = fields["array"]
        array = np.asarray(array) if isinstance(array, list) else array
        return (array, fields["sampling_rate"]) if "sampling_rate" in fields else array
    for key in ("bytes", "path", "url"):  # an encoded sound; the path beside its bytes is only a name
        if key in fields and set(fields) <= {key, "path"}:
            return fields[key]
    raise AudioError(
        f"Found a dict with {sorted(map(str, fields))}; expected {{'array', 'sampling_rate'}}, or {{'bytes'}} or "
        "{'path'} of an encoded sound."
    )


def _array_and_rate(pair: tuple[Any, ...], sampling_rate: int | None) -> tuple[Any, Any]:
    if len(pair) != 2 or not _is_array_like(pair[0]):
        swapped = len(pair) == 2 and _is_array_like(pair[1])
        description = "(rate, array)" if swapped else f"a tuple of {len(pair)}"
        raise AudioError(f"Found {description}; expected (array, rate), such as (samples, 44100).")
    array, rate = pair
    if sampling_rate is not None and sampling_rate != rate:
        raise AudioError(
            f"(array, rate) says {rate!r} Hz and sampling_rate says {sampling_rate!r} Hz; give one of them."
        )
    return array, rate


def _open(source: Any, limits: Limits, deadline: Deadline) -> tuple[str, _Opened]:
    """The source's name for messages, and a context manager that yields a seekable binary file."""
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        if isinstance(source, str) and isinstance(text, str):
            return _open_string(text, limits, deadline)
        return _open_path(os.fsdecode(text))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "The sound given as bytes", io.BytesIO(source)
    if hasattr(source, "read"):
        return _open_file_object(source, limits, deadline)
    raise AudioError(f"Found {type(source).__name__}; expected {_SOURCES}.")


def _open_string(text: str, limits: Limits, deadline: Deadline) -> tuple[str, _Opened]:
    if text[:5].lower() == "data:":
        return "The data: URI", io.BytesIO(read_data_uri(text, limits))
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", text)
    if scheme is None:
        encoded = _bytes_of_base64(text, limits)
        return _open_path(text) if encoded is None else ("The base64 string", encoded)
    kind = scheme[1].lower()
    if kind in ("http", "https"):
        return text, fetch(text, limits, deadline)
    if kind == "file":
        return _open_path(local_path(text))
    raise AudioError(f"{_short(text)} has the scheme {kind}://; expected {_SOURCES}.")


def _bytes_of_base64(text: str, limits: Limits) -> IO[bytes] | None:
    """The bytes of bare base64, as the reference decodes a string that is no path; None for any other string."""
    if len(text) < _SHORTEST_BASE64 or not _BASE64.fullmatch(text) or _exists(text):
        return None
    limits.check_bytes(len(text) * 3 // 4 - 2, "The base64 string")
    try:
        data = decode_base64(text)
    except ValueError:
        return None
    known = format_of(data[:4096])  # without one it is rather a path that is misspelt
    is_mpeg = data[0] == 0xFF and data[1] >= 0xE0  # MP3 and AAC without a header
    return io.BytesIO(data) if is_mpeg or (known is not None and known.is_sound) else None


def _exists(path: str) -> bool:
    try:
        return len(path) <= LONGEST_PATH and os.path.exists(path)
    except ValueError:
        return False


def local_path(url: str) -> str:
    """The path that a file:// URL names. Raises AudioError when the URL names another host."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise AudioError(f"{_short(url)} names the host {parts.netloc!r}; expected file:///path of this machine.")
    return unquote(parts.path)


def _open_path(path: str) -> tuple[str, _Opened]:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise AudioError(f"{path} may not be read: permission denied.") from error
        raise AudioError(
            f"No such file: {_short(path)}. It is neither an existing path, an http(s) URL nor a data: URI; "
            f"relative paths start at {os.getcwd()}."
        ) from error
    if stat.S_ISDIR(mode):
        raise AudioError(f"{path} is a directory; expected a sound file. Give the files in it one by one.")
    if not stat.S_ISREG(mode):
        raise AudioError(f"{path} is not a regular file; expected a sound file. Read a pipe or device yourself.")
    try:
        return path, Path(path).open("rb")
    except OSError as error:
        raise AudioError(f"{path} may not be read: {error.strerror}.") from error


def _open_file_object(file: Any, limits: Limits, deadline: Deadline) -> tuple[str, _Opened]:
    path = getattr(file, "name", None)
    name = f"The file {path}" if isinstance(path, str) and path else "The file object"
    if isinstance(file, io.TextIOBase):
        raise AudioError(f"{name} is opened as text; open it in binary mode, 'rb'.")
    if getattr(file, "seekable", lambda: False)():
        return name, _exclusive(file)
    copy: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  a pipe cannot seek, the decoder must
    try:
        with _exclusive(file):
            while block := file.read(1 << 16):
                if not isinstance(block, (bytes, bytearray, memoryview)):
                    raise AudioError(f"{name} gives {type(block).__name__} when read; expected bytes.")
                copy.write(block)
                limits.check_bytes(copy.tell(), name)
                deadline.check(name)
    except BaseException:
        copy.close()
        raise
    return name, copy


@contextmanager
def _exclusive(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """`file` for one thread at a time: several conversations may hold it, and it has a single read position."""
    with _in_use_changed:
        _in_use_changed.wait_for(lambda: id(file) not in _in_use)
        _in_use.add(id(file))
    try:
        yield file
    finally:
        with _in_use_changed:
            _in_use.discard(id(file))
            _in_use_changed.notify_all()


def _short(text: str) -> str:
    return repr(text) if len(text) <= 200 else repr(text[:200]) + "..."
