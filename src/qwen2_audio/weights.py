"""Checkpoints: tensors from safetensors files into a model, and back.

The names on disk are the model's own parameter names. Files with transformers 5's names (`model.language_model.*`,
`lm_head.weight`) and files of the encoder alone (`conv1.weight`) are read too; what is written has the first kind.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .config import CONFIG_FILE
from .errors import WeightsError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PATTERNS = ("*.safetensors", INDEX_FILE, CONFIG_FILE, "generation_config.json")  # what a load wants from the hub
ENCODER = "audio_tower."
HEAD = "language_model.lm_head.weight"
EMBEDDING = "language_model.model.embed_tokens.weight"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
MAX_SHARD_BYTES = 5 * 10**9

_RENAMES = (  # other layouts -> ours; the first that matches
    (re.compile(r"^model\.(audio_tower|multi_modal_projector)\."), r"\1."),
    (re.compile(r"^(?:model\.)?language_model\.(?=(?:embed_tokens|layers|norm)\.)"), "language_model.model."),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^(?=(?:conv1|conv2|embed_positions|layers|layer_norm)\.)"), ENCODER),
)
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
        if (folder / INDEX_FILE).is_file():
            files = _read_index(folder / INDEX_FILE)
        elif (folder / SINGLE_FILE).is_file():
            files = dict.fromkeys(checkpoint._file(SINGLE_FILE).keys(), SINGLE_FILE)
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
        return FLOATS.get(self._slice(name).get_dtype())

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
            advice = f"{path} is not a whole safetensors file ({error}); fetch it again."
        raise WeightsError(advice) from None


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
) -> None:
    """Give every parameter of `model`, built on the meta device, its tensor.

    One tensor after another is read, moved to `device`, cast to `dtype` (None: as it is stored) and assigned, so
    that memory holds the model and one tensor more. A tensor that needs neither stays mapped from its file.

    Args:
        model: parameter names are canonical names without `prefix`; parameters that are one object stay one.
        checkpoint: opened, or a folder.
        prefix: of the part of the checkpoint to take; what lies outside it is not looked at.
        ignore: tensors that may be there and are knowingly left out.

    Raises:
        WeightsError: tensors missing, left over, of another shape, or not floats; the message names them.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint.open(Path(checkpoint))
    wanted: dict[int, list[str]] = {}  # tied parameters: one tensor, several names
    for name, parameter in model.named_parameters(remove_duplicate=False):
        wanted.setdefault(id(parameter), []).append(name)
    parameters = dict(model.named_parameters())
    _compare(parameters, wanted, checkpoint, prefix, ignore)
    for name, tensor in _progress(parameters, lambda name: checkpoint.read(prefix + name)):
        old = parameters[name]
        new = nn.Parameter(tensor.to(device).to(dtype or tensor.dtype), requires_grad=old.requires_grad)
        for same in wanted[id(old)]:
            owner, _, leaf = same.rpartition(".")
            setattr(model.get_submodule(owner), leaf, new)


def _compare(
    parameters: Mapping[str, nn.Parameter],
    wanted: Mapping[int, list[str]],
    checkpoint: Checkpoint,
    prefix: str,
    ignore: tuple[str, ...],
) -> None:
    """Raise one WeightsError for all that does not fit."""
    there = {name for name in checkpoint.stored if name.startswith(prefix)}
    known = {prefix + name for names in wanted.values() for name in names}
    missing = [prefix + name for name in parameters if prefix + name not in there]
    unexpected = sorted(there - known - set(ignore))
    misshapen, not_floats = [], []
    for name, parameter in parameters.items():
        full = prefix + name
        if full in there:
            found = checkpoint.shape(full)
            if found != tuple(parameter.shape):
                misshapen.append(f"{full} {list(found)}, expected {list(parameter.shape)}")
            elif checkpoint.dtype(full) is None:
                not_floats.append(full)
    trouble = [
        f"{len(names)} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
            ("not stored as fp32, fp16 or bf16", not_floats),
        )
        if names
    ]
    if trouble:
        raise WeightsError(
            f"The tensors of {checkpoint.folder} do not fit its config.json ({len(parameters)} expected). "
            f"{'; '.join(trouble)}. Check that config and weights belong together, and that adapters are merged."
        )


def _progress(
    parameters: Mapping[str, nn.Parameter], read: Callable[[str], torch.Tensor]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Read each tensor; a bar on stderr for someone who watches and has waited for a second."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        bar: Progress | None = None
        task, done = None, 0
        for name, parameter in parameters.items():
            yield name, read(name)
            done += parameter.numel()
            if bar is None and console.is_terminal and time.monotonic() - started > 1:
                bar = stack.enter_context(Progress(console=console, transient=True))
                task = bar.add_task("Loading weights", total=sum(p.numel() for p in parameters.values()))
            if bar is not None and task is not None:
                bar.update(task, completed=done)


def separate_head(checkpoint: Checkpoint) -> bool:
    """Whether the files hold a head that is not the embedding, whatever config.json says about tying.

    Some files say `tie_word_embeddings: true` and are not tied; tying them would ruin every answer.
    """
    if HEAD not in checkpoint.stored or EMBEDDING not in checkpoint.stored:
        return HEAD in checkpoint.stored
    return not torch.equal(checkpoint.read(HEAD), checkpoint.read(EMBEDDING))


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
    shards = _split({name: parameter.data for name, parameter in named}, max_shard_bytes)
    files = [SINGLE_FILE]
    if len(shards) > 1:
        files = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    for file, shard in zip(files, shards, strict=True):
        with replacing(folder / file) as temporary:
            save_file(_unshared(shard), temporary, metadata={"format": "pt"})
    if len(shards) > 1:
        sizes = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        where = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": sizes}, "weight_map": dict(sorted(where.items()))}
        write_json(folder / INDEX_FILE, index)
        files.append(INDEX_FILE)
    for old in [folder / INDEX_FILE, *folder.glob("model*.safetensors")]:
        if old.name not in files:
            old.unlink(missing_ok=True)


def _split(tensors: dict[str, torch.Tensor], max_bytes: int) -> list[dict[str, torch.Tensor]]:
    """Fill one shard after the other; a tensor larger than `max_bytes` has one for itself."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    room = max_bytes
    for name, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = max_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    return shards


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


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name in the same folder to write to; it becomes `path` in one step when all is written, or goes away."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
