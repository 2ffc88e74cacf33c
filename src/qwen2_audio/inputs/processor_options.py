"""The options of a processor's call, sorted by the part they belong to: the text or the clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from ..errors import PromptError, refuse_unknown
from ..text.padding import NEUTRAL, without_neutral

TEXT_DEFAULTS: dict[str, Any] = {
    "padding": False, "truncation": False, "max_length": None, "padding_side": None, "pad_to_multiple_of": None,
    "add_special_tokens": True, "return_attention_mask": None,
}  # fmt: skip
AUDIO_DEFAULTS: dict[str, Any] = {"sampling_rate": None, "max_length": None, "do_normalize": None}
# Options of a clip that have one value here, because the prompt has a placeholder for each token of the whole window.
AUDIO_FIXED: dict[str, tuple[Any, ...]] = {
    "padding": ("max_length",), "truncation": (True,), "return_attention_mask": (True, None),
    "pad_to_multiple_of": (None,),
}  # fmt: skip
# Programs for several kinds of input pass these; no pictures and films come here, so that they have nothing to change.
OF_PICTURES = ("images_kwargs", "videos_kwargs", "num_frames", "fps", "do_sample_frames", "load_audio_from_video")
GROUPS = ("text_kwargs", "audio_kwargs", "common_kwargs")
FLAT = (*TEXT_DEFAULTS, "sampling_rate")
PASSED_ON = (*FLAT, *GROUPS, *NEUTRAL, "wrap_audio")


class CallOptions(TypedDict, total=False):
    """Keywords of a processor's call beside text and clips."""

    padding: bool | str
    truncation: bool | str | None
    max_length: int | None
    padding_side: str | None
    pad_to_multiple_of: int | None
    add_special_tokens: bool
    return_attention_mask: bool | None
    return_token_type_ids: bool | None
    sampling_rate: int | None
    text_kwargs: dict[str, Any] | None
    audio_kwargs: dict[str, Any] | None
    common_kwargs: dict[str, Any] | None
    images_kwargs: dict[str, Any] | None
    videos_kwargs: dict[str, Any] | None
    images: None
    videos: None


def split_options(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the text and of the clips. `defaults` for the text come before TEXT_DEFAULTS.

    In a group (`text_kwargs`, `audio_kwargs`) an option belongs to that part; outside, `max_length` and its kin belong
    to the text. `common_kwargs` are overruled by both. Raises PromptError for unknown, repeated or impossible ones.
    """
    given = {name: value for name, value in without_neutral(options).items() if name not in OF_PICTURES}
    given = {name: value for name, value in given.items() if name not in ("images", "videos") or value is not None}
    groups = {group: without_neutral(given.pop(group, None) or {}) for group in GROUPS}
    names = [*PASSED_ON, "text", "audio", "return_tensors"]
    refuse_unknown(given, names, PromptError, "The processor has no option")
    refuse_unknown(groups["text_kwargs"], TEXT_DEFAULTS, PromptError, "text_kwargs has no option")
    audio_names = (*AUDIO_DEFAULTS, *AUDIO_FIXED, "device")
    refuse_unknown(groups["audio_kwargs"], audio_names, PromptError, "audio_kwargs has no option")
    refuse_unknown(groups["common_kwargs"], (*FLAT, "return_tensors"), PromptError, "common_kwargs has no option")
    flat_text = {name: value for name, value in given.items() if name in TEXT_DEFAULTS}
    flat_audio = {name: value for name, value in given.items() if name == "sampling_rate"}
    common = groups["common_kwargs"]
    text = {
        **TEXT_DEFAULTS,
        **{name: value for name, value in defaults.items() if name in TEXT_DEFAULTS},
        **{name: value for name, value in common.items() if name in TEXT_DEFAULTS},
        **merged("text_kwargs", groups["text_kwargs"], flat_text),
    }
    rate = {name: value for name, value in common.items() if name == "sampling_rate"}
    audio = {**AUDIO_DEFAULTS, **rate, **merged("audio_kwargs", groups["audio_kwargs"], flat_audio)}
    for name, values in AUDIO_FIXED.items():
        if audio.pop(name, values[0]) not in values:
            raise PromptError(
                f"audio_kwargs sets {name} to {groups['audio_kwargs'][name]!r}; expected {values[0]!r}: a clip fills "
                "the model's window. Leave it out, or call processor.feature_extractor."
            )
    audio.pop("device", None)  # log-mels are computed on the CPU
    return text, audio


def merged(group: str, nested: Mapping[str, Any] | None, flat: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a group, and those given directly. Raises PromptError for one that is in both."""
    twice = sorted(set(nested or {}) & set(flat))
    if twice:
        raise PromptError(f"{twice[0]} was given twice, directly and in {group}; give it once.")
    return {**flat, **(nested or {})}
