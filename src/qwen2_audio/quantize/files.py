"""Safetensors files whose tensors begin at multiples of 64 bytes, written in any order, one tensor at a time."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from ..checkpoint.json_file import replacing
from ..checkpoint.weights import KINDS, split_into_shards, write_index

ALIGNMENT = 64  # bytes: a cache line, and the widest register
_KIND_OF = {dtype: kind for kind, dtype in KINDS.items()}
Write = Callable[[str, torch.Tensor], None]


@contextlib.contextmanager
def writing(folder: Path, tensors: Mapping[str, torch.Tensor], max_shard_bytes: int) -> Iterator[Write]:
    """Gives a function that writes one tensor; the files appear under their names when all are written.

    Args:
        folder: exists. Weights that it held before go last.
        tensors: what will be written; only shapes and dtypes count, so that they can be on the meta device.
        max_shard_bytes: more than this are split over several files with an index.
    """
    shards = split_into_shards(tensors, max_shard_bytes)
    places: dict[str, tuple[str, int]] = {}  # tensor -> file, offset
    with contextlib.ExitStack() as stack:
        paths = {file: stack.enter_context(replacing(folder / file)) for file in shards}
        opened = {file: stack.enter_context(path.open("wb")) for file, path in paths.items()}
        for file, shard in shards.items():
            header, offsets, size = lay_out(shard)
            opened[file].truncate(size)
            opened[file].write(header)
            places |= {name: (file, offset) for name, offset in offsets.items()}
        left = set(tensors)

        def write(name: str, tensor: torch.Tensor) -> None:
            assert tensor.shape == tensors[name].shape and tensor.dtype == tensors[name].dtype, name
            file, offset = places[name]
            opened[file].seek(offset)
            if tensor.numel():
                opened[file].write(tensor.detach().cpu().contiguous().numpy().data.cast("B"))
            left.discard(name)

        yield write
        assert not left, f"not written: {sorted(left)[:3]}"
    write_index(folder, shards)


def lay_out(tensors: Mapping[str, torch.Tensor]) -> tuple[bytes, dict[str, int], int]:
    """A file's header, where in the file each tensor begins, and the size of the whole.

    The format leaves no holes, so what is no multiple of 64 bytes long comes last, most regular first; a reader must
    expect those of odd shapes to lie unevenly.
    """
    order = sorted(tensors, key=lambda name: -math.gcd(tensors[name].nbytes, ALIGNMENT))
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offsets, end = {}, 0
    for name in order:
        tensor = tensors[name]
        offsets[name], end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": _KIND_OF[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offsets[name], end],
        }  # fmt: skip
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    begin = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {name: begin + at for name, at in offsets.items()}, begin + end
