"""Qwen2AudioProcessor: text and clips to the model's inputs, with one placeholder per audio token."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np

from ..audio import mel
from ..audio.io import SAMPLE_RATE, load
from ..checkpoint import hub
from ..checkpoint.json_file import read_json
from ..errors import AudioError, ConfigError, PromptError, refuse_unknown
from ..text import chat_template as chat
from ..text import tokenizer as tokenizers
from ..text.batch_feature import BatchFeature, to_tensors
from ..text.chat_template import AUDIO, AUDIO_BOS, AUDIO_EOS
from ..text.padding import cut, truncates
from ..text.rendering import Span, builtin_view, conversations, render_all, variables_read
from ..text.template_files import Templates, choose_template, read_templates, templates_in, write_templates
from ..text.tokenizer import Tokenizer
from ..text.tokenizer_files import TOKENIZER_FILES
from ..types import Message
from .feature_extractor import FEATURE_FILES, FIXED, WhisperFeatureExtractor, clips_in, warn_of_long
from .feature_padding import normalized
from .placeholders import check_counts, expand
from .processor_options import OF_PICTURES, PASSED_ON, CallOptions, merged, split_options

EXTRACTOR_OPTIONS = ("feature_size", "return_attention_mask", *(name for name in FIXED if name != "padding_side"))
PARTS = ("feature_extractor", "tokenizer")


class Qwen2AudioProcessor:
    """Turns prompts and clips into `input_ids`, masks and features. Its methods have the reference's names.

    Attributes: `feature_extractor`, `tokenizer`, `chat_template` (Jinja source, or a dict of named ones), `audio_token`
    and its `audio_token_id`, `audio_bos_token`, `audio_eos_token`. No call changes them.
    """

    audio_token, audio_bos_token, audio_eos_token = AUDIO, AUDIO_BOS, AUDIO_EOS
    model_input_names = ("input_ids", "attention_mask", "input_features", "feature_attention_mask")

    def __init__(
        self, feature_extractor: WhisperFeatureExtractor, tokenizer: Tokenizer, chat_template: Templates | None = None
    ):
        """`chat_template` None means the built-in one.

        Raises ConfigError for a tokenizer without `<|AUDIO|>` and for an extractor whose settings the model is not
        given clips with.
        """
        feature_extractor.check_front_end()
        self.feature_extractor = feature_extractor
        self.tokenizer = tokenizer
        self.chat_template: Templates = chat_template or chat.BUILTIN_TEMPLATE
        for token in (AUDIO, AUDIO_BOS, AUDIO_EOS):
            if token not in tokenizer.all_special_tokens:
                raise ConfigError(
                    f"The tokenizer has no control token {token}; expected a Qwen2-Audio tokenizer, whose audio tokens "
                    "are listed in tokenizer_config.json. Put that file beside tokenizer.json."
                )
        self.audio_token_id = int(tokenizer.convert_tokens_to_ids(AUDIO))

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The names of its parts."""
        return [name for name in inspect.signature(cls).parameters if name in PARTS]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Read a folder or a hub repository.

        Args:
            options: `hub.OPTIONS` (`revision`, `token`, `cache_dir` ...); options of `Tokenizer.from_pretrained`
                (`padding_side`, `pad_token` ...) and settings of the feature extractor, which take the place of what
                the files say; or whole parts, `tokenizer=` and `feature_extractor=`. `hub.WITHOUT_EFFECT`
                (`trust_remote_code`, `use_fast` ...) do nothing: no code is downloaded.

        Raises:
            WeightsError: files are missing or damaged.
            ConfigError: settings that are not supported, or an unknown option.
        """
        where, options = hub.split_options(options)
        known = (*PARTS, *tokenizers.OPTIONS, *EXTRACTOR_OPTIONS)
        refuse_unknown(options, known, ConfigError, "A processor has no option")
        files = [*TOKENIZER_FILES, *FEATURE_FILES]
        folder = hub.resolve(pretrained_model_name_or_path, files, **where)
        of_text = {name: value for name, value in options.items() if name in tokenizers.OPTIONS}
        of_sound = {name: value for name, value in options.items() if name in EXTRACTOR_OPTIONS}
        template = of_text.pop("chat_template", None) or templates_in(
            read_json(folder / FEATURE_FILES[1]).get("chat_template")
        )
        return cls(
            options.get("feature_extractor") or WhisperFeatureExtractor.from_pretrained(folder, **of_sound),
            options.get("tokenizer") or Tokenizer.from_pretrained(folder, **of_text),
            chat_template=template or read_templates(folder),
        )

    def save_pretrained(self, folder: str | Path) -> list[str]:
        """Write the tokenizer's files, preprocessor_config.json and the chat templates, as transformers reads them.

        Returns the paths of what it wrote, preprocessor_config.json first.
        """
        tokenizer_files = self.tokenizer.save_pretrained(folder)
        written = [*self.feature_extractor.save_pretrained(folder), *tokenizer_files]
        written += map(str, write_templates(Path(folder), self.chat_template))
        return list(dict.fromkeys(written))

    def to_dict(self) -> dict[str, Any]:
        """Its settings and the feature extractor's, as the reference's processor_config.json; not the tokenizer."""
        names = ("audio_token", "audio_bos_token", "audio_eos_token")
        return {
            **{name: getattr(self, name) for name in names},
            "feature_extractor": self.feature_extractor.to_dict(),
            "processor_class": type(self).__name__,
        }

    def to_json_string(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, path: str | Path) -> None:
        """Write `to_json_string` to a file."""
        Path(path).write_text(self.to_json_string(), encoding="utf-8")

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        audio: Any = None,
        audios: Any = None,
        *,
        return_tensors: str | None = None,
        wrap_audio: bool = True,
        **options: Unpack[CallOptions],
    ) -> BatchFeature:
        """The model's inputs for one prompt or a list of B prompts, which have A clips together.

        Args:
            text: prompt or prompts, with one `<|AUDIO|>` per clip.
            audio: clip or clips, in the order of their placeholders: float samples at 16 kHz (array or tensor),
                `(samples, rate)`, path, URL, bytes, ... The samples after 30 s of a clip are dropped, with a warning.
            audios: the older name of `audio`.
            return_tensors: "pt", "np", or None for lists of ids and numpy features.
            wrap_audio: put `<|audio_bos|>` and `<|audio_eos|>` around an `<|AUDIO|>` that has neither.
            options: for the text `padding`, `truncation`, `max_length`, `padding_side`, `pad_to_multiple_of`,
                `add_special_tokens`, `return_attention_mask`, as the tokenizer's call takes them; for the clips
                `sampling_rate`, which must be 16000. Or by part: `text_kwargs`; `audio_kwargs`, where `max_length`
                (samples) and `do_normalize` are the clips'; `common_kwargs`.

        Returns:
            `input_ids`, `attention_mask` int64 [B, T]; with clips also `input_features` float32 [A, mel bins, 3000] and
            `feature_attention_mask` int32 [A, 3000] (1: valid frame; a frame is 10 ms).

        Raises:
            PromptError: clips and placeholders that do not match, rows of unequal length, an unknown option.
            AudioError: a clip that cannot be read, a clip under 21 ms, or another `sampling_rate`.
        """
        if audio is not None and audios is not None:
            raise PromptError("Both audio= and audios= were given; they are one option, pass audio= only.")
        audio = audio if audio is not None else audios
        common = options.get("common_kwargs") or {}
        parts = split_options(options, self.tokenizer.init_kwargs)
        return self._inputs(
            _text_rows(text, audio is not None),
            [] if audio is None else clips_in(audio),
            common.get("return_tensors") if return_tensors is None else return_tensors,
            parts,
            wrap=wrap_audio,
        )

    def _inputs(
        self,
        texts: Sequence[str],
        sources: Sequence[Any],
        return_tensors: str | None,
        options: tuple[dict[str, Any], dict[str, Any]],
        *,
        wrap: bool,
        answers: Sequence[Sequence[Span]] | None = None,
    ) -> BatchFeature:
        """`options`: of the text and of the clips; `answers`: the characters of each text that the assistant says."""
        text_options, audio_options = options
        self.feature_extractor.check_rate(audio_options["sampling_rate"])
        check_counts(texts, len(sources))
        clips = [load(source) for source in sources]
        limit = audio_options["max_length"] or mel.WINDOW_SAMPLES
        warn_of_long(clips, sources, limit, stacklevel=4)
        clips = [clip[:limit] for clip in clips] if limit < mel.WINDOW_SAMPLES else clips
        counts = [_audio_tokens_of(clip, number) for number, clip in enumerate(clips, 1)]
        expanded = expand(texts, counts, wrap=wrap)
        columns = self.tokenizer.columns(
            [item.text for item in expanded],
            answers and [item.moved(spans) for item, spans in zip(expanded, answers, strict=True)],
            add_special_tokens=text_options.pop("add_special_tokens"),
        )
        if truncates(text_options.pop("truncation")):
            columns = self._cut(columns, text_options["max_length"] or self.tokenizer.model_max_length)
        with_mask = text_options.pop("return_attention_mask") is not False
        filled = self.tokenizer.fill(columns, **text_options)
        if not with_mask:
            del filled["attention_mask"]
        batch = BatchFeature({name: to_tensors(rows, return_tensors) for name, rows in filled.items()})
        if clips:
            if audio_options["do_normalize"]:
                clips = normalized(clips, [len(clip) for clip in clips])
            features = self.feature_extractor.extract(clips, True, return_tensors)
            batch["input_features"] = features["input_features"]
            batch["feature_attention_mask"] = features["attention_mask"]
        return batch

    def _cut(self, columns: Mapping[str, list[list[int]]], limit: int) -> dict[str, list[list[int]]]:
        for row in columns["input_ids"]:
            if self.audio_token_id in row[limit:]:
                raise PromptError(
                    f"Cutting the prompt from {len(row)} to {limit} tokens would cut into the sound; "
                    "allow a greater max_length, or give shorter clips."
                )
        return cut(columns, limit)

    def apply_chat_template(
        self,
        conversation: Sequence[Message] | Sequence[Sequence[Message]],
        chat_template: str | None = None,
        tools: Sequence[Any] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        return_assistant_tokens_mask: bool = False,
        tokenize: bool = False,
        return_tensors: str | None = None,
        return_dict: bool = False,
        processor_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """A conversation, or a list of conversations, in the chat template.

        With tokenize=True, every clip is loaded from its `audio`, `audio_url`, `url` or `path` (the reference does not
        load `audio_url`), and the processor is called with `options` (or processor_kwargs).

        Args:
            chat_template: Jinja source, or the name of one of several; None: the default one.
            tools: JSON schemas, or functions with type hints and docstrings; `documents`: dicts. The template reads
                them.
            return_assistant_tokens_mask: with return_dict=True, also `assistant_masks` [B, T]: 1 for a token that the
                assistant says, between `{% generation %}` and `{% endgeneration %}` in a template of its own.
            options: of the processor's call, and variables that the template reads.

        Returns:
            tokenize=False: the prompt, str; a list of them for a list of conversations. tokenize=True: all inputs with
            return_dict=True, otherwise `input_ids`.

        Raises:
            PromptError: malformed messages, or an option that is unknown or has no effect.
            AudioError: a clip that cannot be read.
        """
        template = choose_template(self.chat_template, chat_template)
        read = variables_read(template)
        variables = {name: options.pop(name) for name in list(options) if name in read}
        options = {name: value for name, value in options.items() if name not in OF_PICTURES}
        options = merged("processor_kwargs", processor_kwargs, options)
        refuse_unknown(options, PASSED_ON, PromptError, "apply_chat_template has no option")
        ignored = [*options, *(["return_tensors"] if return_tensors else []), *(["return_dict"] if return_dict else [])]
        if ignored and not tokenize:
            raise PromptError(f"{ignored[0]} has no effect on a text; pass tokenize=True as well, or leave it out.")
        if return_assistant_tokens_mask and not return_dict:
            raise PromptError("return_assistant_tokens_mask needs tokenize=True and return_dict=True.")
        rendered, batched = render_all(
            conversation,
            answers=return_assistant_tokens_mask,
            template=template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            inputs=self.tokenizer.template_inputs(template, tools, documents, variables),
        )
        texts = [item.text for item in rendered]
        if not tokenize:
            return texts if batched else texts[0]
        batch = self._inputs(
            texts,
            [
                source
                for messages in conversations(conversation)[0]
                for source in chat.audio_sources(builtin_view(messages, template))
            ],
            return_tensors,
            split_options(options, self.tokenizer.init_kwargs),
            wrap=options.pop("wrap_audio", True),
            answers=[item.answers for item in rendered] if return_assistant_tokens_mask else None,
        )
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
