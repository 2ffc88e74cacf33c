"""Read the tensors of safetensors files into a model, and write them.

The names on disk are the model's parameter names. Files with transformers 5's names (`model.language_model.*`,
`lm_head.weight`) and files of only the encoder (`conv1.weight`) are read too, but not written.
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
PATTERNS = ("*.safetensors", INDEX_FILE, CONFIG_FILE, "generation_config.json")  # files to download from the hub
ENCODER = "audio_tower."
HEAD = "language_model.lm_head.weight"
EMBEDDING = "language_model.model.embed_tokens.weight"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
KINDS = {"U8": torch.uint8, "I8": torch.int8, **FLOATS}  # dtypes of this package's files, by safetensors' names
MAX_SHARD_BYTES = 5 * 10**9

_RENAMES = (  # names of other layouts -> our names; the first match applies
    (re.compile(r"^model\.(audio_tower|multi_modal_projector)\."), r"\1."),
    (re.compile(r"^(?:model\.)?language_model\.(?=(?:embed_tokens|layers|norm)\.)"), "language_model.model."),
    (re.compile(r"^lm_head\."), "language_model.lm_head."),
    (re.compile(r"^(?=(?:conv1|conv2|embed_positions|layers|layer_norm)\.)"), ENCODER),
)
T = TypeVar("T")
_NOT_WEIGHTS = re.compile(r"\.rotary_emb\.inv_freq$")  # stored by very old files; computed here


def canonical(name: str) -> str:
    """The parameter name, which the official files use too, of a tensor's name in any known layout."""
    for pattern, replacement in _RENAMES:
        if pattern.search(name):
            return pattern.sub(replacement, name)
    return name


@dataclass
class Checkpoint:
    """The tensors of a folder by canonical name. A file is mapped into memory; `read` reads one tensor of it."""

    folder: Path
    stored: dict[str, tuple[str, str]]  # canonical name -> (file, name in the file)
    _files: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Find the weights of `folder`. Raises WeightsError for no weights, a missing shard or an invalid index."""
        checkpoint = cls(folder, {})
        if (folder / SINGLE_FILE).is_file():  # before the index: transformers leaves an old index beside it
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
        """The dtype of a float of 16 bits or more; None for any other tensor, such as a quantised one."""
        return FLOATS.get(self.kind(name))

    def kind(self, name: str) -> str:
        """safetensors' name of the dtype: "F32", "U8", ..."""
        return str(self._slice(name).get_dtype())

    def read(self, name: str) -> torch.Tensor:
        """The tensor on the CPU, backed by the mapped file; writing to it does not change the file."""
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
            message = f"{path} is a Git LFS pointer, not the weights; run 'git lfs pull' in {path.parent}."
        else:
            message = f"{path} is not a whole safetensors file ({_truncation(path) or error}); fetch it again."
        raise WeightsError(message) from None


def _truncation(path: Path) -> str:
    """The file's size beside the size that its header announces; "" when they are equal or the header is invalid."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entries = json.loads(file.read(min(length, path.stat().st_size)))
        promised = 8 + length + max(entry["data_offsets"][1] for key, entry in entries.items() if key != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    actual = path.stat().st_size
    return "" if actual == promised else f"{actual:,} bytes, where its header promises {promised:,}"


def _is_lfs_pointer(path: Path) -> bool:
    mark = b"version https://git-lfs"
    try:
        with path.open("rb") as file:
            return file.read(len(mark)) == mark
    except OSError:
        return False


def _read_index(path: Path) -> dict[str, str]:
    """The index's weight_map: tensor name -> file name."""
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        valid = all(isinstance(file, str) and file == Path(file).name for file in weight_map.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
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
    """Load the tensors of `checkpoint` into the parameters of `model`, which was built on the meta device.

    Tensors are read, moved to `device`, cast to `dtype` (None: as stored) and assigned one after another, so that
    memory holds the model and one more tensor. A tensor that is neither moved nor cast stays mapped from its file.

    Args:
        model: its parameter names are canonical names without `prefix`. Tied parameters stay tied.
        checkpoint: an open one, or its folder.
        prefix: load only the tensors whose names begin with this.
        ignore: names of tensors that may be in the checkpoint and are not loaded.
        share: called with a parameter's name and its tensor; returns this process's shard. None: the full tensor.

    Raises:
        WeightsError: tensors are missing, unexpected, of another shape, or not floats; the message names them.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint.open(Path(checkpoint))
    names_of: dict[int, list[str]] = {}  # by id(parameter); a tied parameter has several names
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names_of.setdefault(id(parameter), []).append(name)
    parameters = dict(model.named_parameters())
    tied = [name for names in names_of.values() for name in names]
    check_tensors(checkpoint, parameters, prefix=prefix, optional=tied, ignore=ignore)
    for name, tensor in with_progress(parameters, lambda name: checkpoint.read(prefix + name)):
        old = parameters[name]
        tensor = tensor if share is None else share(name, tensor)
        new = nn.Parameter(tensor.to(device).to(dtype or tensor.dtype), requires_grad=old.requires_grad)
        for tied_name in names_of[id(old)]:
            owner, _, leaf = tied_name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, new)


def check_tensors(
    checkpoint: Checkpoint,
    expected: Mapping[str, torch.Tensor],
    *,
    prefix: str = "",
    optional: Iterable[str] = (),
    ignore: Iterable[str] = (),
    exact: bool = False,
) -> None:
    """Raise one WeightsError that names every tensor that is missing, unexpected, or of another shape or dtype.

    Args:
        expected: tensors by name, without `prefix`; only their shapes and, with `exact`, their dtypes are used.
        optional: names, without `prefix`, that the checkpoint may have too.
        ignore: full names of tensors that the checkpoint may have too.
        exact: require the dtype of the expected tensor. Otherwise any float of 16 bits or more is accepted.
    """
    stored = {name for name in checkpoint.stored if name.startswith(prefix)}
    allowed = {prefix + name for name in (*expected, *optional)}
    missing = [prefix + name for name in expected if prefix + name not in stored]
    unexpected = sorted(stored - allowed - set(ignore))
    misshapen, other_dtype = [], []
    for name, tensor in expected.items():
        full_name = prefix + name
        if full_name in stored:
            shape = checkpoint.shape(full_name)
            if shape != tuple(tensor.shape):
                misshapen.append(f"{full_name} {list(shape)}, expected {list(tensor.shape)}")
            elif exact and KINDS.get(checkpoint.kind(full_name)) != tensor.dtype:
                other_dtype.append(f"{full_name} {checkpoint.kind(full_name)}, expected {str(tensor.dtype)[6:]}")
            elif not exact and checkpoint.dtype(full_name) is None:
                other_dtype.append(full_name)
    problems = [
        f"{len(names)} {problem}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for problem, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
            ("of another dtype" if exact else "not stored as fp32, fp16 or bf16", other_dtype),
        )
        if names
    ]
    if problems:
        raise WeightsError(
            f"The tensors of {checkpoint.folder} do not fit its config.json ({len(expected)} expected). "
            f"{'; '.join(problems)}. Check that config and weights belong together, and that adapters are merged."
        )


def with_progress(
    tensors: Mapping[str, torch.Tensor], read: Callable[[str], T], title: str = "Loading weights"
) -> Iterator[tuple[str, T]]:
    """Yield `(name, read(name))` for each tensor. After 1 s, show a progress bar if stderr is a terminal."""
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
                task = bar.add_task(title, total=sum(t.numel() for t in tensors.values()))
            if bar is not None and task is not None:
                bar.update(task, completed=done)


def separate_head(checkpoint: Checkpoint) -> bool:
    """Whether the files hold a head that differs from the embedding; config.json is not read.

    Some checkpoints say `tie_word_embeddings: true` although their head differs; tying it would ruin every answer.
    """
    if HEAD not in checkpoint.stored or EMBEDDING not in checkpoint.stored:
        return HEAD in checkpoint.stored
    return not torch.equal(checkpoint.read(HEAD), checkpoint.read(EMBEDDING))


def untie(config: Qwen2AudioConfig, checkpoint: Checkpoint) -> None:
    """If the head in the files differs from the embedding, set `config` to untied and log a warning."""
    if config.tied and separate_head(checkpoint):
        logger.warning("%s says that head and embedding are tied, but holds both: left untied.", checkpoint.folder)
        config.tie_word_embeddings = config.text_config.tie_word_embeddings = False


def save_tensors(
    tensors: Mapping[str, torch.Tensor], folder: str | Path, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write a model's `tensors` to `folder`, which may hold other files, under their own names.

    More than `max_shard_bytes` in total go to several files with an index. Every file is first written under a
    temporary name, so that a crash leaves no incomplete file; old weights in the folder are removed last. A tied head
    is written too: the reference never ties this model and would start from a random head.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards = split_into_shards({name: tensor.detach() for name, tensor in tensors.items()}, max_shard_bytes)
    for file, shard in shards.items():
        with replacing(folder / file) as temporary:
            save_file(_unshared(shard), temporary, metadata={"format": "pt"})
    write_index(folder, shards)


def save_checkpoint(model: nn.Module, folder: str | Path, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """`save_tensors` of the parameters of `model`, a tied one by each of its names."""
    save_tensors(dict(model.named_parameters(remove_duplicate=False)), folder, max_shard_bytes)


def split_into_shards(tensors: Mapping[str, torch.Tensor], max_bytes: int) -> dict[str, dict[str, torch.Tensor]]:
    """File name -> tensors. Shards are filled in order; a tensor larger than `max_bytes` gets a shard of its own."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    free = max_bytes
    for name, tensor in tensors.items():
        if tensor.nbytes > free and shards[-1]:
            shards.append({})
            free = max_bytes
        shards[-1][name] = tensor
        free -= tensor.nbytes
    if len(shards) == 1:
        return {SINGLE_FILE: shards[0]}
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": shard for i, shard in enumerate(shards, 1)}


def write_index(folder: Path, shards: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
    """Write the index if there are several shards, and remove the weights of an older checkpoint from `folder`."""
    files = [*shards]
    if len(shards) > 1:
        total = sum(tensor.nbytes for shard in shards.values() for tensor in shard.values())
        weight_map = {name: file for file, shard in shards.items() for name in shard}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        write_json(folder / INDEX_FILE, index)
        files.append(INDEX_FILE)
    for old in [folder / INDEX_FILE, *folder.glob("model*.safetensors")]:
        if old.name not in files:
            old.unlink(missing_ok=True)


def _unshared(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors on the CPU, contiguous, each in memory of its own: safetensors refuses shared memory."""
    out: dict[str, torch.Tensor] = {}
    pointers: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.cpu().contiguous()
        if tensor.data_ptr() in pointers:
            tensor = tensor.clone()
        pointers.add(tensor.data_ptr())
        out[name] = tensor
    return out
