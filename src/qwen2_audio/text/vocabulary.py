"""Text to token ids and back: a byte-level BPE with its control tokens, those with a part to play, and added ones."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from ..errors import ConfigError, PromptError

# The tokens with a part to play, by the names of tokenizer_config.json.
PARTS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# The tokens of a tokenizer_config.json that names none, as in the reference's Qwen2Tokenizer.
DEFAULT_TOKENS = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
EXTRA = ("extra_special_tokens", "additional_special_tokens")  # lists of tokens without a part; the second is older
UNPRINTABLE = (*range(33), *range(127, 161), 173)  # bytes without a printable Latin-1 character


def _id_property(name: str) -> Any:
    """The id of the token called `name`, None without one; assigning an id sets the token."""

    def read(self: Vocabulary) -> int | None:
        token = getattr(self, name)
        return None if token is None else self._backend.token_to_id(token)

    def write(self: Vocabulary, token_id: int | None) -> None:
        setattr(self, name, None if token_id is None else self._backend.id_to_token(token_id))

    return property(read, write)


class Vocabulary:
    """Text, tokens and their ids."""

    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    sep_token: str | None
    pad_token: str | None
    cls_token: str | None
    mask_token: str | None
    bos_token_id, eos_token_id, unk_token_id = map(_id_property, PARTS[:3])
    sep_token_id, pad_token_id, cls_token_id, mask_token_id = map(_id_property, PARTS[3:])

    def __init__(self, backend: Backend, config: Mapping[str, Any]):
        self._backend = backend
        # The same vocabulary without control tokens: it encodes "<|im_end|>" as ordinary text. The library's own
        # switch, `encode_special_tokens`, changes the shared object, so that two threads would disturb each other.
        self._plain = Backend(backend.model)
        self._plain.normalizer = backend.normalizer
        self._plain.pre_tokenizer = backend.pre_tokenizer
        extra = config.get("extra_special_tokens")
        named = {**config, **(extra if isinstance(extra, dict) else {})}
        self._parts = [*PARTS, *(name for name in named if name.endswith("_token") and name not in PARTS)]
        for name in self._parts:
            setattr(self, name, _token_called(name, named, backend))

    def __len__(self) -> int:
        """All tokens, control tokens included. The model's embedding has more rows: 156,032."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def vocab_size(self) -> int:
        """Tokens of the BPE, without control tokens."""
        return self._backend.get_vocab_size(with_added_tokens=False)

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The tokens with a part to play, by name, where there is one. Chat templates read them."""
        return {name: token for name in self._parts if (token := getattr(self, name, None)) is not None}

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of the control tokens, ascending; `skip_special_tokens=True` skips these."""
        return sorted(i for i, token in self.added_tokens_decoder.items() if token.special)

    @property
    def all_special_tokens(self) -> list[str]:
        return [self._backend.id_to_token(i) or "" for i in self.all_special_ids]

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that are not of the BPE, by id."""
        return self._backend.get_added_tokens_decoder()

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """Their ids by spelling."""
        return {token.content: i for i, token in sorted(self.added_tokens_decoder.items())}

    def get_vocab(self) -> dict[str, int]:
        """Every token's spelling and its id, control tokens included."""
        return self._backend.get_vocab(with_added_tokens=True)

    def add_tokens(
        self, new_tokens: str | AddedToken | Sequence[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Add tokens behind the vocabulary; returns how many were no added tokens before.

        `special_tokens`: they are control tokens, which `skip_special_tokens=True` skips. The model's embedding must
        have a row for each: for more than it has, call `model.resize_token_embeddings(len(tokenizer))`.
        """
        tokens = [new_tokens] if isinstance(new_tokens, (str, AddedToken)) else list(new_tokens)
        return self._backend.add_special_tokens(tokens) if special_tokens else self._backend.add_tokens(tokens)

    def add_special_tokens(self, special_tokens_dict: Mapping[str, Any]) -> int:
        """Add control tokens and give them parts, as in `{"pad_token": "<pad>", "extra_special_tokens": ["<a>"]}`.

        Returns how many the vocabulary did not have. Raises ConfigError for an unknown part.
        """
        added = 0
        for name, token in special_tokens_dict.items():
            if name in EXTRA:
                added += self.add_tokens(token, special_tokens=True)
                continue
            if name not in self._parts:
                raise ConfigError(f"A tokenizer has no {name!r}; expected one of {', '.join([*PARTS, *EXTRA])}.")
            added += self.add_tokens(token, special_tokens=True)
            setattr(self, name, str(token))
        return added

    # -- text to ids

    def encode(self, text: str, *, control_tokens: bool = True, add_special_tokens: bool = True) -> list[int]:
        """Token ids of `text`.

        With control_tokens=False, control tokens in the text are encoded as ordinary text: `<|im_end|>` becomes seven
        tokens and does not end a message. `add_special_tokens` has an effect only when tokenizer.json adds tokens at
        the ends of a text; Qwen2's adds none.
        Raises PromptError when `text` is not a string or has a lone surrogate.
        """
        check_text(text)
        if not control_tokens:
            return self._plain.encode(text).ids
        return self._backend.encode(text, add_special_tokens=add_special_tokens).ids

    def encode_plain(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of `text`, encoded without control tokens, and the index of each id's first character in `text`."""
        check_text(text)
        encoding = self._plain.encode(text)
        return encoding.ids, [start for start, _ in encoding.offsets]

    def tokenize(self, text: str, *, add_special_tokens: bool = False) -> list[str]:
        """The tokens of `text` in the vocabulary's spelling, in which a letter stands for a byte (`Ġ` for a blank)."""
        check_text(text)
        return self._backend.encode(text, add_special_tokens=add_special_tokens).tokens

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of tokens in the vocabulary's spelling."""
        return str(self._backend.decoder.decode(list(tokens)))

    # -- ids to text

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> Any:
        """Text of an id or a row of ids (list, numpy array, tensor); a batch of rows gives a list of texts.

        An id that is not in the vocabulary (the model's embedding has more rows) decodes to nothing, and bytes that
        are not UTF-8 decode to U+FFFD. `clean_up_tokenization_spaces` is accepted and does nothing, as in the
        reference for byte-level BPE. Raises PromptError for a negative id.
        """
        ids = as_lists(token_ids)
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
        ids = as_lists(ids)
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
        if token in self.added_tokens_decoder:
            return str(spelling).encode()
        return bytes(_byte_of(letter) for letter in spelling)


def check_text(text: object) -> None:
    """Raises PromptError unless `text` is a string that UTF-8 can hold."""
    if not isinstance(text, str):
        raise PromptError(f"The text is a {type(text).__name__}; expected a string.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"The text has half a character at position {error.start} (a lone surrogate); "
            "decode it again from its source as UTF-8 or UTF-16."
        ) from None


def _token_called(name: str, config: Mapping[str, Any], backend: Backend) -> str | None:
    entry = config.get(name, DEFAULT_TOKENS.get(name))
    token: str | None = entry.get("content") if isinstance(entry, dict) else entry
    if token is not None and name in config and name in PARTS and backend.token_to_id(token) is None:
        raise ConfigError(
            f"tokenizer_config.json names {token!r} as its {name}, which the vocabulary does not have; "
            "fetch the tokenizer's files again, all of one revision."
        )
    return token


def _byte_of(letter: str) -> int:
    """The byte that a letter of the vocabulary's alphabet stands for.

    A printable Latin-1 letter stands for its own byte; U+0100 + n stands for the n-th of the 68 other bytes.
    """
    code = ord(letter)
    return code if code < 256 else UNPRINTABLE[code - 256]


def as_lists(ids: Any) -> Any:
    """An int, or (nested) lists of ints, from ints, sequences, numpy arrays and tensors."""
    if hasattr(ids, "tolist"):
        ids = ids.tolist()
    if isinstance(ids, (list, tuple)):
        return [as_lists(item) for item in ids]
    try:
        return operator.index(ids)
    except TypeError:
        raise PromptError(f"A token id is a {type(ids).__name__}; expected whole numbers.") from None
