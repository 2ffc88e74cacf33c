"""The public model classes: the network with `from_pretrained`, `save_pretrained` and `generate`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from .checkpoint import hub, weights
from .checkpoint.config import CONFIG_FILE, Config, Qwen2AudioConfig, Qwen2AudioEncoderConfig
from .checkpoint.json_file import write_json
from .distributed.process_group import Processes
from .distributed.tensor_parallel import WeightShards, join_tensor_parallel
from .errors import CapacityError, ConfigError, WeightsError, refuse_unknown
from .generate.config import GENERATION_CONFIG_FILE, GenerationConfig
from .model import encoder, qwen2_audio
from .model.attention import check_implementation
from .model.initialize import initialize, without_weights
from .native.install import accelerate
from .quantize import checkpoint as quantized
from .quantize.scheme import KEY as QUANTIZED
from .quantize.scheme import Scheme, check_name, untied

DTYPES = {
    "float32": torch.float32, "fp32": torch.float32,
    "float16": torch.float16, "fp16": torch.float16,
    "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
}  # fmt: skip
SIZE_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
OPTIONS = (
    "config", "dtype", "torch_dtype", "device_map", "attn_implementation", "trust_remote_code", "revision",
    "local_files_only", "quantize", "kv_cache", "encoder_mask", "tensor_parallel", "low_cpu_mem_usage",
)  # fmt: skip


class Pretrained(nn.Module):
    """Mixin with loading and saving; it comes before the network's class among the bases."""

    config_class: ClassVar[type[Config]] = Qwen2AudioConfig
    part: ClassVar[str] = ""  # prefix of this class's tensors in a checkpoint
    ignored: ClassVar[tuple[str, ...]] = ()  # tensors of a checkpoint that this class does not load
    config: Any
    generation_config: GenerationConfig | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        config: Config | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        attn_implementation: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        quantize: str | None = None,
        kv_cache: str | None = None,
        encoder_mask: bool = True,
        tensor_parallel: bool = False,
        low_cpu_mem_usage: bool | None = None,
        **unknown: Any,
    ) -> Self:
        """Load a checkpoint, in eval mode.

        Args:
            name_or_path: a folder, or `owner/name` on the hub.
            config: replaces the checkpoint's config.json; it is copied.
            dtype: of the weights: float32, float16, bfloat16 or "auto". None and "auto": the dtype that config.json
                names, else that of the first tensor. A quantised model computes in float32 and accepts no other.
            torch_dtype: older name of `dtype`.
            device_map: "cpu", "cuda", "cuda:1", an index, a torch.device, {"": device}, or "auto" (the GPU if there
                is one). None: the CPU.
            attn_implementation: "sdpa" (default), "eager" or "flash_attention_2".
            trust_remote_code: accepted, as the reference's examples pass it, and ignored: no code is downloaded.
            revision: branch, tag or commit of the hub's repository.
            local_files_only: use only local files and the hub's cache.
            quantize: "int8" or "int4" quantises a plain checkpoint while it is loaded, one tensor at a time. For a
                folder that `qwen2-audio quantize` wrote, leave it out or give the folder's scheme.
            kv_cache: the storage of keys and values of a float32 model on the CPU: "float32", "float16" or "int8".
                None: float16 for a quantised model, else the model's dtype.
            encoder_mask: False lets the encoder attend to padding, as some other runtimes do.
            tensor_parallel: divide the language model among the processes of torchrun; each loads its shard of the
                weights and uses a GPU of its own. All processes must then run the same program. For inference with
                plain weights only.
            low_cpu_mem_usage: accepted and ignored: memory always holds the model and one more tensor.

        Raises:
            WeightsError: the checkpoint is missing, incomplete or does not match its config.
            ConfigError: the config or an option cannot work.
            CapacityError: the device has too little memory for the model.
        """
        refuse_unknown(unknown, OPTIONS, ConfigError, "from_pretrained() has no option")
        if quantize is not None:
            check_name(quantize)
        if attn_implementation is not None:
            check_implementation(attn_implementation)
        requested_dtype, device = parse_dtype(dtype, torch_dtype), parse_device(device_map)
        check_quantized_dtype(quantize, requested_dtype)
        folder = hub.resolve(name_or_path, weights.PATTERNS, revision=revision, local_files_only=local_files_only)
        config = cls._config(folder, config)
        if attn_implementation is not None:
            config._attn_implementation = attn_implementation
        scheme = stored_scheme(folder, config, quantize, requested_dtype)
        processes = cls._processes(scheme or quantize, kv_cache, device) if tensor_parallel else None
        device = processes.device if processes is not None else device
        model = cls._load(folder, config, requested_dtype, device, scheme or quantize, processes)
        if device.type == "cpu":
            accelerate(model, kv_cache)
        elif kv_cache is not None:
            raise ConfigError(f"kv_cache is {kv_cache!r}, which is for models on the CPU; leave it out on {device}.")
        if isinstance(model, qwen2_audio.Qwen2AudioModel):
            model.encoder_mask = encoder_mask
        elif not encoder_mask:
            raise ConfigError("encoder_mask belongs to the whole model; the encoder alone takes attention_mask.")
        return model

    @classmethod
    def _config(cls, folder: Path, config: Config | None) -> Config:
        if config is None:
            return cls.config_class.from_pretrained(folder)
        if not isinstance(config, cls.config_class):
            raise ConfigError(f"config is a {type(config).__name__}; expected a {cls.config_class.__name__}.")
        return copy.deepcopy(config)

    @classmethod
    def _processes(cls, quantize: Scheme | str | None, kv_cache: str | None, device: torch.device) -> Processes:
        if not issubclass(cls, qwen2_audio.Qwen2AudioModel):
            raise ConfigError("tensor_parallel divides the language model, and the encoder has none; leave it out.")
        if quantize is not None or kv_cache is not None:
            raise ConfigError(
                "tensor_parallel takes plain weights, neither quantised ones nor a kv_cache of another kind; load the "
                "plain checkpoint, or leave tensor_parallel out."
            )
        return join_tensor_parallel(device)

    @classmethod
    def _load(
        cls,
        folder: Path,
        config: Config,
        dtype: torch.dtype | None,
        device: torch.device,
        quantize: Scheme | str | None,
        processes: Processes | None = None,
    ) -> Self:
        """`quantize`: the scheme of the stored checkpoint, or the name of a scheme to quantise to; None: plain."""
        checkpoint = weights.Checkpoint.open(folder)
        if isinstance(config, Qwen2AudioConfig) and not isinstance(quantize, Scheme):
            weights.untie(config, checkpoint)
        if dtype is None:
            dtype = torch.float32 if quantize else _stored_dtype(config, checkpoint)
        with without_weights():
            model = cls(config)
        try:
            if processes is not None:
                model._load_shard(checkpoint, dtype, processes)
            elif quantize is None:
                weights.load_checkpoint(model, checkpoint, dtype, device, prefix=cls.part, ignore=cls.ignored)
            else:
                model._load_quantized(checkpoint, quantize, device)
        except (torch.OutOfMemoryError, MemoryError):
            size = sum(p.numel() for p in model.parameters()) * (dtype or torch.float32).itemsize / 1e9
            raise CapacityError(
                f"{device} has no room for a model of {size:.1f} GB in {dtype}; use a smaller dtype or another device."
            ) from None
        if (folder / GENERATION_CONFIG_FILE).is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
        return model.eval()

    def _load_shard(self, checkpoint: weights.Checkpoint, dtype: torch.dtype | None, processes: Processes) -> None:
        assert isinstance(self, qwen2_audio.Qwen2AudioModel)
        if any(other != (dtype, self.config) for other in processes.gather((dtype, self.config))):
            raise ConfigError(
                "The processes would not load one model: they see different checkpoints, or chose different dtypes for "
                "want of memory; show them the same folder, and name a dtype."
            )
        shards = WeightShards.for_model(self, processes)
        weights.load_checkpoint(
            self, checkpoint, dtype, processes.device, prefix=self.part, ignore=self.ignored, share=shards.shard
        )
        shards.install(self)

    def _load_quantized(self, checkpoint: weights.Checkpoint, quantize: Scheme | str, device: torch.device) -> None:
        source = quantized.Source(checkpoint, self.part, self.ignored)
        if isinstance(quantize, Scheme):
            quantized.load_quantized(self, source, quantize, device)
        else:
            scheme = Scheme.for_model(self, quantize, prefix=self.part)
            quantized.quantize_while_loading(self, source, scheme, device)
            setattr(self.config, QUANTIZED, scheme.to_config())
        if isinstance(self.config, Qwen2AudioConfig):
            untied(self.config)

    def save_pretrained(self, folder: str | Path, *, max_shard_size: int | str = "5GB") -> None:
        """Write config.json, the weights in files of at most `max_shard_size`, and generation_config.json.

        transformers can load the files too, unless they are quantised.

        Args:
            folder: created if it does not exist.
            max_shard_size: bytes, or text such as "500MB".

        Raises:
            WeightsError: the model has other tensors than its config describes, such as an adapter's.
            ConfigError: an invalid `max_shard_size`.
        """
        folder = Path(folder)
        limit = parse_size(max_shard_size)
        if quantized.is_quantized(self):
            with without_weights():
                blank = type(self)(copy.deepcopy(self.config))
            Scheme.from_config(getattr(self.config, QUANTIZED, None), "The model").install(blank, self.part)
            quantized.save_quantized(self, blank, folder, limit)
        else:
            self._refuse_other_tensors()
            weights.save_checkpoint(self, folder, limit)
        write_json(folder / CONFIG_FILE, self._config_json())
        if self.generation_config is not None:
            write_json(folder / GENERATION_CONFIG_FILE, self.generation_config.to_dict())

    def _refuse_other_tensors(self) -> None:
        with without_weights():
            expected = {name: p.shape for name, p in type(self)(copy.deepcopy(self.config)).named_parameters()}
        actual = {name: p.shape for name, p in self.named_parameters() if p.is_floating_point()}
        if expected != actual:
            name = sorted(set(actual.items()) ^ set(expected.items()))[0][0]
            raise WeightsError(
                f"This model is not as its config builds it (look at {name}); merge adapters and save before "
                "quantising."
            )

    def _config_json(self) -> dict[str, Any]:
        dtype = str(next(self.parameters()).dtype).removeprefix("torch.")
        return self.config.to_checkpoint_dict(type(self).__name__, dtype)  # type: ignore[no-any-return]


class Qwen2AudioEncoder(Pretrained, encoder.Qwen2AudioEncoder):
    """The audio encoder, from its own checkpoint or from that of a complete model."""

    config_class = Qwen2AudioEncoderConfig
    part = weights.ENCODER

    def __init__(self, config: Qwen2AudioEncoderConfig) -> None:
        super().__init__(config)
        named = nn.ModuleDict({"audio_tower": self})
        initialize(named, Qwen2AudioConfig(audio_config=config))

    @property
    def device(self) -> torch.device:
        return self.conv1.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.conv1.weight.dtype


class Qwen2AudioModel(Pretrained, qwen2_audio.Qwen2AudioModel):
    """The model without its head."""

    ignored = (weights.HEAD,)


class Qwen2AudioForConditionalGeneration(Pretrained, qwen2_audio.Qwen2AudioForConditionalGeneration):
    """The complete model. `generation_config` holds the checkpoint's settings for `generate`."""

    generation_config: GenerationConfig

    def __init__(self, config: Qwen2AudioConfig) -> None:
        super().__init__(config)
        text = config.text_config
        self.generation_config = GenerationConfig(
            bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
        )

    def generate(self, *args: Any, **options: Any) -> Any:
        """Generate token ids from prompts; the arguments are those of `qwen2_audio.generate.generate.generate`."""
        from .generate.generate import generate

        return generate(self, *args, **options)


def parse_dtype(dtype: torch.dtype | str | None, torch_dtype: torch.dtype | str | None = None) -> torch.dtype | None:
    """torch.float32, float16 or bfloat16, from `dtype` or its older name; None for "auto" and None.

    Raises ConfigError for any other value, and when both are given and differ.
    """
    if dtype is not None and torch_dtype is not None and parse_dtype(dtype) != parse_dtype(torch_dtype):
        raise ConfigError(f"dtype is {dtype} and torch_dtype, its older name, is {torch_dtype}; give one.")
    value = dtype if dtype is not None else torch_dtype
    if value is None or value == "auto":
        return None
    parsed = DTYPES.get(str(value).removeprefix("torch."))
    if parsed is None:
        raise ConfigError(f"dtype is {value!r}; expected 'auto', 'float32', 'float16' or 'bfloat16'.")
    return parsed


def check_quantized_dtype(scheme: str | None, dtype: torch.dtype | None) -> None:
    """Raise ConfigError for a dtype other than float32, the only one that a quantised model computes in."""
    if scheme is not None and dtype not in (None, torch.float32):
        raise ConfigError(
            f"dtype is {str(dtype).removeprefix('torch.')} for a model quantised to {scheme}, which computes in "
            "float32; leave dtype out, or load the plain checkpoint without quantize."
        )


def parse_device(device_map: Any, option: str = "device_map") -> torch.device:
    """The device that `device_map` names; `option` is its name in messages.

    Raises ConfigError for a map of several devices, and for a device that is not there.
    """
    if isinstance(device_map, dict) and set(device_map) == {""}:
        device_map = device_map[""]
    gpus = torch.cuda.device_count()
    if device_map is None:
        return torch.device("cpu")
    if device_map == "auto":
        return torch.device("cuda" if gpus else "cpu")
    try:
        valid = isinstance(device_map, (str, int, torch.device)) and not isinstance(device_map, bool)
        device = torch.device(f"cuda:{device_map}" if isinstance(device_map, int) else device_map) if valid else None
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"{option} is {device_map!r}; expected None, 'auto', 'cpu', 'cuda', 'cuda:1', an index, a torch.device "
            "or {'': device}. A model lies on one device."
        )
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise ConfigError(f"{option} asks for {device}, but {gpus} CUDA devices are visible; use 'cpu' or 'auto'.")
    return device


def parse_size(size: int | str) -> int:
    """Bytes from a number, or from text such as "5GB" or "500MiB". Raises ConfigError for anything else."""
    text = str(size).strip().upper()
    unit = next((unit for unit in SIZE_UNITS if text.endswith(unit)), "")
    number = text.removesuffix(unit).strip()
    if not number.isdecimal() or int(number) < 1:
        raise ConfigError(f"max_shard_size is {size!r}; expected a number of bytes, or text such as '5GB' or '500MB'.")
    return int(number) * SIZE_UNITS.get(unit, 1)


def _stored_dtype(config: Config, checkpoint: weights.Checkpoint) -> torch.dtype | None:
    for key in ("dtype", "torch_dtype"):
        name = getattr(config, key, None)
        if name is not None:
            return parse_dtype(name)
    return next((dtype for name in checkpoint.stored if (dtype := checkpoint.dtype(name)) is not None), None)


def stored_scheme(
    folder: str | Path, config: Config, quantize: str | None = None, dtype: torch.dtype | None = None
) -> Scheme | None:
    """The scheme of a quantised checkpoint with this config; None for a plain checkpoint.

    Raises WeightsError for a scheme that cannot be read, ConfigError if `quantize` or `dtype` contradict it.
    """
    stored = getattr(config, QUANTIZED, None)
    if not stored:
        return None
    scheme = Scheme.from_config(stored, folder)
    if quantize not in (None, scheme.name):
        raise ConfigError(
            f"{folder} is quantised to {scheme.name} already and cannot become {quantize}; leave quantize out, or take "
            "the checkpoint that it was made from."
        )
    check_quantized_dtype(scheme.name, dtype)
    return scheme
