"""Qwen2's tokenizer: its files, batches of texts as rows of ids, and conversations in a chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tokenizers import Tokenizer as Backend

from ..checkpoint import hub
from ..checkpoint.json_file import read_json
from ..errors import ConfigError, PromptError, refuse_unknown
from ..types import Message
from .batch_feature import BatchFeature
from .padding import UNLIMITED, Rows, as_batch, columns_of, cut, pad_columns, padded_length, truncates, without_neutral
from .rendering import Span, TemplateInputs, render_all, variables_read
from .template_files import Templates, choose_template, read_templates, templates_in, write_templates
from .tokenizer_files import TOKENIZER_FILES, read_backend, write_tokenizer
from .vocabulary import EXTRA, PARTS, Vocabulary, check_text

# Options of `from_pretrained` beside the tokens: what a call does by default, for which only the processor asks, and
# what tokenizer_config.json sets.
CALL_DEFAULTS = ("padding", "truncation", "max_length")
SETTINGS = ("padding_side", "model_max_length", "chat_template")
OPTIONS = (*SETTINGS, *CALL_DEFAULTS, *PARTS, *EXTRA)


class Tokenizer(Vocabulary):
    """A byte-level BPE over strings, with control tokens such as `<|im_end|>` and `<|AUDIO|>`.

    Attributes: `eos_token`, `pad_token`, `unk_token`, `bos_token` and others (str or None, each with its `_id`),
    `padding_side` ("left" unless the file says otherwise, because generation continues at the right end),
    `model_max_length` (tokens), `chat_template` (Jinja source, a dict of named ones, or None for the built-in one),
    `init_kwargs` (the options of `from_pretrained`). A call never changes the result of a later call.
    """

    model_input_names = ("input_ids", "attention_mask")
    is_fast = True  # the reference's word for "made of the tokenizers library"

    def __init__(
        self, backend: Backend, config: dict[str, Any] | None = None, chat_template: Templates | None = None
    ) -> None:
        """Wrap a `tokenizers.Tokenizer`; `config` has the keys of tokenizer_config.json."""
        self._config = dict(config or {})
        super().__init__(backend, self._config)
        self.chat_template = chat_template
        self.padding_side = self._config.get("padding_side") or "left"
        self.model_max_length = int(self._config.get("model_max_length") or UNLIMITED)
        self.init_kwargs: dict[str, Any] = {}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Read a folder or a hub repository.

        Args:
            options: `hub.OPTIONS` (`revision`, `token`, `cache_dir` ...), and OPTIONS, which take the place of what
                the files say: `padding_side`, `model_max_length`, `chat_template`, tokens such as `pad_token` (added
                to the vocabulary if they are new), and `padding`, `truncation`, `max_length`, the defaults of a
                processor's calls. `hub.WITHOUT_EFFECT` (`trust_remote_code`, `use_fast` ...) do nothing.

        Raises:
            WeightsError: files are missing, damaged or disagree.
            ConfigError: an unknown option.
        """
        where, options = hub.split_options(options)
        refuse_unknown(options, OPTIONS, ConfigError, "A tokenizer has no option")
        folder = hub.resolve(pretrained_model_name_or_path, TOKENIZER_FILES, **where)
        config = read_json(folder / "tokenizer_config.json")
        tokenizer = cls(
            read_backend(folder, config), config, templates_in(config.get("chat_template")) or read_templates(folder)
        )
        tokenizer.configure(options)
        return tokenizer

    def configure(self, options: Mapping[str, Any]) -> None:
        """Apply options of `from_pretrained` (OPTIONS) to this tokenizer."""
        self.init_kwargs = {**self.init_kwargs, **options}
        for name in SETTINGS:
            if options.get(name) is not None:
                setattr(self, name, options[name])
        self.add_special_tokens({name: value for name, value in options.items() if name in (*PARTS, *EXTRA) and value})

    def save_pretrained(self, folder: str | Path) -> tuple[str, ...]:
        """Write tokenizer.json, tokenizer_config.json and the chat templates into `folder`, creating it.

        Returns the paths of what it wrote.
        """
        folder = Path(folder)
        tokens = {name: getattr(self, name) for name in PARTS}
        config = {
            "tokenizer_class": "Qwen2Tokenizer",
            **self._config,
            **{name: tokens.pop(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")},
            **{name: token for name, token in tokens.items() if token is not None},
            "padding_side": self.padding_side,
            "model_max_length": self.model_max_length,
        }
        in_config = isinstance(config.pop("chat_template", None), str) and isinstance(self.chat_template, str)
        if in_config:
            config["chat_template"] = self.chat_template
        written = write_tokenizer(folder, self._backend, config)
        if self.chat_template and not in_config:
            written += write_templates(folder, self.chat_template)
        return tuple(map(str, written))

    @property
    def padding_side(self) -> str:
        return self._padding_side

    @padding_side.setter
    def padding_side(self, side: str) -> None:
        self._padding_side = _checked_side(side)

    # -- batches

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        padding: bool | str = False,
        truncation: bool | str | None = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        add_special_tokens: bool = True,
        padding_side: str | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        **neutral: Any,
    ) -> BatchFeature:
        """`input_ids` and `attention_mask` of one string or several, int64 [B, T] as tensors.

        Args:
            padding: True or "longest"; "max_length" (to `max_length`, or to `model_max_length`); False or "do_not_pad".
            truncation: True, "longest_first" or "only_first": keep the first `max_length` tokens of each row; False
                or "do_not_truncate": keep all.
            return_tensors: "pt", "np", or None for lists; for one string, flat lists.
            pad_to_multiple_of: fill up to the next multiple of this.
            return_attention_mask: False leaves it out.
            neutral: options in `padding.NEUTRAL`, with the values there, which change nothing.

        Raises:
            PromptError: tensors are requested of rows of unequal length; an unknown option, `padding` or `truncation`.
        """
        refuse_unknown(without_neutral(neutral), (), PromptError, "The tokenizer has no option", near=CALL_DEFAULTS)
        single = not isinstance(text, (list, tuple))
        texts: list[Any] = [text] if single else list(text)
        columns = self.columns(texts, add_special_tokens=add_special_tokens)
        if truncates(truncation):
            columns = cut(columns, max_length or self.model_max_length)
        filled = self.fill(
            columns,
            padding=padding,
            max_length=max_length,
            padding_side=padding_side,
            pad_to_multiple_of=pad_to_multiple_of,
        )
        if return_attention_mask is False:
            del filled["attention_mask"]
        return as_batch(filled, return_tensors, single and return_tensors is None)

    def columns(
        self,
        texts: Sequence[str],
        answers: Sequence[Sequence[Span]] | None = None,
        *,
        add_special_tokens: bool = True,
    ) -> dict[str, Rows]:
        """`input_ids` and `attention_mask` of texts as rows, neither cut nor filled.

        `answers`: the characters of each text that the assistant says; a third column, `assistant_masks`, has 1 for
        each token of them. Raises PromptError as `encode`.
        """
        for text in texts:
            check_text(text)
        encodings = [self._backend.encode(text, add_special_tokens=add_special_tokens) for text in texts]
        ids = [encoding.ids for encoding in encodings]
        columns = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
        if answers is not None:
            pairs = zip(encodings, answers, strict=True)
            columns["assistant_masks"] = [
                [int(any(start < last and end > first for first, last in spans)) for start, end in encoding.offsets]
                for encoding, spans in pairs
            ]
        return columns

    def fill(
        self,
        columns: Mapping[str, Rows],
        *,
        padding: bool | str = True,
        max_length: int | None = None,
        padding_side: str | None = None,
        pad_to_multiple_of: int | None = None,
    ) -> dict[str, Rows]:
        """Columns of rows filled up: `input_ids` with the pad token, masks with 0.

        Raises PromptError for an unknown `padding`, ConfigError without a pad token or for an unknown side.
        """
        lengths = [len(row) for row in columns["input_ids"]]
        length = padded_length(lengths, padding, max_length, self.model_max_length, pad_to_multiple_of)
        side = self.padding_side if padding_side is None else _checked_side(padding_side)
        pad_id = self.pad_token_id
        if pad_id is None and length is not None and any(n < length for n in lengths):
            raise ConfigError("This tokenizer has no pad token; set tokenizer.pad_token to one of its tokens.")
        return pad_columns(columns, length=length, side=side, pad_id=pad_id or 0)

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchFeature:
        """Fill up what calls of this tokenizer returned, as data collators do.

        Args:
            encoded_inputs: a mapping with `input_ids` and perhaps masks, of one row or of several; or a list of such
                mappings, one a row. Other keys are passed through.
            return_attention_mask: False makes none where there is none.
            return_tensors: "pt", "np"; None: as the ids come, in lists, arrays or tensors.
            verbose: no effect.

        Raises:
            PromptError: there are no `input_ids`, or as `fill`.
        """
        encoded = columns_of(encoded_inputs, mask=return_attention_mask is not False)
        filled = self.fill(
            encoded.columns,
            padding=padding,
            max_length=max_length,
            padding_side=padding_side,
            pad_to_multiple_of=pad_to_multiple_of,
        )
        tensors = return_tensors or encoded.tensors
        return BatchFeature({**as_batch(filled, tensors, encoded.single), **BatchFeature(encoded.others, tensors)})

    # -- conversations

    def apply_chat_template(
        self,
        conversation: Sequence[Message] | Sequence[Sequence[Message]],
        tools: Sequence[Any] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        *,
        padding: bool | str = False,
        truncation: bool | str | None = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_dict: bool = True,
        return_assistant_tokens_mask: bool = False,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        **variables: Any,
    ) -> Any:
        """A conversation, or a list of conversations, in the chat template.

        Each clip is one `<|AUDIO|>`, which the processor replaces by as many as the clip has audio tokens.

        Args:
            tools: JSON schemas, or functions with type hints and docstrings; `documents`: dicts.
            chat_template: Jinja source, or the name of one of several; None: the default one.
            return_assistant_tokens_mask: with the mapping, also `assistant_masks`: 1 for a token that the assistant
                says, between `{% generation %}` and `{% endgeneration %}` in a template of its own.
            tokenizer_kwargs: options of the tokenizer's call. The others are as there.
            variables: what the template reads by these names.

        Returns:
            tokenize=False: the text, str. return_dict=False: the ids. Otherwise: the mapping of `__call__`. Lists of
            these for a list of conversations.

        Raises:
            PromptError: the messages are malformed, or options contradict each other or have no effect.
        """
        if not tokenize and (padding or return_tensors):
            ignored = "padding" if padding else "return_tensors"
            raise PromptError(f"{ignored} has no effect on a text; leave it out, or do not pass tokenize=False.")
        if return_assistant_tokens_mask and not (tokenize and return_dict):
            raise PromptError("return_assistant_tokens_mask needs tokenize=True and return_dict=True.")
        template = choose_template(self.chat_template, chat_template, tools=bool(tools))
        rendered, batched = render_all(
            conversation,
            answers=return_assistant_tokens_mask,
            template=template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            inputs=self.template_inputs(template, tools, documents, variables),
        )
        texts = [item.text for item in rendered]
        if not tokenize:
            return texts if batched else texts[0]
        options = {"padding": padding, "max_length": max_length, **(tokenizer_kwargs or {})}
        return_tensors = options.pop("return_tensors", return_tensors)
        columns = self.columns(texts, [item.answers for item in rendered] if return_assistant_tokens_mask else None)
        if truncates(options.pop("truncation", truncation)):
            columns = cut(columns, options["max_length"] or self.model_max_length)
        batch = as_batch(self.fill(columns, **options), return_tensors, not batched and return_tensors is None)
        return batch if return_dict else batch["input_ids"]

    def template_inputs(
        self,
        template: str | None,
        tools: Sequence[Any] | None,
        documents: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
    ) -> TemplateInputs:
        """What a template reads beside the messages: this tokenizer's special tokens, and what the caller gives.

        Raises PromptError for what this template would not read.
        """
        given = [name for name, value in (("tools", tools), ("documents", documents)) if value]
        after = ", which this chat template does not read; leave it out, or pass a template that does."
        refuse_unknown([*given, *variables], variables_read(template), PromptError, "apply_chat_template got", after)
        return TemplateInputs(tools, documents, {**self.special_tokens_map, **variables})


def _checked_side(side: str) -> str:
    if side not in ("left", "right"):
        raise ConfigError(f"padding_side is {side!r}; expected 'left' or 'right'.")
    return side
