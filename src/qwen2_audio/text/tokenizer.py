"""Text to token ids and back: Qwen2's byte-level BPE with its control tokens."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tokenizers import Tokenizer as Backend

from ..checkpoint import hub
from ..checkpoint.json_file import read_json
from ..errors import ConfigError, PromptError
from ..types import Message
from . import chat_template as chat
from .batch_feature import BatchFeature, pad_rows, to_tensors
from .tokenizer_files import CHAT_TEMPLATE_FILE, TOKENIZER_FILES, read_backend, read_chat_template, write_tokenizer

# The tokens of a tokenizer_config.json that names none, as in the reference's Qwen2Tokenizer.
DEFAULT_TOKENS = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
UNPRINTABLE = (*range(33), *range(127, 161), 173)  # bytes without a printable Latin-1 character
UNLIMITED = int(1e30)  # tokens; model_max_length when tokenizer_config.json names none, as in the reference


class Tokenizer:
    """A byte-level BPE over strings, with control tokens such as `<|im_end|>` and `<|AUDIO|>`.

    Attributes: `eos_token`, `pad_token`, `unk_token`, `bos_token` (str or None, each with its `_id`), `padding_side`
    ("left" unless the file says otherwise, because generation continues at the right end), `model_max_length`
    (tokens), `chat_template` (Jinja source, or None for the built-in one). A call never changes the result of a later
    call.
    """

    def __init__(self, backend: Backend, config: dict[str, Any] | None = None, chat_template: str | None = None):
        """Wrap a `tokenizers.Tokenizer`; `config` has the keys of tokenizer_config.json."""
        self._backend = backend
        # The same vocabulary without control tokens: it encodes "<|im_end|>" as ordinary text. The library's own
        # switch, `encode_special_tokens`, changes the shared object, so that two threads would disturb each other.
        self._plain = Backend(backend.model)
        self._plain.normalizer = backend.normalizer
        self._plain.pre_tokenizer = backend.pre_tokenizer
        self._config = dict(config or {})
        self.chat_template = chat_template
        self.eos_token = self._token("eos_token")
        self.pad_token = self._token("pad_token")
        self.unk_token = self._token("unk_token")
        self.bos_token = self._token("bos_token")
        self.padding_side = self._config.get("padding_side") or "left"
        self.model_max_length = int(self._config.get("model_max_length") or UNLIMITED)

    def _token(self, name: str) -> str | None:
        entry = self._config.get(name, DEFAULT_TOKENS.get(name))
        token: str | None = entry.get("content") if isinstance(entry, dict) else entry
        if token is not None and name in self._config and self._backend.token_to_id(token) is None:
            raise ConfigError(
                f"tokenizer_config.json names {token!r} as its {name}, which the vocabulary does not have; "
                "fetch the tokenizer's files again, all of one revision."
            )
        return token

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
        Raises WeightsError when files are missing, damaged or disagree.
        """
        folder = hub.resolve(name_or_path, TOKENIZER_FILES, revision=revision, local_files_only=local_files_only)
        config = read_json(folder / "tokenizer_config.json")
        return cls(read_backend(folder, config), config, read_chat_template(folder, config))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and the chat template into `folder`, creating it."""
        folder = Path(folder)
        config = {
            "tokenizer_class": "Qwen2Tokenizer",
            **self._config,
            **{name: getattr(self, name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")},
            "padding_side": self.padding_side,
            "model_max_length": self.model_max_length,
        }
        if "chat_template" in config:
            config["chat_template"] = self.chat_template
        write_tokenizer(folder, self._backend, config)
        if self.chat_template is not None and "chat_template" not in config:
            (folder / CHAT_TEMPLATE_FILE).write_text(self.chat_template, encoding="utf-8")

    # -- vocabulary

    def __len__(self) -> int:
        """All tokens, control tokens included. The model's embedding has more rows: 156,032."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def vocab_size(self) -> int:
        """Tokens of the BPE, without control tokens."""
        return self._backend.get_vocab_size(with_added_tokens=False)

    @property
    def padding_side(self) -> str:
        return self._padding_side

    @padding_side.setter
    def padding_side(self, side: str) -> None:
        if side not in ("left", "right"):
            raise ConfigError(f"padding_side is {side!r}; expected 'left' or 'right'.")
        self._padding_side = side

    @property
    def eos_token_id(self) -> int | None:
        return self._id_of(self.eos_token)

    @property
    def pad_token_id(self) -> int | None:
        return self._id_of(self.pad_token)

    @property
    def unk_token_id(self) -> int | None:
        return self._id_of(self.unk_token)

    @property
    def bos_token_id(self) -> int | None:
        return self._id_of(self.bos_token)

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of the control tokens, ascending; `skip_special_tokens=True` skips these."""
        return sorted(i for i, token in self._backend.get_added_tokens_decoder().items() if token.special)

    @property
    def all_special_tokens(self) -> list[str]:
        return [self._backend.id_to_token(i) or "" for i in self.all_special_ids]

    def get_vocab(self) -> dict[str, int]:
        """Every token's spelling and its id, control tokens included."""
        return self._backend.get_vocab(with_added_tokens=True)

    def _id_of(self, token: str | None) -> int | None:
        return None if token is None else self._backend.token_to_id(token)

    # -- text to ids

    def encode(self, text: str, *, control_tokens: bool = True, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`.

        With control_tokens=False, control tokens in the text are encoded as ordinary text: `<|im_end|>` becomes seven
        tokens and does not end a message. `add_special_tokens` has an effect only when tokenizer.json adds tokens at
        the ends of a text; Qwen2's adds none.
        Raises PromptError when `text` is not a string or has a lone surrogate.
        """
        _check_text(text)
        if not control_tokens:
            return self._plain.encode(text).ids
        return self._backend.encode(text, add_special_tokens=add_special_tokens).ids

    def encode_plain(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of `text`, encoded without control tokens, and the index of each id's first character in `text`."""
        _check_text(text)
        encoding = self._plain.encode(text)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        padding: bool | str = False,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        add_special_tokens: bool = True,
        padding_side: str | None = None,
    ) -> BatchFeature:
        """`input_ids` and `attention_mask` of one string or several, int64 [B, T] as tensors.

        Args:
            padding: True or "longest"; "max_length" (to `max_length`, or to `model_max_length`); or False.
            truncation: keep only the first `max_length` tokens of each row.
            return_tensors: "pt", "np", or None for lists; for one string, flat lists.

        Raises:
            PromptError: tensors are requested of rows of unequal length.
        """
        single = not isinstance(text, (list, tuple))
        texts: list[Any] = [text] if single else list(text)
        rows = [self.encode(item, add_special_tokens=add_special_tokens) for item in texts]
        if truncation:
            rows = [row[: max_length or self.model_max_length] for row in rows]
        ids, mask = self.pad(rows, padding=padding, max_length=max_length, padding_side=padding_side)
        batch = {"input_ids": ids, "attention_mask": mask}
        if single and return_tensors is None:
            return BatchFeature({name: rows[0] for name, rows in batch.items()})
        return BatchFeature({name: to_tensors(rows, return_tensors) for name, rows in batch.items()})

    def pad(
        self,
        rows: Sequence[Sequence[int]],
        *,
        padding: bool | str = True,
        max_length: int | None = None,
        padding_side: str | None = None,
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Rows of ids filled up with the pad token, and their attention mask.

        Raises PromptError for an unknown `padding`, ConfigError without a pad token or for an unknown side.
        """
        length = self._pad_length(rows, padding, max_length)
        side = self.padding_side if padding_side is None else padding_side
        if side not in ("left", "right"):
            raise ConfigError(f"padding_side is {side!r}; expected 'left' or 'right'.")
        pad_id = self.pad_token_id
        if pad_id is None:
            if length is not None and any(len(row) < length for row in rows):
                raise ConfigError("This tokenizer has no pad token; set tokenizer.pad_token to one of its tokens.")
            pad_id = 0
        return pad_rows(rows, length=length, side=side, pad_id=pad_id)

    def _pad_length(self, rows: Sequence[Sequence[int]], padding: bool | str, max_length: int | None) -> int | None:
        if padding is False or padding == "do_not_pad":
            return None
        if padding is True or padding == "longest":
            return max((len(row) for row in rows), default=0)
        if padding != "max_length":
            raise PromptError(f"padding is {padding!r}; expected True, 'longest', 'max_length' or False.")
        length = max_length or self.model_max_length
        if length >= UNLIMITED:
            raise PromptError("padding='max_length' needs a length: pass max_length=, this tokenizer names none.")
        return length

    # -- ids to text

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> Any:
        """Text of an id or a row of ids (list, numpy array, tensor); a batch of rows gives a list of texts.

        An id that is not in the vocabulary (the model's embedding has more rows) decodes to nothing, and bytes that
        are not UTF-8 decode to U+FFFD. `clean_up_tokenization_spaces` is accepted and does nothing, as in the
        reference for byte-level BPE. Raises PromptError for a negative id.
        """
        ids = _as_lists(token_ids)
        if isinstance(ids, int):
            ids = [ids]
        if ids and isinstance(ids[0], list):
            return self.batch_decode(ids, skip_special_tokens)
        if ids and min(ids) < 0:
            raise PromptError(
                f"Token id {min(ids)} is negative; expected ids from 0 up. Take out ignored labels (-100) first."
            )
        return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def batch_decode(
        self, sequences: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> list[str]:
        """The text of each row of ids; see `decode`."""
        return [self.decode(row, skip_special_tokens) for row in sequences]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token or of each token; `unk_token_id` for an unknown token."""
        if isinstance(tokens, str):
            token_id = self._backend.token_to_id(tokens)
            return self.unk_token_id if token_id is None else token_id
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The vocabulary's spelling of an id or of each id; None for an id that is not in the vocabulary."""
        ids = _as_lists(ids)
        if isinstance(ids, int):
            return self._backend.id_to_token(ids)
        special = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._backend.id_to_token(i) for i in ids if i not in special]

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes of a token, which may be only part of a character; b"" for an unknown id.

        The vocabulary spells each byte as a printable character (GPT-2's byte-level BPE, `bytes_to_unicode`).
        """
        spelling = self._backend.id_to_token(token)
        if spelling is None:
            return b""
        if token in self._backend.get_added_tokens_decoder():
            return str(spelling).encode()
        return bytes(_byte_of(letter) for letter in spelling)

    # -- conversations

    def apply_chat_template(
        self,
        conversation: Sequence[Message] | Sequence[Sequence[Message]],
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        return_dict: bool = True,
        padding: bool | str = False,
        return_tensors: str | None = None,
    ) -> Any:
        """A conversation, or a list of conversations, in the chat template.

        Each clip is one `<|AUDIO|>`, which the processor replaces by as many as the clip has audio tokens.

        Returns:
            tokenize=False: the text, str. return_dict=False: the ids. Otherwise: the mapping of `__call__`. Lists of
            these for a list of conversations.

        Raises:
            PromptError: the messages are malformed, or options contradict each other.
        """
        if not tokenize and (padding or return_tensors):
            ignored = "padding" if padding else "return_tensors"
            raise PromptError(f"{ignored} has no effect on a text; leave it out, or do not pass tokenize=False.")
        texts, batched = chat.render_all(
            conversation,
            template=chat_template or self.chat_template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )
        prompt = texts if batched else texts[0]
        if not tokenize:
            return prompt
        batch = self(prompt, padding=padding, return_tensors=return_tensors)
        return batch if return_dict else batch["input_ids"]


def _byte_of(letter: str) -> int:
    """The byte that a letter of the vocabulary's alphabet stands for.

    A printable Latin-1 letter stands for its own byte; U+0100 + n stands for the n-th of the 68 other bytes.
    """
    code = ord(letter)
    return code if code < 256 else UNPRINTABLE[code - 256]


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise PromptError(f"The text is a {type(text).__name__}; expected a string.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"The text has half a character at position {error.start} (a lone surrogate); "
            "decode it again from its source as UTF-8 or UTF-16."
        ) from None


def _as_lists(ids: Any) -> Any:
    """An int, or (nested) lists of ints, from ints, sequences, numpy arrays and tensors."""
    if hasattr(ids, "tolist"):
        ids = ids.tolist()
    if isinstance(ids, (list, tuple)):
        return [_as_lists(item) for item in ids]
    try:
        return operator.index(ids)
    except TypeError:
        raise PromptError(f"A token id is a {type(ids).__name__}; expected whole numbers.") from None
