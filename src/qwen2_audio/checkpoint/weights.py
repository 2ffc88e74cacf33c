"""Checkpoints: tensors from safetensors files into a model, and back.

The names on disk are the model's own parameter names. Files with transformers 5's names (`model.language_model.*`,
`lm_head.weight`) and files of the encoder alone (`conv1.weight`) are read too; what is written has the first kind.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ..errors import WeightsError
from .config import CONFIG_FILE, Qwen2AudioConfig
from .json_file import replacing, write_json

logger = logging.getLogger(__name__)

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PATTERNS = ("*.safetensors", INDEX_FILE, CONFIG_FILE, "generation_config.json")  # what a load wants from the hub
ENCODER = "audio_tower."
HEAD = "language_model.lm_head.weight"
EMBEDDING = "language_model.model.embed_tokens.weight"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
KINDS = {"U8": torch.uint8, "I8": torch.int8, **FLOATS}  # what files of this package hold, by safetensors' names
MAX_SHARD_BYTES = 5 * 10**9

_RENAMES = (  # other layouts -> ours; the first that matches
    (re.compile(r"^model\.(audio_tower|multi_modal_projector)\."), r"\1."),
    (re.compile(r"^(?:model\.)?language_model\.(?=(?:embed_tokens|layers|norm)\.)"), "language_model.model."),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^(?=(?:conv1|conv2|embed_positions|layers|layer_norm)\.)"), ENCODER),
)
T = TypeVar("T")
_NOT_WEIGHTS = re.compile(r"\.rotary_emb\.inv_freq$")  # computed here; very old files stored it


def canonical(name: str) -> str:
    """The name that this package, and the official files, have for a tensor of any known layout."""
    for pattern, replacement in _RENAMES:
        if pattern.search(name):
            return pattern.sub(replacement, name)
    return name


@dataclass
class Checkpoint:
    """The tensors of a folder by canonical name. Files are mapped, not read, until a tensor is asked for."""

    folder: Path
    stored: dict[str, tuple[str, str]]  # canonical name -> (file, name in it)
    _files: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Find the weights of `folder`. Raises WeightsError: none, a shard missing, a broken index."""
        checkpoint = cls(folder, {})
        if (folder / SINGLE_FILE).is_file():  # first: transformers leaves an old index beside it
            files = dict.fromkeys(checkpoint._file(SINGLE_FILE).keys(), SINGLE_FILE)
        elif (folder / INDEX_FILE).is_file():
            files = _read_index(folder / INDEX_FILE)
        else:
            raise WeightsError(_no_weights(folder))
        for name, file in files.items():
            ours = canonical(name)
            if ours in checkpoint.stored:
                first = checkpoint.stored[ours][1]
                raise WeightsError(f"{folder} holds {ours} twice, as {first!r} and {name!r}; save it again with one.")
            if not _NOT_WEIGHTS.search(name):
                checkpoint.stored[ours] = (file, name)
        return checkpoint

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype | None:
        """None for what is not a float of 16 bits or more, such as a quantised tensor."""
        return FLOATS.get(self.kind(name))

    def kind(self, name: str) -> str:
        """safetensors' name of the dtype: "F32", "U8", ..."""
        return str(self._slice(name).get_dtype())

    def read(self, name: str) -> torch.Tensor:
        """The tensor on the CPU, backed by the mapped file; writing to it never reaches the file."""
        file, stored = self.stored[name]
        return self._file(file).get_tensor(stored)  # type: ignore[no-any-return]

    def _slice(self, name: str) -> Any:
        from safetensors import SafetensorError

        file, stored = self.stored[name]
        try:
            return self._file(file).get_slice(stored)
        except SafetensorError:
            raise WeightsError(f"{self.folder / file} lacks {stored!r}, which {INDEX_FILE} promises in it.") from None

    def _file(self, name: str) -> Any:
        if name not in self._files:
            self._files[name] = _map(self.folder / name)
        return self._files[name]


def _map(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise WeightsError(
            f"{path.parent} lacks {path.name}, which {INDEX_FILE} names; fetch the missing shard."
        ) from None
    except (SafetensorError, OSError) as error:
        if _is_lfs_pointer(path):
            advice = f"{path} is a Git LFS pointer, not the weights; run 'git lfs pull' in {path.parent}."
        else:
            advice = f"{path} is not a whole safetensors file ({_missing(path) or error}); fetch it again."
        raise WeightsError(advice) from None


def _missing(path: Path) -> str:
    """How much of the file is not there, by its own header; empty if that does not say."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entries = json.loads(file.read(min(length, path.stat().st_size)))
        promised = 8 + length + max(entry["data_offsets"][1] for key, entry in entries.items() if key != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    found = path.stat().st_size
    return "" if found == promised else f"{found:,} bytes, where its header promises {promised:,}"


def _is_lfs_pointer(path: Path) -> bool:
    mark = b"version https://git-lfs"
    try:
        with path.open("rb") as file:
            return file.read(len(mark)) == mark
    except OSError:
        return False


def _read_index(path: Path) -> dict[str, str]:
    """The index's weight_map: tensor name -> file."""
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        plain = all(isinstance(file, str) and file == Path(file).name for file in weight_map.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        plain = False
    if not plain:
        raise WeightsError(f"{path} is not an index: no 'weight_map' of tensor names to file names. Fetch it again.")
    return dict(weight_map)


def _no_weights(folder: Path) -> str:
    expected = f"expected {INDEX_FILE} with its shards, or {SINGLE_FILE}"
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        return (
            f"{folder} holds {pickled[0]} but no safetensors; {expected}. Pickled weights can run code when read; "
            "convert them to safetensors with the tool that made them."
        )
    return f"{folder} has no weights; {expected}."


def load_checkpoint(
    model: nn.Module,
    checkpoint: Checkpoint | str | Path,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    *,
    prefix: str = "",
    ignore: tuple[str, ...] = (),
    share: Callable[[str, torch.Tensor], torch.Tensor] | None = None,
) -> None:
    """Give every parameter of `model`, built on the meta device, its tensor.

    One tensor after another is read, moved to `device`, cast to `dtype` (None: as it is stored) and assigned, so
    that memory holds the model and one tensor more. A tensor that needs neither stays mapped from its file.

    Args:
        model: parameter names are canonical names without `prefix`; parameters that are one object stay one.
        checkpoint: opened, or a folder.
        prefix: of the part of the checkpoint to take; what lies outside it is not looked at.
        ignore: tensors that may be there and are knowingly left out.
        share: what is kept of a tensor, by the parameter's name; None: all of it.

    Raises:
        WeightsError: tensors missing, left over, of another shape, or not floats; the message names them.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint.open(Path(checkpoint))
    wanted: dict[int, list[str]] = {}  # tied parameters: one tensor, several names
    for name, parameter in model.named_parameters(remove_duplicate=False):
        wanted.setdefault(id(parameter), []).append(name)
    parameters = dict(model.named_parameters())
    tied = [name for names in wanted.values() for name in names]
    check(checkpoint, parameters, prefix=prefix, optional=tied, ignore=ignore)
    for name, tensor in progress(parameters, lambda name: checkpoint.read(prefix + name)):
        old = parameters[name]
        tensor = tensor if share is None else share(name, tensor)
        new = nn.Parameter(tensor.to(device).to(dtype or tensor.dtype), requires_grad=old.requires_grad)
        for same in wanted[id(old)]:
            owner, _, leaf = same.rpartition(".")
            setattr(model.get_submodule(owner), leaf, new)


def check(
    checkpoint: Checkpoint,
    expected: Mapping[str, torch.Tensor],
    *,
    prefix: str = "",
    optional: Iterable[str] = (),
    ignore: Iterable[str] = (),
    exact: bool = False,
) -> None:
    """Raise one WeightsError for all that does not fit.

    Args:
        expected: tensors by name, without `prefix`; only their shape and, with `exact`, their dtype count.
        optional: names, without `prefix`, that may be there too.
        ignore: whole names of tensors that are knowingly left out.
        exact: the dtype must be that of the expected tensor. Otherwise any float of 16 bits or more will do.
    """
    there = {name for name in checkpoint.stored if name.startswith(prefix)}
    known = {prefix + name for name in (*expected, *optional)}
    missing = [prefix + name for name in expected if prefix + name not in there]
    unexpected = sorted(there - known - set(ignore))
    misshapen, other_dtype = [], []
    for name, tensor in expected.items():
        full = prefix + name
        if full in there:
            found = checkpoint.shape(full)
            if found != tuple(tensor.shape):
                misshapen.append(f"{full} {list(found)}, expected {list(tensor.shape)}")
            elif exact and KINDS.get(checkpoint.kind(full)) != tensor.dtype:
                other_dtype.append(f"{full} {checkpoint.kind(full)}, expected {str(tensor.dtype)[6:]}")
            elif not exact and checkpoint.dtype(full) is None:
                other_dtype.append(full)
    trouble = [
        f"{len(names)} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
            ("of another dtype" if exact else "not stored as fp32, fp16 or bf16", other_dtype),
        )
        if names
    ]
    if trouble:
        raise WeightsError(
            f"The tensors of {checkpoint.folder} do not fit its config.json ({len(expected)} expected). "
            f"{'; '.join(trouble)}. Check that config and weights belong together, and that adapters are merged."
        )


def progress(
    tensors: Mapping[str, torch.Tensor], read: Callable[[str], T], what: str = "Loading weights"
) -> Iterator[tuple[str, T]]:
    """Read each tensor, or do with it what `read` does; a bar on stderr for someone who watches and has waited."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        bar: Progress | None = None
        task, done = None, 0
        for name, tensor in tensors.items():
            yield name, read(name)
            done += tensor.numel()
            if bar is None and console.is_terminal and time.monotonic() - started > 1:
                bar = stack.enter_context(Progress(console=console, transient=True))
                task = bar.add_task(what, total=sum(t.numel() for t in tensors.values()))
            if bar is not None and task is not None:
                bar.update(task, completed=done)


def separate_head(checkpoint: Checkpoint) -> bool:
    """Whether the files hold a head that is not the embedding, whatever config.json says about tying.

    Some files say `tie_word_embeddings: true` and are not tied; tying them would ruin every answer.
    """
    if HEAD not in checkpoint.stored or EMBEDDING not in checkpoint.stored:
        return HEAD in checkpoint.stored
    return not torch.equal(checkpoint.read(HEAD), checkpoint.read(EMBEDDING))


def untie(config: Qwen2AudioConfig, checkpoint: Checkpoint) -> None:
    """Believe the files: where head and embedding differ in them, `config` no longer says that they are tied."""
    if config.tied and separate_head(checkpoint):
        logger.warning("%s says that head and embedding are tied, but holds both: left untied.", checkpoint.folder)
        config.tie_word_embeddings = config.text_config.tie_word_embeddings = False


def save_checkpoint(model: nn.Module, folder: str | Path, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Write `model`'s parameters to `folder` under their own names, next to what is there.

    More than `max_shard_bytes` are split over several files with an index. Every file is written under another name
    first, so that a crash leaves no half file; weights that the folder held before go last.
    A tied head is written too: the reference never ties this model and would start from a random one.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    named = model.named_parameters(remove_duplicate=False)
    shards = split({name: parameter.data for name, parameter in named}, max_shard_bytes)
    for file, shard in shards.items():
        with replacing(folder / file) as temporary:
            save_file(_unshared(shard), temporary, metadata={"format": "pt"})
    finish(folder, shards)


def split(tensors: Mapping[str, torch.Tensor], max_bytes: int) -> dict[str, dict[str, torch.Tensor]]:
    """File name -> tensors: one shard filled after the other; a tensor larger than `max_bytes` has one for itself."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    room = max_bytes
    for name, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = max_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        return {SINGLE_FILE: shards[0]}
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": shard for i, shard in enumerate(shards, 1)}


def finish(folder: Path, shards: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
    """Write the index that several files need, and remove weights that the folder held before."""
    files = [*shards]
    if len(shards) > 1:
        sizes = sum(tensor.nbytes for shard in shards.values() for tensor in shard.values())
        where = {name: file for file, shard in shards.items() for name in shard}
        index = {"metadata": {"total_size": sizes}, "weight_map": dict(sorted(where.items()))}
        write_json(folder / INDEX_FILE, index)
        files.append(INDEX_FILE)
    for old in [folder / INDEX_FILE, *folder.glob("model*.safetensors")]:
        if old.name not in files:
            old.unlink(missing_ok=True)


def _unshared(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """On the CPU, contiguous, no two in the same memory: safetensors refuses those."""
    out: dict[str, torch.Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.cpu().contiguous()
        if tensor.data_ptr() in taken:
            tensor = tensor.clone()
        taken.add(tensor.data_ptr())
        out[name] = tensor
    return out
