"""Qwen2AudioProcessor: text and clips to the model's inputs, with one placeholder per audio token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..audio import mel
from ..audio.io import SAMPLE_RATE, load
from ..checkpoint import hub
from ..checkpoint.json_file import read_json
from ..errors import AudioError, ConfigError, PromptError, refuse_unknown
from ..text import chat_template as chat
from ..text.batch_feature import BatchFeature, to_tensors
from ..text.chat_template import AUDIO, AUDIO_BOS, AUDIO_EOS
from ..text.tokenizer import Tokenizer
from ..text.tokenizer_files import CHAT_TEMPLATE_FILE, TOKENIZER_FILES, read_template_file
from ..types import Message
from .feature_extractor import FEATURE_FILES, WhisperFeatureExtractor, clips_in, warn_of_long

TEXT_DEFAULTS: dict[str, Any] = {"padding": False, "truncation": False, "max_length": None, "padding_side": None}
AUDIO_DEFAULTS: dict[str, Any] = {"sampling_rate": None}
CALL_OPTIONS = ("text", "audio", "return_tensors", "wrap_audio", "text_kwargs", "audio_kwargs")
PASSED_ON = (*TEXT_DEFAULTS, *AUDIO_DEFAULTS, "wrap_audio", "text_kwargs", "audio_kwargs")


class Qwen2AudioProcessor:
    """Turns prompts and clips into `input_ids`, masks and features. Its methods have the reference's names.

    Attributes: `feature_extractor`, `tokenizer`, `chat_template` (Jinja source), `audio_token` and its
    `audio_token_id`, `audio_bos_token`, `audio_eos_token`. No call changes them.
    """

    audio_token, audio_bos_token, audio_eos_token = AUDIO, AUDIO_BOS, AUDIO_EOS
    model_input_names = ("input_ids", "attention_mask", "input_features", "feature_attention_mask")

    def __init__(
        self, feature_extractor: WhisperFeatureExtractor, tokenizer: Tokenizer, chat_template: str | None = None
    ):
        """`chat_template` None means the built-in one. Raises ConfigError for a tokenizer without `<|AUDIO|>`."""
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer
        self.chat_template = chat_template or chat.BUILTIN_TEMPLATE
        for token in (AUDIO, AUDIO_BOS, AUDIO_EOS):
            if token not in tokenizer.all_special_tokens:
                raise ConfigError(
                    f"The tokenizer has no control token {token}; expected a Qwen2-Audio tokenizer, whose audio tokens "
                    "are listed in tokenizer_config.json. Put that file beside tokenizer.json."
                )
        self.audio_token_id = int(tokenizer.convert_tokens_to_ids(AUDIO))

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Read a folder or a hub repository.

        `trust_remote_code` is accepted, as the reference's examples pass it, and does nothing: no code is downloaded.
        Raises WeightsError when files are missing or damaged, ConfigError when their settings are not supported.
        """
        files = [*TOKENIZER_FILES, *FEATURE_FILES]
        folder = hub.resolve(name_or_path, files, revision=revision, local_files_only=local_files_only)
        template = read_json(folder / FEATURE_FILES[1]).get("chat_template") or read_template_file(folder)
        return cls(
            WhisperFeatureExtractor.from_pretrained(folder), Tokenizer.from_pretrained(folder), chat_template=template
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer's files, preprocessor_config.json and chat_template.jinja, as transformers reads them."""
        self.tokenizer.save_pretrained(folder)
        self.feature_extractor.save_pretrained(folder)
        (Path(folder) / CHAT_TEMPLATE_FILE).write_text(self.chat_template, encoding="utf-8")

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        audio: Any = None,
        audios: Any = None,
        *,
        return_tensors: str | None = None,
        wrap_audio: bool = True,
        text_kwargs: dict[str, Any] | None = None,
        audio_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> BatchFeature:
        """The model's inputs for one prompt or a list of B prompts, which have A clips together.

        Args:
            text: prompt or prompts, with one `<|AUDIO|>` per clip.
            audio: clip or clips, in the order of their placeholders: float samples at 16 kHz (array or tensor),
                `(samples, rate)`, path, URL, bytes, ... The samples after 30 s of a clip are dropped, with a warning.
            audios: the older name of `audio`.
            return_tensors: "pt", "np", or None for lists of ids and numpy features.
            wrap_audio: put `<|audio_bos|>` and `<|audio_eos|>` around an `<|AUDIO|>` that has neither.
            text_kwargs, audio_kwargs: the options below by group.
            options: for the text `padding` (True, "longest", "max_length", False), `truncation`, `max_length`,
                `padding_side`; for the clips `sampling_rate`, which must be 16000.

        Returns:
            `input_ids`, `attention_mask` int64 [B, T]; with clips also `input_features` float32 [A, mel bins, 3000] and
            `feature_attention_mask` int32 [A, 3000] (1: valid frame; a frame is 10 ms).

        Raises:
            PromptError: clips and placeholders that do not match, rows of unequal length, an unknown option.
            AudioError: a clip that cannot be read, a clip under 21 ms, or another `sampling_rate`.
        """
        text_options, audio_options = _split_options(options, text_kwargs, audio_kwargs)
        self.feature_extractor.check_rate(audio_options["sampling_rate"])
        if audio is not None and audios is not None:
            raise PromptError("Both audio= and audios= were given; they are one option, pass audio= only.")
        audio = audio if audio is not None else audios
        texts = _text_rows(text, audio is not None)
        sources = [] if audio is None else clips_in(audio)
        self._check_counts(texts, len(sources))
        clips = [load(source) for source in sources]
        counts = [_audio_tokens_of(clip, number) for number, clip in enumerate(clips, 1)]
        batch = self._tokenize(self._expand(texts, counts, wrap_audio), return_tensors, text_options)
        if clips:
            warn_of_long(clips, sources)
            features = self.feature_extractor.extract(clips, True, return_tensors)
            batch["input_features"] = features["input_features"]
            batch["feature_attention_mask"] = features["attention_mask"]
        return batch

    def _check_counts(self, texts: Sequence[str], clips: int) -> None:
        placeholders = sum(text.count(AUDIO) for text in texts)
        if placeholders != clips:
            raise PromptError(
                f"The text has {placeholders} {AUDIO} placeholder(s) and {clips} clip(s) were given; expected one clip "
                "for each. Pass the clips as audio=[...] in the order of their placeholders."
            )

    def _expand(self, texts: Sequence[str], counts: Sequence[int], wrap: bool) -> list[str]:
        """Repeat each placeholder once per audio token of its clip (25 per second)."""
        remaining = iter(counts)
        return [_expand_one(text, remaining, wrap) for text in texts]

    def _tokenize(self, texts: list[str], return_tensors: str | None, options: dict[str, Any]) -> BatchFeature:
        rows = self.tokenizer(texts)["input_ids"]
        if options.pop("truncation"):
            limit = options["max_length"] or self.tokenizer.model_max_length
            for row in rows:
                if self.audio_token_id in row[limit:]:
                    raise PromptError(
                        f"Cutting the prompt from {len(row)} to {limit} tokens would cut into the sound; "
                        "allow a greater max_length, or give shorter clips."
                    )
            rows = [row[:limit] for row in rows]
        ids, mask = self.tokenizer.pad(rows, **options)
        return BatchFeature(input_ids=to_tensors(ids, return_tensors), attention_mask=to_tensors(mask, return_tensors))

    def apply_chat_template(
        self,
        conversation: Sequence[Message] | Sequence[Sequence[Message]],
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """A conversation, or a list of conversations, in the chat template.

        With tokenize=True, every clip is loaded from its `audio`, `audio_url`, `url` or `path` (the reference does not
        load `audio_url`), and the processor is called with `options` (or processor_kwargs).

        Returns:
            tokenize=False: the prompt, str; a list of them for a list of conversations. tokenize=True: all inputs with
            return_dict=True, otherwise `input_ids`.

        Raises:
            PromptError: malformed messages, or an option that is unknown or has no effect.
            AudioError: a clip that cannot be read.
        """
        options = _merged("processor_kwargs", processor_kwargs, options)
        refuse_unknown(options, PASSED_ON, PromptError, "apply_chat_template has no option")
        ignored = [*options, *(["return_tensors"] if return_tensors else []), *(["return_dict"] if return_dict else [])]
        if ignored and not tokenize:
            raise PromptError(f"{ignored[0]} has no effect on a text; pass tokenize=True as well, or leave it out.")
        texts, batched = chat.render_all(
            conversation,
            template=chat_template or self.chat_template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )
        if not tokenize:
            return texts if batched else texts[0]
        conversations, _ = chat.conversations(conversation)
        clips = [source for messages in conversations for source in chat.audio_sources(messages)]
        batch = self(text=texts, audio=clips or None, return_tensors=return_tensors, **options)
        return batch if return_dict else batch["input_ids"]

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """`tokenizer.decode`."""
        return self.tokenizer.decode(*args, **kwargs)

    def batch_decode(self, *args: Any, **kwargs: Any) -> list[str]:
        """`tokenizer.batch_decode`."""
        return self.tokenizer.batch_decode(*args, **kwargs)


class AutoProcessor:
    """The name that the reference's examples import; `from_pretrained` returns a Qwen2AudioProcessor."""

    from_pretrained: Callable[..., Qwen2AudioProcessor] = staticmethod(Qwen2AudioProcessor.from_pretrained)


def _expand_one(text: str, counts: Iterator[int], wrap: bool) -> str:
    """Expand the placeholders of one text, so that both spellings of the documented prompt give the same result.

    With `wrap`, a placeholder without bos and eos gets both; a placeholder with one of them stays as it is.
    """
    parts = text.split(AUDIO)
    out = [parts[0]]
    for before, after in pairwise(parts):
        # Between two adjacent placeholders the text is empty: both are bare.
        bare = not (before.endswith(AUDIO_BOS) or after.startswith(AUDIO_EOS))
        placeholders = AUDIO * next(counts)
        out += [AUDIO_BOS + placeholders + AUDIO_EOS if wrap and bare else placeholders, after]
    return "".join(out)


def _text_rows(text: Any, has_audio: bool) -> list[str]:
    if text is None:
        raise PromptError(
            f"Clips were given without text; pass text= with one {AUDIO} for each clip."
            if has_audio
            else "Neither text nor clips were given; pass text=, and audio= for its clips."
        )
    rows = [text] if isinstance(text, str) else text
    if not isinstance(rows, (list, tuple)) or not rows or not all(isinstance(row, str) for row in rows):
        value = "an empty list" if isinstance(rows, (list, tuple)) and not rows else f"a {type(text).__name__}"
        raise PromptError(f"text is {value}; expected a string or a list of strings.")
    return list(rows)


def _audio_tokens_of(clip: np.ndarray, number: int) -> int:
    tokens = mel.num_audio_tokens(mel.num_frames(len(clip)))
    if tokens < 1:
        raise AudioError(
            f"Clip {number} has {len(clip)} samples ({len(clip) / SAMPLE_RATE * 1000:.0f} ms): too short, it makes 0 "
            f"audio tokens and would not be heard. Expected at least {2 * mel.MEL_HOP + 1} samples at {SAMPLE_RATE} Hz."
        )
    return tokens


def _split_options(
    options: dict[str, Any], text_kwargs: dict[str, Any] | None, audio_kwargs: dict[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the text and of the clips, with defaults. Raises PromptError for unknown or repeated ones."""
    names = [*TEXT_DEFAULTS, *AUDIO_DEFAULTS, *CALL_OPTIONS]
    refuse_unknown(options, names, PromptError, "The processor has no option")
    refuse_unknown(text_kwargs or {}, TEXT_DEFAULTS, PromptError, "text_kwargs has no option")
    refuse_unknown(audio_kwargs or {}, AUDIO_DEFAULTS, PromptError, "audio_kwargs has no option")
    text = {key: value for key, value in options.items() if key in TEXT_DEFAULTS}
    audio = {key: value for key, value in options.items() if key in AUDIO_DEFAULTS}
    return (
        {**TEXT_DEFAULTS, **_merged("text_kwargs", text_kwargs, text)},
        {**AUDIO_DEFAULTS, **_merged("audio_kwargs", audio_kwargs, audio)},
    )


def _merged(group: str, nested: dict[str, Any] | None, flat: dict[str, Any]) -> dict[str, Any]:
    twice = sorted(set(nested or {}) & set(flat))
    if twice:
        raise PromptError(f"{twice[0]} was given twice, directly and in {group}; give it once.")
    return {**flat, **(nested or {})}
