"""Waveforms to log-mel windows [clips, mel bins, 3000] with their mask, as the reference's feature extractor."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..audio import any_mel, mel
from ..audio.io import SAMPLE_RATE, SoundWarning, load, name_of
from ..checkpoint import hub
from ..checkpoint.json_file import read_json, write_json
from ..errors import AudioError, ConfigError
from ..text.batch_feature import BatchFeature, to_tensors
from .feature_padding import columns_of, normalized, pad_features, stacked

FEATURE_FILES = ("preprocessor_config.json", "processor_config.json")
# The settings that the model's own front end, audio.mel, computes.
FIXED = {
    "sampling_rate": SAMPLE_RATE,  # Hz
    "hop_length": mel.MEL_HOP,  # samples between the starts of two frames
    "n_fft": mel.N_FFT,  # samples in a frame
    "chunk_length": mel.WINDOW_SECONDS,  # s
    "padding_value": 0.0,
    "padding_side": "right",
    "dither": 0.0,
}
_DERIVED = ("n_samples", "nb_max_frames")  # computed from the settings, whatever a file says
_CLASSES = ("feature_extractor_type", "processor_class", "image_processor_type", "_processor_class", "auto_map")


class WhisperFeatureExtractor:
    """Computes log-mel spectrograms with the settings of preprocessor_config.json.

    Attributes: `feature_size` (mel bins, 128), `sampling_rate` (16000 Hz), `hop_length` (160 samples), `n_fft` (400),
    `chunk_length` (30 s), `n_samples` (480000), `nb_max_frames` (3000), `padding_value`, `padding_side`, `dither`,
    `return_attention_mask`, and any other setting. `do_normalize` is kept and has no effect, as in the reference:
    a call has an option of that name.
    """

    model_input_names = ("input_features",)

    def __init__(self, feature_size: int = 128, **settings: Any):
        """`settings` are the keys of preprocessor_config.json. Raises ConfigError for a setting that is no number."""
        if isinstance(feature_size, bool) or not isinstance(feature_size, int) or feature_size < 1:
            raise ConfigError(f"feature_size is {feature_size!r}; expected the number of mel bins, such as 128.")
        own = {name: value for name, value in settings.items() if name not in (*_CLASSES, *_DERIVED)}
        values = {"feature_size": feature_size, **FIXED, "return_attention_mask": True, **own}
        for name in ("sampling_rate", "hop_length", "n_fft", "chunk_length"):
            if not isinstance(values[name], int) or values[name] < 1:
                raise ConfigError(f"{name} is {values[name]!r}; expected a whole number from 1 up.")
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"The feature extractor has no {name!r}.")

    @property
    def n_samples(self) -> int:
        """Samples of the window that clips are filled up to."""
        return int(self.chunk_length * self.sampling_rate)

    @property
    def nb_max_frames(self) -> int:
        """Frames of the window."""
        return self.n_samples // int(self.hop_length)

    @property
    def mel_filters(self) -> np.ndarray:
        """The filter bank, float32 [n_fft // 2 + 1, feature_size]."""
        return mel.mel_filters(self.feature_size, self.n_fft, self.sampling_rate)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Read preprocessor_config.json, or the feature extractor's part of processor_config.json.

        Args:
            options: `hub.OPTIONS` (`revision`, `token`, `cache_dir` ...), and settings that take the place of the
                file's. `hub.WITHOUT_EFFECT` (`trust_remote_code` ...) do nothing: no code is downloaded.

        Raises ConfigError for missing or impossible settings, WeightsError for files that cannot be read.
        """
        where, settings = hub.split_options(options)
        folder = hub.resolve(pretrained_model_name_or_path, FEATURE_FILES, **where)
        found = read_json(folder / FEATURE_FILES[0]) or read_json(folder / FEATURE_FILES[1]).get("feature_extractor")
        if not found:
            raise ConfigError(f"{folder} has no {FEATURE_FILES[0]}; expected the folder of a Qwen2-Audio checkpoint.")
        return cls(**{**found, **settings})

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], **others: Any) -> Self:
        """From what `to_dict` gives; `others` take the place of its settings."""
        return cls(**{**settings, **others})

    @classmethod
    def from_json_file(cls, path: str | Path) -> Self:
        """From a file that `to_json_file` wrote."""
        return cls.from_dict(read_json(Path(path)))

    def to_dict(self) -> dict[str, Any]:
        """The settings as the JSON object of preprocessor_config.json."""
        derived = {name: getattr(self, name) for name in _DERIVED}
        return {"feature_extractor_type": type(self).__name__, **self.__dict__, **derived}

    def to_json_string(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, path: str | Path) -> None:
        """Write `to_json_string` to a file."""
        Path(path).write_text(self.to_json_string(), encoding="utf-8")

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    def save_pretrained(self, folder: str | Path) -> list[str]:
        """Write preprocessor_config.json into `folder`, creating it; returns its path in a list."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / FEATURE_FILES[0]
        write_json(path, {**self.to_dict(), "processor_class": "Qwen2AudioProcessor"})
        return [str(path)]

    def check_front_end(self) -> None:
        """Raises ConfigError for a setting that `audio.mel`, which the model is given clips by, does not compute."""
        for name, expected in FIXED.items():
            if getattr(self, name) != expected:
                raise ConfigError(
                    f"preprocessor_config.json sets {name} to {getattr(self, name)!r}; the model is given clips with "
                    f"{expected!r} only. Use a Qwen2-Audio checkpoint, or set it back."
                )

    def __call__(
        self,
        raw_speech: Any,
        truncation: bool = True,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool | None = None,
        padding: bool | str | None = "max_length",
        max_length: int | None = None,
        sampling_rate: int | None = None,
        do_normalize: bool | None = None,
        device: str = "cpu",
    ) -> BatchFeature:
        """`input_features` float32 [A, feature_size, F] and `attention_mask` int32 [A, F] (1: valid frame).

        Args:
            raw_speech: a clip or several, in any form that `audio.io.load` reads; a 2-D array is a batch of rows.
            truncation: drop the samples after `max_length`, with a warning.
            pad_to_multiple_of: fill up to the next multiple of so many samples.
            return_tensors: "pt", "np", or None for numpy arrays; a list of them if their lengths differ.
            return_attention_mask: None takes the setting of preprocessor_config.json.
            padding: "max_length" (F = 3000 with the official settings), True or "longest", False or "do_not_pad".
            max_length: samples; None: `n_samples`.
            sampling_rate: Hz of the samples; only the setting's is accepted.
            do_normalize: give each clip mean 0 and variance 1 first.
            device: no effect: log-mels are computed on the CPU.

        Warns:
            SoundWarning: a clip is longer than `max_length`; the samples behind are dropped.

        Raises:
            AudioError: a clip cannot be read, or another `sampling_rate`.
            ConfigError: an unknown `padding`.
            PromptError: tensors are requested of clips of unequal length.
        """
        self.check_rate(sampling_rate)
        rows = list(raw_speech) if getattr(raw_speech, "ndim", 1) == 2 else clips_in(raw_speech)
        clips = [self._load(row) for row in rows]
        limit = max_length or self.n_samples
        if truncation:
            warn_of_long(clips, rows, limit, self.sampling_rate)
        official = {name: getattr(self, name) for name in FIXED} == FIXED and limit == mel.WINDOW_SAMPLES
        if official and truncation and padding == "max_length" and not (do_normalize or pad_to_multiple_of):
            return self.extract(clips, return_attention_mask, return_tensors)
        columns = pad_features(
            {"input_features": clips},
            "input_features",
            strategy=padding,
            max_length=limit,
            truncation=truncation,
            multiple_of=pad_to_multiple_of,
            fill=(self.padding_value, self.padding_side),
            mask=True,
        )
        waveforms, masks = columns["input_features"], columns["attention_mask"]
        if do_normalize:
            waveforms = normalized(waveforms, [int(mask.sum()) for mask in masks], self.padding_value)
        settings = any_mel.MelSettings(
            self.feature_size, self.sampling_rate, self.hop_length, self.n_fft, float(self.dither)
        )
        features = [any_mel.log_mel(waveform, settings) for waveform in waveforms]
        frame_masks = [mask[:: self.hop_length][: len(mask) // self.hop_length] for mask in masks]
        batch = BatchFeature(input_features=stacked(features))
        if return_attention_mask or (return_attention_mask is None and self.return_attention_mask):
            batch["attention_mask"] = stacked(frame_masks)
        return batch.convert_to_tensors(return_tensors)

    def pad(
        self,
        processed_features: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str | None = True,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Sequences under `input_features`, [T] or [T, feature_size], made equally long, and their mask.

        Args:
            processed_features: a mapping with a row for each clip, or a list of mappings with one clip each.
            padding, max_length, truncation, pad_to_multiple_of: as in a call, in rows of the sequences.
            return_attention_mask: None takes the setting of preprocessor_config.json.
            return_tensors: "pt", "np", or None: what the sequences are made of. Without truncation rows may be longer
                than `max_length`; then they come as a list of arrays.

        Raises ConfigError as a call, and without a length where one is needed.
        """
        columns, made_of = columns_of(processed_features, "input_features")
        padded = pad_features(
            columns,
            "input_features",
            strategy=padding,
            max_length=max_length,
            truncation=truncation,
            multiple_of=pad_to_multiple_of,
            fill=(self.padding_value, self.padding_side),
            mask=self.return_attention_mask if return_attention_mask is None else return_attention_mask,
        )
        batch = {name: stacked(rows) for name, rows in padded.items()}
        tensors = return_tensors or made_of
        return BatchFeature(
            {name: to_tensors(v, tensors) if isinstance(v, np.ndarray) else v for name, v in batch.items()}
        )

    def extract(
        self, clips: Sequence[np.ndarray], return_attention_mask: bool | None = None, return_tensors: str | None = None
    ) -> BatchFeature:
        """As the call, from one float32 array [S] at 16 kHz per clip; drops samples after 30 s without a warning."""
        windows = [
            mel.log_mel(clip[: mel.WINDOW_SAMPLES], num_mel_bins=self.feature_size, pad_to_window=True)
            for clip in clips
        ]
        masks = np.zeros((len(clips), mel.WINDOW_FRAMES), dtype=np.int32)
        for mask, clip in zip(masks, clips, strict=True):
            mask[: mel.num_frames(len(clip))] = 1
        features = np.stack(windows) if windows else np.zeros((0, self.feature_size, mel.WINDOW_FRAMES), np.float32)
        batch = BatchFeature(input_features=to_tensors(features, return_tensors))
        if return_attention_mask or (return_attention_mask is None and self.return_attention_mask):
            batch["attention_mask"] = to_tensors(masks, return_tensors)
        return batch

    def check_rate(self, sampling_rate: int | None) -> None:
        """Raises AudioError for a rate other than the setting's, the rate of samples that come without one."""
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise AudioError(
                f"sampling_rate is {sampling_rate}, and samples given without a rate are taken to be at "
                f"{self.sampling_rate} Hz. Give each clip as (samples, {sampling_rate}), which is converted, or "
                "convert it first."
            )

    def _load(self, source: Any) -> np.ndarray:
        bare = isinstance(source, (list, np.ndarray)) or hasattr(source, "detach")
        if self.sampling_rate != SAMPLE_RATE and not bare:
            raise AudioError(
                f"This feature extractor takes {self.sampling_rate} Hz, and clips are read at {SAMPLE_RATE} Hz; give "
                "it arrays of samples."
            )
        return load(source)


def warn_of_long(
    clips: Sequence[np.ndarray], sources: Sequence[Any], limit: int, rate: int = SAMPLE_RATE, *, stacklevel: int = 3
) -> None:
    """Issue a SoundWarning for each clip of more than `limit` samples, by default at the caller's caller's line."""
    for number, (clip, source) in enumerate(zip(clips, sources, strict=True), 1):
        if len(clip) > limit:
            seconds, heard, name = len(clip) / rate, limit / rate, name_of(source)
            warnings.warn(
                f"Clip {number}{f' ({name})' if name else ''} lasts {seconds:.1f} s; only its first {heard:g} s are "
                f"heard, {seconds - heard:.1f} s are left out. Cut it into clips of at most {heard:g} s to have all of "
                "it heard.",
                SoundWarning,
                stacklevel=stacklevel,
            )


def clips_in(audio: Any) -> list[Any]:
    """The sources in `audio`, which is one source or a nested list of sources. `load` checks each source.

    `(samples, rate)`, a list of numbers, and an array of any shape are each one clip.
    """
    if not isinstance(audio, (list, tuple)):
        return [audio]
    if isinstance(audio, tuple) and len(audio) == 2 and sum(map(_is_number, audio)) == 1:
        return [audio]  # (samples, rate), or (rate, samples), which `load` refuses
    if audio and _is_number(audio[0]):
        return [list(audio)]
    return [clip for item in audio for clip in clips_in(item)]


def _is_number(value: Any) -> bool:
    return isinstance(value, (Real, np.number))
