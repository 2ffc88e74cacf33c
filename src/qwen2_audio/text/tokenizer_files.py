"""Read a tokenizer's files into a byte-level BPE with its added tokens, and write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from ..checkpoint.json_file import write_json
from ..errors import WeightsError
from .template_files import TEMPLATE_FILES

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", *TEMPLATE_FILES)

# How Qwen, Qwen1.5 and Qwen2 split text into words before BPE: English contractions, words, single digits, runs of
# punctuation, line ends, spaces. The vocabulary was trained with this pattern: another one gives other ids.
WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def read_backend(folder: Path, config: dict[str, Any]) -> Backend:
    """The BPE in `folder` with every token of `config["added_tokens_decoder"]` (tokenizer_config.json).

    The official tokenizer.json has only the three chat tokens: without tokenizer_config.json, `<|AUDIO|>` would be
    encoded as ordinary text. Raises WeightsError when files are missing or disagree about an id.
    """
    backend = _read_bpe(folder, bool(config.get("add_prefix_space", False)))
    backend.no_padding()
    backend.no_truncation()
    _add_tokens(backend, config.get("added_tokens_decoder") or {}, folder)
    return backend


def _read_bpe(folder: Path, add_prefix_space: bool) -> Backend:
    tokenizer_json, vocab, merges = folder / "tokenizer.json", folder / "vocab.json", folder / "merges.txt"
    try:
        if tokenizer_json.is_file():
            return Backend.from_file(str(tokenizer_json))
        if vocab.is_file() and merges.is_file():
            return byte_level_bpe(BPE.from_file(str(vocab), str(merges)), add_prefix_space)
    except Exception as error:  # the library raises bare Exception
        raise WeightsError(f"The tokenizer in {folder} cannot be read ({error}); fetch its files again.") from None
    raise WeightsError(f"{folder} has no tokenizer; expected tokenizer.json, or vocab.json with merges.txt.")


def byte_level_bpe(model: BPE, add_prefix_space: bool = False) -> Backend:
    """Qwen2's text pipeline around a BPE model: NFC, split into words, bytes to letters; no tokens at either end."""
    backend = Backend(model)
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _add_tokens(backend: Backend, added: dict[str, Any], folder: Path) -> None:
    # In ascending order, because the library gives a new token the next free id.
    for expected_id, entry in sorted((int(key), value) for key, value in added.items()):
        flags = {name: bool(entry[name]) for name in ("lstrip", "rstrip", "single_word", "normalized") if name in entry}
        token = AddedToken(entry["content"], special=bool(entry.get("special", False)), **flags)
        if token.special:
            backend.add_special_tokens([token])
        else:
            backend.add_tokens([token])
        actual_id = backend.token_to_id(entry["content"])
        if actual_id != expected_id:
            raise WeightsError(
                f"tokenizer_config.json in {folder} puts {entry['content']!r} at id {expected_id}, but the vocabulary "
                f"puts it at {actual_id}; the files are not of one checkpoint, fetch them again."
            )


def write_tokenizer(folder: Path, backend: Backend, config: dict[str, Any]) -> list[Path]:
    """Write tokenizer.json and tokenizer_config.json, both with every added token; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    backend.save(str(vocabulary))
    names = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    added = {
        str(token_id): {name: getattr(token, name) for name in names}
        for token_id, token in sorted(backend.get_added_tokens_decoder().items())
    }
    write_json(settings, {**config, "added_tokens_decoder": added})
    return [vocabulary, settings]
