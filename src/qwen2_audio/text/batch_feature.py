"""BatchFeature, the dictionary with attribute access that a tokenizer or processor returns; and lists as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from ..errors import PromptError, did_you_mean


class BatchFeature(dict[str, Any]):
    """Named model inputs; `batch.input_ids` and `batch["input_ids"]` read and assign the same value."""

    def __init__(self, data: Mapping[str, Any] | None = None, tensor_type: str | None = None, **values: Any) -> None:
        """From a mapping or keywords; `tensor_type`: as `convert_to_tensors` takes it."""
        super().__init__(data or {}, **values)
        self.convert_to_tensors(tensor_type)

    @property
    def data(self) -> dict[str, Any]:
        """The inputs as a plain dictionary."""
        return dict(self)

    def convert_to_tensors(self, tensor_type: str | None = None) -> Self:
        """Make every value a torch tensor ("pt") or a numpy array ("np"), in place; None: nothing. Returns itself.

        Lists of floats become float32. Raises PromptError for rows of unequal length.
        """
        for name, value in self.items() if tensor_type is not None else ():
            if not hasattr(value, "detach"):
                self[name] = to_tensors(_array_of(name, value), tensor_type)
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"These inputs have no {name!r}; they have {list(self)}.") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"These inputs have no {name!r}; they have {list(self)}.") from None

    def to(self, *args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False) -> Self:
        """Move every tensor to a device and cast floating-point tensors to a dtype, in place; returns itself.

        Takes `to("cuda")`, `to(torch.bfloat16)`, `to("cuda", torch.bfloat16)` and keywords.
        Raises PromptError when a value is not a tensor.
        """
        import torch

        for arg in args:
            if isinstance(arg, torch.dtype):
                dtype = arg
            else:
                device = arg
        for name, value in self.items():
            if not isinstance(value, torch.Tensor):
                raise PromptError(
                    f"{name} is a {type(value).__name__} and cannot be moved; pass return_tensors='pt' to get tensors."
                )
            cast = dtype if value.is_floating_point() else None
            self[name] = value.to(device=device, dtype=cast, non_blocking=non_blocking)
        return self


def _array_of(name: str, value: Any) -> np.ndarray:
    try:
        array = np.array(value)
    except ValueError:
        raise PromptError(f"{name} has rows of unequal length, which do not make one tensor; pad them first.") from None
    listed = isinstance(value, (list, tuple)) and array.dtype == np.float64
    return array.astype(np.float32) if listed else array


def to_tensors(values: Any, return_tensors: str | None, dtype: type = np.int64) -> Any:
    """Nested lists or an array as a numpy array ("np"), a torch tensor ("pt"), or unchanged (None).

    `dtype` is that of an array made from lists. Raises PromptError for rows of unequal length and for any other
    `return_tensors`.
    """
    if return_tensors is None:
        return values
    if return_tensors not in ("pt", "np"):
        raise PromptError(
            f"return_tensors is {return_tensors!r}; expected 'pt', 'np' or None."
            + did_you_mean(str(return_tensors), ["pt", "np"])
        )
    array = values if isinstance(values, np.ndarray) else _rectangle(values, dtype)
    if return_tensors == "np":
        return array
    import torch

    return torch.from_numpy(array)


def _rectangle(rows: Sequence[Any], dtype: type) -> np.ndarray:
    lengths = {len(row) for row in rows if hasattr(row, "__len__")}
    if len(lengths) > 1:
        raise PromptError(
            f"The rows have {min(lengths)} to {max(lengths)} tokens and do not make one tensor; "
            "pass padding=True to fill them up to the longest."
        )
    return np.array(rows, dtype=dtype)
