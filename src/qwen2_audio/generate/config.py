"""GenerationConfig: the options of generation, from `generation_config.json` or the caller.

None means "not set": the value then comes from the next source in the order of `options.resolve`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from ..checkpoint import hub
from ..checkpoint.json_file import read_json, write_json
from ..errors import ConfigError

GENERATION_CONFIG_FILE = "generation_config.json"


@dataclass
class GenerationConfig:
    """The options of generation. Unknown keys become attributes and are written back."""

    # Length, in tokens. max_length and min_length count the prompt too, and each clip in it as ONE position.
    max_length: int | None = None
    max_new_tokens: int | None = None
    min_length: int | None = None
    min_new_tokens: int | None = None
    max_time: float | None = None  # seconds
    stop_strings: str | list[str] | None = None

    # Search
    do_sample: bool | None = None
    num_beams: int | None = None
    num_return_sequences: int | None = None
    early_stopping: bool | str | None = None  # beams: True, False or "never"
    length_penalty: float | None = None  # beams: an answer's score is divided by its length to this power
    use_cache: bool | None = None
    prompt_lookup_num_tokens: int | None = None  # tokens that prompt lookup proposes per step
    max_matching_ngram_size: int | None = None  # tokens that prompt lookup matches, at most

    # Sampling
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    top_h: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None

    # Changes of the scores, sampled or not
    repetition_penalty: float | None = None
    encoder_repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    encoder_no_repeat_ngram_size: int | None = None
    bad_words_ids: list[list[int]] | None = None
    sequence_bias: Any = None  # {(ids): bias} or [[ids, bias], ...]
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | list[int] | None = None
    remove_invalid_values: bool | None = None
    exponential_decay_length_penalty: tuple[int, float] | None = None  # (first new token, factor)
    suppress_tokens: list[int] | None = None
    begin_suppress_tokens: list[int] | None = None
    renormalize_logits: bool | None = None

    # Tokens
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    # What comes back
    return_dict_in_generate: bool | None = None
    output_scores: bool | None = None
    output_logits: bool | None = None
    output_attentions: bool | None = None
    output_hidden_states: bool | None = None

    @property
    def eos_ids(self) -> list[int]:
        """All ids that end an answer. An id below 0, by which people say that nothing does, is not among them."""
        return [token for token in as_list(self.eos_token_id) if token >= 0]

    @property
    def pad_id(self) -> int | None:
        """The id that pads finished rows: pad_token_id, else the first id that ends an answer, else None."""
        if self.pad_token_id is not None and self.pad_token_id >= 0:
            return self.pad_token_id
        return self.eos_ids[0] if self.eos_ids else None

    @classmethod
    def names(cls) -> list[str]:
        """The options offered."""
        return [field.name for field in fields(cls)]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build from the JSON object `data`. Unknown keys become attributes, so that saving keeps them."""
        config = cls()
        for key, value in data.items():
            setattr(config, key, value)
        return config

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, revision: str | None = None, local_files_only: bool = False
    ) -> Self:
        """Read `generation_config.json` of a folder or of a repository on the hub. Raises ConfigError without one."""
        patterns = [GENERATION_CONFIG_FILE]
        folder = hub.resolve(name_or_path, patterns, revision=revision, local_files_only=local_files_only)
        path = folder / GENERATION_CONFIG_FILE
        if not path.is_file():
            raise ConfigError(
                f"{folder} has no {GENERATION_CONFIG_FILE}; leave it to the defaults with GenerationConfig(), "
                "or check the path."
            )
        return cls.from_dict(read_json(path, ConfigError))

    def to_dict(self) -> dict[str, Any]:
        """The JSON object: everything that is set, unknown keys included."""
        out = {key: value for key, value in vars(self).items() if value is not None}
        if isinstance(self.sequence_bias, dict):  # JSON has no tuples as keys
            out["sequence_bias"] = [[list(ids), bias] for ids, bias in self.sequence_bias.items()]
        return out

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `generation_config.json` into `folder`, creating it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / GENERATION_CONFIG_FILE, self.to_dict(), sort_keys=True)

    def update(self, **values: Any) -> dict[str, Any]:
        """Set the options named in `values`; returns the entries that are not options."""
        names = set(self.names())
        for key in names & set(values):
            setattr(self, key, values[key])
        return {key: value for key, value in values.items() if key not in names}

    def check_values(self) -> None:
        """Raises ConfigError for the first option with an invalid value."""
        for name, (allowed, expected) in _EXPECTED.items():
            value = getattr(self, name)
            if value is not None and not _is_allowed(allowed, value):
                raise ConfigError(f"{name} is {value!r}; expected {expected}.{_advice(name, value)}")


def as_list(ids: int | list[int] | tuple[int, ...] | None) -> list[int]:
    """The ids of an option that holds an id, a list of ids, or None."""
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)


def _is_allowed(allowed: Callable[[Any], bool], value: Any) -> bool:
    try:
        return allowed(value)
    except (TypeError, ValueError, IndexError):
        return False


def _advice(name: str, value: Any) -> str:
    return " For greedy decoding leave it out and set do_sample=False." if name == "temperature" and value == 0 else ""


def _whole(low: int) -> tuple[Callable[[Any], bool], str]:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= low, f"a whole number of at least {low}"


def _number(low: float, high: float = float("inf"), *, open_low: bool = False) -> tuple[Callable[[Any], bool], str]:
    text = f"a number above {low:g}" if open_low else f"a number of at least {low:g}"
    if high != float("inf"):
        text += f" and at most {high:g}"
    return lambda v: isinstance(v, (int, float)) and (low < v if open_low else low <= v) and v <= high, text


def _ids(ids: Any) -> bool:
    return all(isinstance(i, int) and i >= 0 for i in ids)


_TOKEN_IDS = (lambda v: _ids(as_list(v)) and v != [], "a token id or a list of them")
_END_IDS = (lambda v: v == -1 or _TOKEN_IDS[0](v), "a token id, a list of them, or -1 for none")
_BEAM_RULES = (True, False, "never")

_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_length": _whole(1),
    "max_new_tokens": _whole(1),
    "min_length": _whole(0),
    "min_new_tokens": _whole(0),
    "max_time": _number(0, open_low=True),
    "stop_strings": (
        lambda v: v != [] and all(isinstance(s, str) and s for s in ([v] if isinstance(v, str) else v)),
        "a string of at least one character, or a list of them",
    ),
    "num_beams": _whole(1),
    "num_return_sequences": _whole(1),
    "early_stopping": (lambda v: any(v is rule for rule in _BEAM_RULES) or v == "never", "True, False or 'never'"),
    "length_penalty": _number(float("-inf")),
    "prompt_lookup_num_tokens": _whole(1),
    "max_matching_ngram_size": _whole(1),
    "temperature": _number(0),  # `options` refuses 0 with do_sample
    "top_k": _whole(0),
    "top_p": _number(0, 1),
    "min_p": _number(0, 1),
    "top_h": _number(0, 1, open_low=True),
    "typical_p": _number(0, 1, open_low=True),
    "epsilon_cutoff": _number(0, 1),
    "eta_cutoff": _number(0, 1),
    "repetition_penalty": _number(0, open_low=True),
    "encoder_repetition_penalty": _number(0, open_low=True),
    "no_repeat_ngram_size": _whole(0),
    "encoder_no_repeat_ngram_size": _whole(0),
    "bad_words_ids": (lambda v: len(v) > 0 and all(len(w) > 0 and _ids(w) for w in v), "a list of lists of token ids"),
    "sequence_bias": (
        lambda v: (
            len(v) > 0
            and all(
                len(s) > 0 and _ids(s) and float(b) is not None for s, b in (v.items() if isinstance(v, dict) else v)
            )
        ),
        "{(token ids): bias} or [[token ids], bias] pairs",
    ),
    "forced_bos_token_id": _whole(0),
    "forced_eos_token_id": _TOKEN_IDS,
    "exponential_decay_length_penalty": (lambda v: len(v) == 2 and v[0] >= 0, "(first new token, factor)"),
    "suppress_tokens": (_ids, "a list of token ids"),
    "begin_suppress_tokens": (_ids, "a list of token ids"),
    "eos_token_id": _END_IDS,
    "pad_token_id": (_whole(-1)[0], "a token id, or -1 for none"),
}
