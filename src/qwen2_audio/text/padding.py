"""Rows of tokens made equally long: which `padding` and `truncation` mean what, and the filling itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import PromptError
from .batch_feature import BatchFeature, to_tensors
from .vocabulary import as_lists

UNLIMITED = int(1e30)  # tokens; model_max_length when tokenizer_config.json names none, as in the reference
Rows = list[list[int]]
# What a column is filled with. `input_ids` are filled with the pad token; other columns are not filled.
FILL = {"attention_mask": 0, "assistant_masks": 0, "token_type_ids": 0, "special_tokens_mask": 1}
# Options of the reference's tokenizers that have one value here: what they ask for beside it does not exist.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "return_token_type_ids": (False, None), "return_mm_token_type_ids": (False, None), "verbose": (True, False),
    "is_split_into_words": (False,), "return_overflowing_tokens": (False,), "return_length": (False,), "stride": (0,),
}  # fmt: skip
TRUNCATE = (True, "longest_first", "only_first")
KEEP = (False, None, "do_not_truncate")


def without_neutral(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` without those in NEUTRAL. Raises PromptError for one of them that asks for something."""
    for name, value in options.items():
        if name in NEUTRAL and value not in NEUTRAL[name]:
            raise PromptError(f"{name} is {value!r}, which this tokenizer does not do; leave it out.")
    return {name: value for name, value in options.items() if name not in NEUTRAL}


def truncates(truncation: Any) -> bool:
    """Whether `truncation` asks to cut rows: True, "longest_first" or "only_first".

    Raises PromptError unless it is one of these, False, None or "do_not_truncate".
    """
    if truncation in TRUNCATE:
        return True
    if truncation in KEEP:
        return False
    raise PromptError(
        f"truncation is {truncation!r}; expected True, 'longest_first', 'only_first', False or 'do_not_truncate'."
    )


def padded_length(
    lengths: Sequence[int],
    padding: Any,
    max_length: int | None,
    model_max_length: int = UNLIMITED,
    multiple_of: int | None = None,
) -> int | None:
    """The length that rows of these lengths are filled up to; None for padding=False and "do_not_pad".

    Raises PromptError for an unknown `padding`, and for "max_length" without any.
    """
    if padding in (False, None, "do_not_pad"):
        return None
    if padding is True or padding == "longest":
        length = max(lengths, default=0)
    elif padding == "max_length":
        length = max_length or model_max_length
        if length >= UNLIMITED:
            raise PromptError("padding='max_length' needs a length: pass max_length=, this tokenizer names none.")
    else:
        raise PromptError(f"padding is {padding!r}; expected True, 'longest', 'max_length' or False.")
    return -(-length // multiple_of) * multiple_of if multiple_of else length


def pad_columns(columns: Mapping[str, Rows], *, length: int | None, side: str, pad_id: int) -> dict[str, Rows]:
    """Columns of rows, `input_ids` and those of FILL, filled up to `length` positions (None: as they are).

    Example: [7, 8] padded to 4 on the "left" is [pad, pad, 7, 8] with the attention mask [0, 0, 1, 1].
    """
    filled = {}
    for name, rows in columns.items():
        value = pad_id if name == "input_ids" else FILL[name]
        pads = [[value] * max((length or 0) - len(row), 0) for row in rows]
        pairs = zip(pads, rows, strict=True)
        filled[name] = [[*pad, *row] if side == "left" else [*row, *pad] for pad, row in pairs]
    return filled


def cut(columns: Mapping[str, Rows], limit: int) -> dict[str, Rows]:
    """The first `limit` tokens of each row."""
    return {name: [row[:limit] for row in rows] for name, rows in columns.items()}


def as_batch(columns: Mapping[str, Rows], return_tensors: str | None, single: bool) -> BatchFeature:
    """Columns as the caller gets them; `single`: the first row only, flat."""
    return BatchFeature(
        {name: to_tensors(rows[0] if single else rows, return_tensors) for name, rows in columns.items()}
    )


@dataclass(frozen=True)
class Encoded:
    """What a tokenizer returned earlier."""

    columns: dict[str, Rows]  # those that can be filled
    others: dict[str, Any]
    single: bool  # of one text, in flat lists
    tensors: str | None  # what it is made of: "pt", "np", or None for lists


def columns_of(encoded: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, mask: bool = True) -> Encoded:
    """One mapping of rows, or a list of mappings with one row each. `mask`: make an attention mask if there is none.

    Raises PromptError without `input_ids`.
    """
    if not isinstance(encoded, Mapping):
        encoded = {name: [row[name] for row in encoded] for name in (encoded[0] if encoded else {"input_ids": []})}
    if "input_ids" not in encoded:
        raise PromptError(f"pad() found {sorted(encoded)}, and no input_ids; pass what the tokenizer returned.")
    columns = {name: as_lists(value) for name, value in encoded.items() if name in ("input_ids", *FILL)}
    single = bool(columns["input_ids"]) and isinstance(columns["input_ids"][0], int)
    if single:
        columns = {name: [row] for name, row in columns.items()}
    if mask:
        columns.setdefault("attention_mask", [[1] * len(row) for row in columns["input_ids"]])
    others = {name: value for name, value in encoded.items() if name not in columns}
    return Encoded(columns, others, single, _tensors_in(encoded["input_ids"]))


def _tensors_in(value: Any) -> str | None:
    first = value[0] if isinstance(value, (list, tuple)) and value else value
    return ("pt" if hasattr(first, "detach") else "np") if hasattr(first, "dtype") else None
