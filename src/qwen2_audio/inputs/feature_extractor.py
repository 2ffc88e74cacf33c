"""Waveforms to log-mel windows [clips, mel bins, 3000] with their mask, as the reference's feature extractor."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..audio import mel
from ..audio.io import SAMPLE_RATE, SoundWarning, load, name_of
from ..checkpoint import hub
from ..checkpoint.json_file import read_json, write_json
from ..errors import AudioError, ConfigError
from ..text.batch_feature import BatchFeature, to_tensors

FEATURE_FILES = ("preprocessor_config.json", "processor_config.json")

# The settings that audio.mel implements: preprocessor_config.json must have these values.
FIXED = {
    "sampling_rate": SAMPLE_RATE,  # Hz
    "hop_length": mel.MEL_HOP,  # samples between the starts of two frames
    "n_fft": 400,  # samples in a frame
    "chunk_length": mel.WINDOW_SECONDS,  # s
    "n_samples": mel.WINDOW_SAMPLES,
    "nb_max_frames": mel.WINDOW_FRAMES,
    "padding_value": 0.0,
    "padding_side": "right",
    "dither": 0.0,
    "do_normalize": False,
}


class WhisperFeatureExtractor:
    """Computes log-mel spectrograms with the settings of preprocessor_config.json.

    Attributes: `feature_size` (mel bins, 128), `sampling_rate` (16000 Hz), `hop_length` (160 samples), `n_fft` (400),
    `chunk_length` (30 s), `n_samples` (480000), `nb_max_frames` (3000), `padding_value`, `padding_side`, `dither`.
    """

    model_input_names = ("input_features",)

    def __init__(self, feature_size: int = 128, **settings: Any):
        """`settings` are the keys of preprocessor_config.json. Raises ConfigError for a value other than FIXED's."""
        for name, expected in FIXED.items():
            value = settings.get(name, expected)
            if value != expected and not (name == "do_normalize" and value is None):
                raise ConfigError(
                    f"preprocessor_config.json sets {name} to {value!r}; this front end computes {expected!r} only. "
                    "Use a Qwen2-Audio checkpoint, or set it back."
                )
        if isinstance(feature_size, bool) or not isinstance(feature_size, int) or feature_size < 1:
            raise ConfigError(f"feature_size is {feature_size!r}; expected the number of mel bins, such as 128.")
        self.feature_size = feature_size
        self._settings = {**FIXED, "return_attention_mask": True, **settings}

    def __getattr__(self, name: str) -> Any:
        settings = self.__dict__.get("_settings", {})
        if name in settings:
            return settings[name]
        raise AttributeError(f"The feature extractor has no {name!r}.")

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Read preprocessor_config.json, or the feature extractor's part of processor_config.json.

        `trust_remote_code` is accepted, as the reference's examples pass it, and does nothing: no code is downloaded.
        Raises ConfigError for missing or unsupported settings, WeightsError for files that cannot be read.
        """
        folder = hub.resolve(name_or_path, FEATURE_FILES, revision=revision, local_files_only=local_files_only)
        settings = read_json(folder / FEATURE_FILES[0]) or read_json(folder / FEATURE_FILES[1]).get("feature_extractor")
        if not settings:
            raise ConfigError(f"{folder} has no {FEATURE_FILES[0]}; expected the folder of a Qwen2-Audio checkpoint.")
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of preprocessor_config.json."""
        names = {"feature_extractor_type": "WhisperFeatureExtractor", "processor_class": "Qwen2AudioProcessor"}
        settings = {key: value for key, value in self._settings.items() if key != "do_normalize"}
        return {**names, "feature_size": self.feature_size, **settings}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write preprocessor_config.json into `folder`, creating it."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder) / FEATURE_FILES[0], self.to_dict())

    def __call__(
        self,
        raw_speech: Any,
        *,
        sampling_rate: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        padding: str = "max_length",
    ) -> BatchFeature:
        """`input_features` float32 [A, feature_size, 3000] and `attention_mask` int32 [A, 3000] (1: valid frame).

        Args:
            raw_speech: a clip or several, in any form that `audio.io.load` reads; a 2-D array is a batch of rows.
            sampling_rate: Hz of the samples; only 16,000 is accepted.
            return_attention_mask: None takes the setting of preprocessor_config.json.
            return_tensors: "pt", "np", or None for numpy arrays.
            padding: only "max_length", the full window; programs written for the reference pass it.

        Warns:
            SoundWarning: a clip is longer than 30 s; the samples after 30 s are dropped.

        Raises:
            AudioError: a clip cannot be read, or another `sampling_rate`.
            ConfigError: another `padding`.
        """
        if padding != "max_length":
            raise ConfigError(
                f"padding is {padding!r}; expected 'max_length': clips are always filled up to the encoder's window."
            )
        self.check_rate(sampling_rate)
        rows = list(raw_speech) if getattr(raw_speech, "ndim", 1) == 2 else clips_in(raw_speech)
        clips = [load(row) for row in rows]
        warn_of_long(clips, rows)
        return self.extract(clips, return_attention_mask, return_tensors)

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
        """Raises AudioError for a rate other than 16000 Hz, the rate of samples that come without one."""
        if sampling_rate is not None and sampling_rate != SAMPLE_RATE:
            raise AudioError(
                f"sampling_rate is {sampling_rate}, and samples given without a rate are taken to be at {SAMPLE_RATE} "
                f"Hz. Give each clip as (samples, {sampling_rate}), which is converted, or convert it first."
            )


def warn_of_long(clips: Sequence[np.ndarray], sources: Sequence[Any]) -> None:
    """Issue a SoundWarning, at the line that called the caller, for each clip of more than 30 s."""
    for number, (clip, source) in enumerate(zip(clips, sources, strict=True), 1):
        if len(clip) > mel.WINDOW_SAMPLES:
            seconds, limit, name = len(clip) / SAMPLE_RATE, mel.WINDOW_SECONDS, name_of(source)
            warnings.warn(
                f"Clip {number}{f' ({name})' if name else ''} lasts {seconds:.1f} s; only its first {limit} s are "
                f"heard, {seconds - limit:.1f} s are left out. Cut it into clips of at most 30 s to have all of it "
                "heard.",
                SoundWarning,
                stacklevel=3,
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
