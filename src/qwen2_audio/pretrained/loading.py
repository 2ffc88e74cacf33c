"""Loading and saving: the mixin of the public classes."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from ..checkpoint import weights
from ..checkpoint.config import CONFIG_FILE, Config, Qwen2AudioConfig
from ..checkpoint.json_file import write_json
from ..distributed.process_group import Processes
from ..distributed.tensor_parallel import WeightShards, join_tensor_parallel
from ..errors import CapacityError, ConfigError, WeightsError, refuse_unknown
from ..generate.config import GENERATION_CONFIG_FILE, GenerationConfig
from ..model import qwen2_audio
from ..model.attention import check_implementation
from ..model.initialize import without_weights
from ..native.install import accelerate
from ..quantize import checkpoint as quantized
from ..quantize.linear import refuse_cast
from ..quantize.scheme import KEY as QUANTIZED
from ..quantize.scheme import Scheme, check_name, untied
from .options import check_quantized_dtype, parse_device, parse_dtype, parse_size, stored_dtype, stored_scheme
from .source import Source

OPTIONS = (
    "config", "state_dict", "dtype", "torch_dtype", "device_map", "attn_implementation", "trust_remote_code",
    "revision", "local_files_only", "token", "cache_dir", "force_download", "subfolder", "use_safetensors",
    "weights_only", "output_loading_info", "quantize", "kv_cache", "encoder_mask", "tensor_parallel",
    "low_cpu_mem_usage",
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
        pretrained_model_name_or_path: str | Path | None = None,
        *,
        config: Config | str | Path | None = None,
        state_dict: Mapping[str, torch.Tensor] | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        attn_implementation: str | dict[str, str] | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        subfolder: str = "",
        use_safetensors: bool | None = None,
        weights_only: bool = True,
        output_loading_info: bool = False,
        quantize: str | None = None,
        kv_cache: str | None = None,
        encoder_mask: bool = True,
        tensor_parallel: bool = False,
        low_cpu_mem_usage: bool | None = None,
        **changes: Any,
    ) -> Self:
        """Load a checkpoint, in eval mode.

        Args:
            pretrained_model_name_or_path: a folder, or `owner/name` on the hub. None: `config` and `state_dict` hold
                all of it.
            config: replaces the checkpoint's config.json; it is copied. Or the folder or hub name of another one.
            state_dict: the tensors, in place of the checkpoint's files, by any of the names that files may have. {}:
                initial, random weights.
            dtype: of the weights: float32, float16, bfloat16 or "auto". None and "auto": the dtype that config.json
                names, else that of the first tensor. A quantised model computes in float32 and accepts no other.
            torch_dtype: older name of `dtype`.
            device_map: "cpu", "cuda", "cuda:1", an index, a torch.device, {"": device}, or "auto" (the GPU if there
                is one). None: the CPU.
            attn_implementation: "sdpa" (default), "eager" or "flash_attention_2", or a dict with one for each part:
                {"text_config": "sdpa", "audio_config": "eager"}.
            trust_remote_code: accepted, as the reference's examples pass it, and ignored: no code is downloaded.
            revision: branch, tag or commit of the hub's repository.
            local_files_only: use only local files and the hub's cache.
            token: of an account on the hub; None: HF_TOKEN, or the one of `hf auth login`.
            cache_dir: where downloads are kept; None: the hub's own cache.
            force_download: download again what is in the cache.
            subfolder: the checkpoint's folder in the folder or repository.
            use_safetensors: True changes nothing; False is refused, as only safetensors are read.
            weights_only: accepted and ignored, as safetensors hold nothing but weights.
            output_loading_info: return (model, info) with the reference's four keys; {} as state_dict is all that can
                leave keys missing, since any other misfit is a WeightsError.
            quantize: "int8" or "int4" quantises a plain checkpoint while it is loaded, one tensor at a time. For a
                folder that `qwen2-audio quantize` wrote, leave it out or give the folder's scheme.
            kv_cache: the storage of keys and values of a float32 model on the CPU: "float32", "float16" or "int8".
                None: float16 for a quantised model, else the model's dtype.
            encoder_mask: False lets the encoder attend to padding, as some other runtimes do.
            tensor_parallel: divide the language model among the processes of torchrun; each loads its shard of the
                weights and uses a GPU of its own. All processes must then run the same program. For inference with
                plain weights only.
            low_cpu_mem_usage: accepted and ignored: memory always holds the model and one more tensor.
            changes: keys of the config to change, such as `output_hidden_states=True`.

        Raises:
            WeightsError: the checkpoint is missing, incomplete or does not match its config.
            ConfigError: the config or an option cannot work.
            CapacityError: the device has too little memory for the model.
        """
        name = _older_name(pretrained_model_name_or_path, changes)
        keys = cls.config_class.key_names()
        refuse_unknown(changes, keys, ConfigError, "from_pretrained() has no option", near=OPTIONS)
        if quantize is not None:
            check_name(quantize)
        if attn_implementation is not None:
            check_implementations(attn_implementation)
        if use_safetensors is False:
            raise ConfigError("use_safetensors is False; only safetensors are read, as pickled weights can run code.")
        requested_dtype, device = parse_dtype(dtype, torch_dtype), parse_device(device_map)
        check_quantized_dtype(quantize, requested_dtype)
        where: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only, "token": token}
        where |= {"cache_dir": cache_dir, "force_download": force_download, "subfolder": subfolder}
        source = Source.find(name, state_dict, config is not None, where)
        config = cls._config(source, config, where, changes)
        if attn_implementation is not None:
            config._attn_implementation = attn_implementation  # type: ignore[assignment]
        scheme = stored_scheme(source.title, config, quantize, requested_dtype)
        processes = cls._processes(scheme or quantize, kv_cache, device) if tensor_parallel else None
        device = processes.device if processes is not None else device
        model = cls._load(source, config, requested_dtype, device, scheme or quantize, processes)
        if device.type == "cpu":
            accelerate(model, kv_cache)
        elif kv_cache is not None:
            raise ConfigError(f"kv_cache is {kv_cache!r}, which is for models on the CPU; leave it out on {device}.")
        if isinstance(model, qwen2_audio.Qwen2AudioModel):
            model.encoder_mask = encoder_mask
        elif not encoder_mask:
            raise ConfigError("encoder_mask belongs to the whole model; the encoder alone takes attention_mask.")
        if output_loading_info:
            return model, source.loading_info(model)  # type: ignore[return-value]
        return model

    @classmethod
    def _config(
        cls, source: Source, config: Config | str | Path | None, where: dict[str, Any], changes: dict[str, Any]
    ) -> Config:
        own: Config
        if config is None:
            assert source.folder is not None
            own = cls.config_class.from_pretrained(source.folder)
        elif isinstance(config, str | Path):
            own = cls.config_class.from_pretrained(config, **where)
        elif isinstance(config, cls.config_class):
            own = copy.deepcopy(config)
        else:
            raise ConfigError(f"config is a {type(config).__name__}; expected a {cls.config_class.__name__}.")
        own.change(changes)
        return own

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
        source: Source,
        config: Config,
        dtype: torch.dtype | None,
        device: torch.device,
        quantize: Scheme | str | None,
        processes: Processes | None = None,
    ) -> Self:
        """`quantize`: the scheme of the stored checkpoint, or the name of a scheme to quantise to; None: plain."""
        if source.initial:
            return cls._from_config(config, dtype=dtype).to(device).eval()
        checkpoint = source.open()
        if isinstance(config, Qwen2AudioConfig) and not isinstance(quantize, Scheme):
            weights.untie(config, checkpoint)
        if dtype is None:
            dtype = torch.float32 if quantize else stored_dtype(config, checkpoint)
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
        if source.folder is not None and (source.folder / GENERATION_CONFIG_FILE).is_file():
            model.generation_config = GenerationConfig.from_pretrained(source.folder)
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

    @classmethod
    def _from_config(cls, config: Config, **options: Any) -> Self:
        """A model with initial, random weights. Options: `dtype` (or `torch_dtype`) and `attn_implementation`.

        Raises ConfigError for an unknown option or an invalid value.
        """
        known = ("dtype", "torch_dtype", "attn_implementation")
        refuse_unknown(options, known, ConfigError, "_from_config() has no option")
        dtype = parse_dtype(options.get("dtype"), options.get("torch_dtype"))
        if options.get("attn_implementation") is not None:
            check_implementations(options["attn_implementation"])
            config._attn_implementation = options["attn_implementation"]
        return cls(config).to(dtype)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        max_shard_size: int | str = "5GB",
        safe_serialization: bool = True,
        state_dict: Mapping[str, torch.Tensor] | None = None,
        is_main_process: bool = True,
        push_to_hub: bool = False,
    ) -> None:
        """Write config.json, the weights in files of at most `max_shard_size`, and generation_config.json.

        transformers can load the files too, unless they are quantised.

        Args:
            save_directory: created if it does not exist.
            max_shard_size: bytes, or text such as "500MB".
            safe_serialization: True, as in the reference; False is refused, as only safetensors are written.
            state_dict: the tensors to write in place of the model's own, with its names and shapes: what FSDP gathered.
            is_main_process: False writes nothing.
            push_to_hub: refused; upload the folder with `hf upload`.

        Raises:
            WeightsError: other tensors than the config describes, such as an adapter's.
            ConfigError: an option that cannot work.
        """
        if not safe_serialization or push_to_hub:
            option, instead = (
                ("push_to_hub=True", "save to a folder and upload it with `hf upload`")
                if push_to_hub
                else ("safe_serialization=False", "safetensors are the only files that are written")
            )
            raise ConfigError(f"{option} is not offered; {instead}.")
        if not is_main_process:
            return
        folder, limit = Path(save_directory), parse_size(max_shard_size)
        if quantized.is_quantized(self):
            with without_weights():
                blank = type(self)(copy.deepcopy(self.config))
            Scheme.from_config(getattr(self.config, QUANTIZED, None), "The model").install(blank, self.part)
            quantized.save_quantized(self, blank, folder, limit)
        else:
            tensors = dict(self.named_parameters(remove_duplicate=False)) if state_dict is None else state_dict
            self._refuse_other_tensors(tensors)
            weights.save_tensors(tensors, folder, limit)
        write_json(folder / CONFIG_FILE, self._config_json())
        if self.generation_config is not None:
            write_json(folder / GENERATION_CONFIG_FILE, self.generation_config.to_dict())

    def _refuse_other_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        with without_weights():
            blank = type(self)(copy.deepcopy(self.config))
        expected = {name: p.shape for name, p in blank.named_parameters(remove_duplicate=False)}
        actual = {name: tensor.shape for name, tensor in tensors.items() if tensor.is_floating_point()}
        if expected != actual:
            name = sorted(set(actual.items()) ^ set(expected.items()))[0][0]
            raise WeightsError(
                f"This model is not as its config builds it (look at {name}); merge adapters and save before "
                "quantising."
            )

    def _config_json(self) -> dict[str, Any]:
        dtype = str(next(self.parameters()).dtype).removeprefix("torch.")
        return self.config.to_checkpoint_dict(type(self).__name__, dtype)  # type: ignore[no-any-return]

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """What `half()`, `to()` and `cuda()` call. Raises ConfigError for another dtype of a quantised model."""
        if quantized.is_quantized(self):
            refuse_cast(fn)
        return super()._apply(fn, recurse)  # type: ignore[no-any-return]


def check_implementations(names: str | dict[str, str]) -> None:
    """Raise ConfigError for a name, or one of several, that this machine cannot run."""
    for name in names.values() if isinstance(names, dict) else (names,):
        check_implementation(name)


def _older_name(name: str | Path | None, options: dict[str, Any]) -> str | Path | None:
    """`name`, or the `name_or_path` of `options`, which it was called until 0.2."""
    if "name_or_path" not in options:
        return name
    warnings.warn("name_or_path= is now pretrained_model_name_or_path=.", FutureWarning, stacklevel=3)
    return options.pop("name_or_path")  # type: ignore[no-any-return]
