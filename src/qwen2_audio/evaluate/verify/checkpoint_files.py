"""The checkpoint: config, every tensor's name, shape and value, tokenizer and front end, against published values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...audio import mel
from ...checkpoint import hub
from ...checkpoint.config import CONFIG_FILE, Qwen2AudioConfig
from ...checkpoint.weights import PATTERNS, Checkpoint, check_tensors, separate_head
from ...errors import WeightsError
from ...inputs.processor import Qwen2AudioProcessor
from ...inputs.prompt import custom_template
from ...model.initialize import without_weights
from ...pretrained import Qwen2AudioForConditionalGeneration, stored_scheme
from . import goldens
from .table import Check, NotHere, Row

PART = "checkpoint"
TEXTS = ("What is that sound?", "The cat's 3 kittens\n\n  purr.", "这是什么声音？", "Ça va — naïve café", "🎧 \t x")


@dataclass(frozen=True)
class Files:
    """A checkpoint's folder and its config."""

    name: str
    folder: Path
    config: Qwen2AudioConfig

    @classmethod
    def find(cls, where: str | Path) -> Files:
        """Download it if it is a name on the hub. Raises WeightsError, ConfigError."""
        folder = hub.resolve(where, PATTERNS)
        return cls(str(where), Path(folder), Qwen2AudioConfig.from_pretrained(folder))

    @property
    def label(self) -> str:
        """A short name: the last part of a folder's path, or the name on the hub."""
        return self.folder.name if Path(self.name).is_dir() else self.name

    @property
    def official(self) -> bool:
        """Whether it has the official vocabulary, so that published values hold; nano and tests have their own."""
        text, audio = goldens.TEXT_CONFIG["vocab_size"], goldens.AUDIO_TOKEN_INDEX
        named = self.name.lower().startswith("qwen/qwen2-audio-7b")
        return named or audio == self.config.audio_token_index or text == self.config.text_config.vocab_size


def checkpoint_rows(files: Files) -> Iterator[Row]:
    """The rows of a checkpoint. Published values that are not this checkpoint's are rows that are not here."""
    of_files: dict[str, Callable[[Files], float | tuple[float, str]]] = {
        "config.json: keys that differ from the official": _config,
        "tensors: missing, unexpected, of another shape": _tensors,
        "tensors: other than the official number": _number_of_tensors,
        "tensors: with a value that is no finite number": _not_finite,
        "lm_head: the same as the embedding": _tied,
    }
    for name, measure in of_files.items():
        yield Check(PART, name, 0, "wrong").row(files.label, partial(measure, files))
    try:
        processor = Qwen2AudioProcessor.from_pretrained(files.folder)
    except Exception as error:
        reason: Exception = error  # the name `error` ends with this block

        def fail() -> float:
            raise reason

        yield Check(PART, "tokenizer, front end: read", 0, "wrong").row(files.label, fail)
        return
    for name, of_tokens in {
        "tokenizer: ids of the control tokens": _control_tokens,
        "tokenizer: ids of documented prompts": _prompt_ids,
        "tokenizer: texts that do not come back": _texts,
        "chat template: not the official one": _template,
    }.items():
        yield Check(PART, name, 0, "wrong").row(files.label, partial(of_tokens, files, processor))
    yield from front_end_rows(files, processor)


def _only_official(files: Files) -> None:
    if not files.official:
        raise NotHere("not a checkpoint with the official vocabulary")


def _first(names: list[str]) -> tuple[float, str]:
    """How many there are, and the first three."""
    return float(len(names)), "; ".join(names[:3]) + ("; ..." if len(names) > 3 else "")


def _config(files: Files) -> tuple[float, str]:
    _only_official(files)
    config, wrong = files.config, []
    tables: list[tuple[str, Any, Mapping[str, Any]]] = [
        ("audio_config.", config.audio_config, goldens.AUDIO_CONFIG),
        ("text_config.", config.text_config, goldens.TEXT_CONFIG),
        ("", config, {"audio_token_index": goldens.AUDIO_TOKEN_INDEX}),
    ]
    for prefix, part, expected in tables:
        for key, value in expected.items():
            found = getattr(part, key)
            if found != value:
                wrong.append(f"{prefix}{key} is {found!r}, official {value!r}")
    return _first(wrong)


def _expected(files: Files) -> dict[str, torch.Tensor]:
    """Parameters by name, without storage."""
    with without_weights():
        model = Qwen2AudioForConditionalGeneration(files.config)
    return dict(model.named_parameters(remove_duplicate=False))


def _tensors(files: Files) -> tuple[float, str]:
    if stored_scheme(files.folder, files.config) is not None:
        raise NotHere("quantised: its tensors are those of its scheme, which loading checks")
    stored, expected = Checkpoint.open(files.folder), _expected(files)
    wrong = len(stored.stored.keys() ^ expected.keys())
    wrong += sum(stored.shape(n) != tuple(expected[n].shape) for n in stored.stored.keys() & expected.keys())
    try:
        check_tensors(stored, expected)
    except WeightsError as error:
        return float(max(wrong, 1)), str(error)
    return float(wrong), f"{len(expected)} tensors"


def _number_of_tensors(files: Files) -> tuple[float, str]:
    _only_official(files)
    stored = Checkpoint.open(files.folder)
    numbers = sum(int(np.prod(stored.shape(name))) for name in stored.stored)
    wrong = (len(stored.stored) != goldens.TENSORS) + (numbers != goldens.PARAMETERS)
    return float(
        wrong
    ), f"{len(stored.stored)} tensors of {goldens.TENSORS}, {numbers:,} numbers of {goldens.PARAMETERS:,}"


def _not_finite(files: Files) -> tuple[float, str]:
    stored = Checkpoint.open(files.folder)
    floats = [name for name in stored.stored if stored.dtype(name) is not None]
    return _first([name for name in floats if not bool(stored.read(name).isfinite().all())])


def _tied(files: Files) -> float:
    _only_official(files)
    return float(not separate_head(Checkpoint.open(files.folder)))


def _control_tokens(files: Files, processor: Qwen2AudioProcessor) -> tuple[float, str]:
    tokenizer, wrong, seen = processor.tokenizer, [], set()
    for token, official in goldens.CONTROL_TOKENS.items():
        found = tokenizer.encode(token)
        expected = [official] if files.official else found[:1]
        if len(found) != 1 or found != expected or found[0] in seen:
            wrong.append(f"{token} is {found}, expected {expected if files.official else 'an id of its own'}")
        seen.update(found)
    if tokenizer.encode("<|AUDIO|>") != [files.config.audio_token_index]:
        wrong.append(
            f"<|AUDIO|> is {tokenizer.encode('<|AUDIO|>')}, {CONFIG_FILE} says {files.config.audio_token_index}"
        )
    return _first(wrong)


def _prompt_ids(files: Files, processor: Qwen2AudioProcessor) -> tuple[float, str]:
    _only_official(files)
    wrong, tokenizer = [], processor.tokenizer
    for text, expected in goldens.PROMPTS:
        wrong += _differences(tokenizer.encode(text), expected)
    for text, tokens in goldens.TOKENS:
        wrong += _differences([tokenizer.decode([token]) for token in tokenizer.encode(text)], tokens)
    return _first(wrong)


def _differences(found: list[Any], expected: list[Any]) -> list[str]:
    if len(found) != len(expected):
        return [f"{len(found)} tokens, expected {len(expected)}"]
    pairs = enumerate(zip(found, expected, strict=True))
    return [f"token {i} is {one!r}, expected {other!r}" for i, (one, other) in pairs if one != other]


def _texts(files: Files, processor: Qwen2AudioProcessor) -> tuple[float, str]:
    tokenizer = processor.tokenizer
    back = {text: tokenizer.decode(tokenizer.encode_plain(text)[0]) for text in TEXTS}
    return _first([f"{text!r} came back as {found!r}" for text, found in back.items() if found != text])


def _template(files: Files, processor: Qwen2AudioProcessor) -> tuple[float, str]:
    foreign = custom_template(processor) is not None
    return float(foreign), "its prompts are not those that the official checkpoints were trained on" if foreign else ""


def front_end_rows(files: Files, processor: Qwen2AudioProcessor) -> Iterator[Row]:
    """The log-mel of this machine, with the checkpoint's settings."""

    def row(name: str, bound: float, measure: Any, unit: str = "difference") -> Row:
        def checked() -> Any:
            if processor.feature_extractor.feature_size != 128:
                raise NotHere(f"the checkpoint has {processor.feature_extractor.feature_size} mel bins, the values 128")
            return measure()

        return Check(PART, f"front end: {name}", bound, unit).row(files.label, checked)

    def extract(waveform: np.ndarray) -> tuple[np.ndarray, int]:
        out = processor.feature_extractor.extract([waveform], return_attention_mask=True)
        return out["input_features"][0], int(out["attention_mask"].sum())

    def clip(waveform: np.ndarray, summary: Mapping[str, float], values: Mapping[tuple[int, int], float]) -> float:
        features, frames = extract(waveform)
        computed = {name: float(getattr(features, name)()) for name in summary if name != "frames"}
        distances = [abs(computed[name] - summary[name]) for name in computed]
        distances += [abs(float(features[place]) - value) for place, value in values.items()]
        return max(*distances, float(abs(frames - summary["frames"])))

    def silence() -> float:
        features, frames = extract(np.zeros(16_000, np.float32))
        return max(float(np.abs(features - goldens.SILENCE).max()), float(abs(frames - 100)))

    yield row("mel filters", 1e-7, _filters)
    yield row("silence", 1e-6, silence)
    yield row("a sine of 440 Hz", 1e-5, lambda: clip(goldens.sine(), goldens.SINE, goldens.SINE_VALUES))
    yield row("a ramp", 1e-5, lambda: clip(goldens.ramp(), goldens.RAMP, goldens.RAMP_VALUES))
    yield row("frames and tokens of a clip's length", 0, _lengths, "wrong")


def _filters() -> float:
    filters = mel.mel_filters(128)
    distances = [abs(float(filters[place]) - value) for place, value in goldens.FILTERS.items()]
    distances.append(abs(float(filters.sum(dtype=np.float64)) - goldens.FILTERS_SUM))
    distances.append(abs(float(filters.max()) - goldens.FILTERS_LARGEST))
    return max(*distances, float(abs(np.count_nonzero(filters) - goldens.FILTERS_NONZERO)))


def _lengths() -> tuple[float, str]:
    wrong = []
    for samples, expected in goldens.LENGTHS.items():
        frames = mel.num_frames(samples)
        found = (frames, mel.num_encoder_frames(frames), mel.num_audio_tokens(frames))
        if found != expected:
            wrong.append(f"{samples} samples: {found}, expected {expected}")
    return _first(wrong)
