"""A JSONL file as training examples. Rows are found by byte offset; a clip is decoded when its row is read.

line of JSON -> formats.read_row -> clips.read_clip -> augment -> log-mels, masks.encode_chat -> Example
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import mel
from ..audio.resample import SAMPLE_RATE
from ..errors import AudioError, ConfigError, PromptError
from ..inputs.messages import assistant, user
from ..inputs.processor import Qwen2AudioProcessor
from ..inputs.prompt import custom_template
from ..text.chat_template import check_messages
from ..types import Message
from . import augment, masks
from .clips import read_clip, seconds_of
from .config import DataConfig
from .formats import BaseRow, ChatRow, answer_text, read_row
from .quarantine import BadRow

_BOM = b"\xef\xbb\xbf"  # which some editors put at the start of a file


@dataclass(frozen=True)
class Example:
    """One row, ready for a batch."""

    ids: list[int]  # T positions, audio expanded
    trained: list[bool]  # [T]: where true, the loss is taken on ids[t], predicted from the ids before it
    mels: list[np.ndarray]  # float32 [mel bins, F_i] of each clip, not padded to a window
    frames: list[int]  # valid mel frames of each clip, <= F_i
    line: int  # in the data file, from 1


@dataclass(frozen=True)
class Pair:
    """One row for DPO: the same prompt with a better and a worse answer; only the last answer is trained on."""

    chosen: Example
    rejected: Example


@dataclass(frozen=True)
class _Features:
    """The clips of one row."""

    mels: list[np.ndarray]  # float32 [mel bins, F_i]
    frames: list[int]  # valid mel frames
    tokens: list[int]  # audio tokens


class Dataset:
    """The rows of one JSONL file (see `formats`), which may be larger than memory. Blank lines are skipped."""

    def __init__(
        self,
        path: str | Path,
        processor: Qwen2AudioProcessor,
        config: DataConfig | None = None,
        *,
        seed: int = 0,
        lengths: np.ndarray | None = None,
        pairs: bool = False,
    ) -> None:
        """`config`: `turns`, `max_tokens` (0: the tokenizer's model_max_length) and `augment` are used; None: defaults.
        `seed`: of the augmentation. `lengths`: an earlier result of `lengths()` for this file, instead of reading it.
        `pairs`: only rows with a rejected answer can be used.

        Raises PromptError for a file without rows, ConfigError for a chat template or an augmentation that cannot work.
        """
        self.path = Path(path)
        self.processor = processor
        self.config = config or DataConfig(train=str(path))
        self.seed = seed
        augment.check_config(self.config.augment)
        if custom_template(processor) is not None:
            raise ConfigError(
                "The checkpoint has a chat template of its own, for which no loss mask can be made; "
                "train with the official one (take chat_template out of the checkpoint's files)."
            )
        self._offsets, self._lines = _scan(self.path)
        self._lengths = lengths
        self.pairs = pairs
        self.bad_rows: list[BadRow] = []  # the rows for which `lengths` has 0, once it has read the file

    def __len__(self) -> int:
        return len(self._offsets)

    def line(self, index: int) -> int:
        """The line of row `index` in the file, from 1."""
        return self._lines[index]

    def example(self, index: int, epoch: int = 0) -> Example:
        """Row `index` with the augmentation of `epoch`. Raises BadRow, which names the line and the reason."""
        with self._errors_as_bad_row(index):
            row = self._read(index)
            features = self._features(row, index, epoch)
            return self._example(row, features, index)

    def pair(self, index: int, epoch: int = 0) -> Pair:
        """Row `index` for DPO. Raises BadRow, also for a row without a rejected answer."""
        with self._errors_as_bad_row(index):
            row = self._read(index)
            row, worse = _check_pair(row)
            features = self._features(row, index, epoch)
            last = (len(row.messages) - 1,)
            chosen = ChatRow(row.messages, last)
            rejected = ChatRow([*row.messages[:-1], worse], last)
            return Pair(self._example(chosen, features, index), self._example(rejected, features, index))

    def has_rejected(self, index: int) -> bool:
        """Whether row `index` is a pair for DPO. Raises BadRow."""
        with self._errors_as_bad_row(index):
            row = self._read(index)
        return isinstance(row, ChatRow) and row.rejected is not None

    def messages(self, index: int) -> list[Message]:
        """The conversation of row `index` as our messages; of an evaluation row, prompt and answer.

        Raises BadRow.
        """
        with self._errors_as_bad_row(index):
            row = self._read(index)
        if isinstance(row, ChatRow):
            return row.messages
        return [user(row.prompt, audio=row.audio), assistant(row.target)]

    def lengths(self) -> np.ndarray:
        """Tokens of each row, int32 [N], from the texts and the headers of the clips; 0 for a row that cannot be used.

        No clip is decoded, unless its header says that the row cannot be used; what such a row then raises is added to
        `bad_rows`. Computed once; a file of a hundred thousand rows takes a minute.
        """
        if self._lengths is None:
            self._lengths = np.array([self._length(index) for index in range(len(self))], np.int32)
        return self._lengths

    def count_without_clip(self) -> int:
        """The rows that can be used and have no clip."""
        return sum(self._has_no_clip(index) for index in np.flatnonzero(self.lengths()).tolist())

    def _has_no_clip(self, index: int) -> bool:
        try:
            return not _sources(self._read(index))
        except PromptError:  # the file was changed after its lengths were saved
            return False

    def _length(self, index: int) -> int:
        try:
            row = self._read(index)
            if self.pairs:
                _check_pair(row)
            seconds = [seconds_of(source) for source in _sources(row)]
            tokens = [mel.num_audio_tokens(mel.num_frames(round(s * SAMPLE_RATE))) for s in seconds]
            length = len(self._encode(row, tokens)[0])
            if max(seconds, default=0) <= mel.WINDOW_SECONDS and length <= self._limit:
                return length
        except (PromptError, AudioError, OSError):
            pass
        try:  # the whole reason; or the header was wrong, and the row can be used
            example = self.pair(index).chosen if self.pairs else self.example(index)
        except BadRow as bad:
            self.bad_rows.append(bad)
            return 0
        return len(example.ids)

    @property
    def _limit(self) -> int:
        """The most tokens that a row may have."""
        return int(self.config.max_tokens or self.processor.tokenizer.model_max_length)

    def _read(self, index: int) -> ChatRow | BaseRow:
        with self.path.open("rb") as file:  # opened each time: worker processes must not share a file position
            file.seek(self._offsets[index])
            line = file.readline().removeprefix(_BOM)
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise PromptError(f"The line is not UTF-8 text (byte {error.start}).") from error
        except (ValueError, RecursionError) as error:
            raise PromptError(f"The line is not JSON: {error}.") from error
        return read_row(row, self.path.parent)

    def _features(self, row: ChatRow | BaseRow, index: int, epoch: int) -> _Features:
        """Decode and augment the clips of a row."""
        draw = augment.generator(self.seed, epoch, index)
        config = self.config.augment
        features = _Features([], [], [])
        for number, source in enumerate(_sources(row), 1):
            waveform = augment.vary_waveform(read_clip(source, number).waveform, config, draw)
            frames = mel.num_frames(len(waveform))
            log_mel = mel.log_mel(waveform, num_mel_bins=self.processor.feature_extractor.feature_size)
            features.mels.append(augment.vary_log_mel(log_mel, frames, config, draw))
            features.frames.append(frames)
            features.tokens.append(mel.num_audio_tokens(frames))
        return features

    def _example(self, row: ChatRow | BaseRow, features: _Features, index: int) -> Example:
        ids, trained = self._encode(row, features.tokens)
        if len(ids) > self._limit:
            raise PromptError(f"The row has {len(ids)} tokens; expected at most {self._limit} (max_tokens).")
        return Example(ids, trained, features.mels, features.frames, self.line(index))

    def _encode(self, row: ChatRow | BaseRow, audio_tokens: list[int]) -> masks.Encoded:
        """Ids and loss mask, checked against the answers. Raises PromptError."""
        tokenizer = self.processor.tokenizer
        if isinstance(row, BaseRow):
            encoded = masks.encode_base(row.prompt, row.target, audio_tokens[0], tokenizer)
            masks.check_mask(encoded, [row.target.removesuffix(masks.END_OF_TEXT)], masks.END_OF_TEXT, tokenizer)
            return encoded
        learned = row.answers if self.config.turns == "all" else _last_only(row)
        encoded = masks.encode_chat(row.messages, audio_tokens, tokenizer, learned)
        masks.check_chat(encoded, [answer_text(row.messages[i]) for i in learned], tokenizer)
        return encoded

    @contextmanager
    def _errors_as_bad_row(self, index: int) -> Iterator[None]:
        try:
            yield
        except (PromptError, AudioError) as error:
            reason = str(error).encode("utf-8", "backslashreplace").decode()  # file names may hold other bytes
            raise BadRow(str(self.path), self.line(index), reason) from error


def _sources(row: ChatRow | BaseRow) -> list[Any]:
    """Where the clips of a row are, as `clips.read_clip` takes them."""
    return [row.audio] if isinstance(row, BaseRow) else check_messages(row.messages)


def _check_pair(row: ChatRow | BaseRow) -> tuple[ChatRow, Message]:
    """The row, and its rejected answer. Raises PromptError where it has none."""
    if not isinstance(row, ChatRow) or row.rejected is None:
        raise PromptError("The row has no rejected answer; DPO needs 'rejected_response', or chosen/rejected.")
    return row, row.rejected


def _last_only(row: ChatRow) -> tuple[int, ...]:
    """The index of the last message. Raises PromptError where it is not to be trained on."""
    if row.answers[-1] != len(row.messages) - 1:
        raise PromptError("The last answer is switched off by 'weight' or 'loss', and only the last is trained on.")
    return row.answers[-1:]


def _scan(path: Path) -> tuple[array[int], array[int]]:
    """Byte offset and line number of each row: 16 bytes of memory per row, however long it is."""
    offsets, lines = array("q"), array("q")
    position = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    if not offsets and line.removeprefix(_BOM).lstrip()[:1] == b"[":
                        raise PromptError(
                            f"{path} is a JSON list; expected JSONL, one row a line. Convert it: "
                            f"python -c \"import json; [print(json.dumps(r)) for r in json.load(open('{path.name}'))]\""
                        )
                    offsets.append(position)
                    lines.append(number)
                position += len(line)
    except OSError as error:
        raise PromptError(f"The data file {path} cannot be read: {error.strerror}.") from error
    if not offsets:
        raise PromptError(f"{path} has no rows; expected JSONL, one conversation a line.")
    return offsets, lines
