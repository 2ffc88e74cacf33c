"""The configuration of a model, read from config.json.

The official files are sparse: a missing key takes the default below, which is the reference library's (transformers
5.23, `configuration_qwen2_audio.py` and `configuration_qwen2.py`). Unknown keys become attributes and are written back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from ..errors import ConfigError
from . import hub
from .json_file import read_json, write_json

CONFIG_FILE = "config.json"


@dataclass
class Config:
    """Base of the three configurations: reads, writes, resolves aliases, keeps unknown keys."""

    model_type: ClassVar[str] = ""
    aliases: ClassVar[dict[str, str]] = {}
    _attn_implementation = "sdpa"  # a property of the run, never written to the file

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build from the JSON object `data`. Raises ConfigError for another model_type or an invalid value."""
        data = dict(data)
        model_type = data.pop("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ConfigError(
                f"model_type is {model_type!r}; expected {cls.model_type!r}. "
                "This package loads Qwen2-Audio checkpoints only; check the path or name."
            )
        field_names = {f.name for f in fields(cls)}
        data = {cls.aliases.get(key, key): value for key, value in data.items()}
        config = cls(**{key: value for key, value in data.items() if key in field_names})
        for key, value in data.items():
            if key not in field_names and not key.startswith("_"):  # "_" marks a property of a run, as in to_dict
                setattr(config, key, value)
        return config

    def _check_values(self, part: str) -> None:
        """Raise ConfigError for a value whose type differs from its default's, or a size below 1.

        `part` is the name of this configuration in the message.
        """
        for item in fields(self):
            value, default = getattr(self, item.name), item.default
            if isinstance(default, bool):
                valid, expected = isinstance(value, bool), "true or false"
            elif isinstance(default, int) and default > 0:
                valid, expected = type(value) is int and value > 0, "a whole number above 0"
            elif isinstance(default, float):
                valid, expected = type(value) in (int, float), "a number"
            else:
                continue
            if not valid:
                raise ConfigError(f"{part}: {item.name} is {value!r}; expected {expected}. Fix config.json.")

    def to_dict(self) -> dict[str, Any]:
        """The JSON object: every field, unknown keys included, nested configurations as objects."""
        out: dict[str, Any] = {"model_type": self.model_type}
        for key, value in vars(self).items():
            if not key.startswith("_"):
                out[key] = value.to_dict() if isinstance(value, Config) else value
        return out

    def to_checkpoint_dict(self, architecture: str, dtype: str) -> dict[str, Any]:
        """`to_dict` for the config.json beside weights of class `architecture` in `dtype` ("float32", ...)."""
        data = self.to_dict() | {"architectures": [architecture], "torch_dtype": dtype}
        for part in (data, data.get("audio_config", {}), data.get("text_config", {})):
            part |= {key: dtype for key in ("dtype", "torch_dtype") if key in part}
        return data

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
    ) -> Self:
        """Read `config.json` of a folder or of a repository on the hub.

        `trust_remote_code` is accepted, as the reference's examples pass it, and does nothing: no code is downloaded.
        Raises ConfigError for a missing or invalid file, WeightsError when the repository cannot be reached.
        """
        folder = hub.resolve(name_or_path, [CONFIG_FILE], revision=revision, local_files_only=local_files_only)
        path = folder / CONFIG_FILE
        if not path.is_file():
            raise ConfigError(f"{folder} has no {CONFIG_FILE}; expected the folder of a Qwen2-Audio checkpoint.")
        return cls.from_dict(read_json(path, ConfigError))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` into `folder`, creating it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG_FILE, self.to_dict())


# An alias reads and writes its target: `config.hidden_size = 8` sets `config.d_model`.
def _alias(target: str) -> Any:
    return property(lambda self: getattr(self, target), lambda self, value: setattr(self, target, value))


@dataclass
class Qwen2AudioEncoderConfig(Config):
    """The audio encoder: Whisper-large-v3's shape. Defaults are those of the official checkpoints."""

    model_type: ClassVar[str] = "qwen2_audio_encoder"
    aliases: ClassVar[dict[str, str]] = {
        "num_hidden_layers": "encoder_layers",
        "num_attention_heads": "encoder_attention_heads",
        "intermediate_size": "encoder_ffn_dim",
        "hidden_size": "d_model",
    }

    num_mel_bins: int = 128
    encoder_layers: int = 32
    encoder_attention_heads: int = 20
    encoder_ffn_dim: int = 5120
    encoder_layerdrop: float = 0.0
    d_model: int = 1280
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    activation_function: str = "gelu"
    scale_embedding: bool = False  # not used in forward, as in the reference
    initializer_range: float = 0.02
    max_source_positions: int = 1500  # encoder frames of one window, which has twice as many mel frames

    num_hidden_layers = _alias("encoder_layers")
    num_attention_heads = _alias("encoder_attention_heads")
    intermediate_size = _alias("encoder_ffn_dim")
    hidden_size = _alias("d_model")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        if data.get("model_type") == Qwen2AudioConfig.model_type:  # the file of a complete model: take audio_config
            model_data, data = data, dict(data.get("audio_config") or {})
            if "quantization_config" in model_data:
                data["quantization_config"] = model_data["quantization_config"]
        return super().from_dict(data)

    def __post_init__(self) -> None:
        self._check_values("audio_config")
        if self.d_model % self.encoder_attention_heads:
            raise ConfigError(
                f"audio_config: d_model {self.d_model} is not a multiple of "
                f"encoder_attention_heads {self.encoder_attention_heads}; fix config.json."
            )
        if self.activation_function != "gelu":
            raise ConfigError(f"audio_config: activation_function is {self.activation_function!r}; expected 'gelu'.")


@dataclass
class Qwen2Config(Config):
    """The language model. Defaults are the reference library's, because the official file leaves them out."""

    model_type: ClassVar[str] = "qwen2"

    vocab_size: int = 151936
    hidden_size: int = 4096
    intermediate_size: int = 22016
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32  # null in the file means num_attention_heads
    head_dim: int = 0  # 0 or null means hidden_size // num_attention_heads
    hidden_act: str = "silu"
    max_position_embeddings: int = 32768
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    use_sliding_window: bool = False
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = False
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        data = dict(data)
        # transformers 5 writes rope_parameters; older files have rope_theta and rope_scaling.
        rope = data.pop("rope_parameters", None) or {}
        if "rope_theta" in rope:
            data.setdefault("rope_theta", rope["rope_theta"])
        scaling = data.get("rope_scaling") or rope
        rope_type = scaling.get("rope_type", scaling.get("type", "default"))
        if rope_type != "default":
            raise ConfigError(f"text_config: rope type is {rope_type!r}; expected 'default', as in every Qwen2-Audio.")
        return super().from_dict(data)

    def __post_init__(self) -> None:
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        self._check_values("text_config")
        if not self.head_dim:
            if self.hidden_size % self.num_attention_heads:
                raise ConfigError(
                    f"text_config: hidden_size {self.hidden_size} is not a multiple of "
                    f"num_attention_heads {self.num_attention_heads}; fix config.json."
                )
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"text_config: num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}; fix config.json."
            )
        if self.use_sliding_window:
            raise ConfigError("text_config: use_sliding_window is true; no Qwen2-Audio uses it and it is not built.")
        if self.hidden_act != "silu":
            raise ConfigError(f"text_config: hidden_act is {self.hidden_act!r}; expected 'silu'.")


@dataclass
class Qwen2AudioConfig(Config):
    """The complete model: encoder, projector, language model."""

    model_type: ClassVar[str] = "qwen2_audio"
    aliases: ClassVar[dict[str, str]] = {"audio_token_id": "audio_token_index"}

    audio_config: Qwen2AudioEncoderConfig = field(default_factory=Qwen2AudioEncoderConfig)
    text_config: Qwen2Config = field(default_factory=Qwen2Config)
    audio_token_index: int = 151646
    ignore_index: int = -100
    tie_word_embeddings: bool = False

    audio_token_id = _alias("audio_token_index")

    def __post_init__(self) -> None:
        self._check_values("config")
        self.audio_config = _nested(Qwen2AudioEncoderConfig, self.audio_config)
        self.text_config = _nested(Qwen2Config, self.text_config)

    @property
    def tied(self) -> bool:
        """Whether the head shares the embedding's weights."""
        return self.tie_word_embeddings or self.text_config.tie_word_embeddings


def _nested(kind: type[Any], value: Any) -> Any:
    if value is None:
        return kind()
    if isinstance(value, dict):
        return kind.from_dict(value)
    if not isinstance(value, kind):
        raise ConfigError(f"A part of the config is a {type(value).__name__}; expected an object or a {kind.__name__}.")
    return value
