"""Write safetensors files whose tensors begin at multiples of 64 bytes, one tensor at a time, in any order."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from ..checkpoint.json_file import replacing
from ..checkpoint.weights import KINDS, split_into_shards, write_index

ALIGNMENT = 64  # bytes of a cache line and of the widest register
_KIND_OF = {dtype: kind for kind, dtype in KINDS.items()}
Write = Callable[[str, torch.Tensor], None]


@contextlib.contextmanager
def tensor_writer(folder: Path, tensors: Mapping[str, torch.Tensor], max_shard_bytes: int) -> Iterator[Write]:
    """Yield a function that writes one tensor. The files get their names when all tensors are written.

    Args:
        folder: an existing folder. Older weights in it are removed last.
        tensors: the tensors to write; only shapes and dtypes are used, so that they may be on the meta device.
        max_shard_bytes: more bytes than this are split over several files with an index.
    """
    shards = split_into_shards(tensors, max_shard_bytes)
    locations: dict[str, tuple[str, int]] = {}  # tensor -> file, offset
    with contextlib.ExitStack() as stack:
        paths = {file: stack.enter_context(replacing(folder / file)) for file in shards}
        opened = {file: stack.enter_context(path.open("wb")) for file, path in paths.items()}
        for file, shard in shards.items():
            header, offsets, size = lay_out(shard)
            opened[file].truncate(size)
            opened[file].write(header)
            locations |= {name: (file, offset) for name, offset in offsets.items()}
        unwritten = set(tensors)

        def write(name: str, tensor: torch.Tensor) -> None:
            assert tensor.shape == tensors[name].shape and tensor.dtype == tensors[name].dtype, name
            file, offset = locations[name]
            opened[file].seek(offset)
            if tensor.numel():
                opened[file].write(tensor.detach().cpu().contiguous().numpy().data.cast("B"))
            unwritten.discard(name)

        yield write
        assert not unwritten, f"not written: {sorted(unwritten)[:3]}"
    write_index(folder, shards)


def lay_out(tensors: Mapping[str, torch.Tensor]) -> tuple[bytes, dict[str, int], int]:
    """A file's header, the offset of each tensor in the file, and the file's size in bytes.

    The format allows no gaps, so tensors whose size is not a multiple of 64 bytes come last, those with the larger
    power of two first. A reader must expect these tensors at unaligned offsets.
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
    start = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {name: start + at for name, at in offsets.items()}, start + end
