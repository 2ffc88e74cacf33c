"""The configuration of a model, read from config.json.

The official files are sparse: a missing key takes the default below, which is the reference library's (transformers
5.23, `configuration_qwen2_audio.py` and `configuration_qwen2.py`). Unknown keys become attributes and are written back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..errors import ConfigError
from .config_base import CONFIG_FILE as CONFIG_FILE
from .config_base import Config as Config
from .config_base import alias, any_key


@any_key
@dataclass
class Qwen2AudioEncoderConfig(Config):
    """The audio encoder: Whisper-large-v3's shape. Defaults are those of the official checkpoints."""

    model_type: ClassVar[str] = "qwen2_audio_encoder"
    attribute_map: ClassVar[dict[str, str]] = {
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

    num_hidden_layers = alias("encoder_layers")
    num_attention_heads = alias("encoder_attention_heads")
    intermediate_size = alias("encoder_ffn_dim")
    hidden_size = alias("d_model")

    @classmethod
    def normalized(cls, data: dict[str, Any]) -> dict[str, Any]:
        return super().normalized(_part(data, "audio_config"))

    def __post_init__(self) -> None:
        self._check_values("audio_config")
        if self.d_model % self.encoder_attention_heads:
            raise ConfigError(
                f"audio_config: d_model {self.d_model} is not a multiple of "
                f"encoder_attention_heads {self.encoder_attention_heads}; fix config.json."
            )
        if self.activation_function != "gelu":
            raise ConfigError(f"audio_config: activation_function is {self.activation_function!r}; expected 'gelu'.")


@any_key
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
    def normalized(cls, data: dict[str, Any]) -> dict[str, Any]:
        data = dict(_part(data, "text_config"))
        # transformers 5 writes rope_parameters; older files have rope_theta and rope_scaling.
        rope = data.pop("rope_parameters", None) or {}
        if "rope_theta" in rope:
            data.setdefault("rope_theta", rope["rope_theta"])
        scaling = data.get("rope_scaling") or rope
        rope_type = scaling.get("rope_type", scaling.get("type", "default"))
        if rope_type != "default":
            raise ConfigError(f"text_config: rope type is {rope_type!r}; expected 'default', as in every Qwen2-Audio.")
        return super().normalized(data)

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


@any_key
@dataclass
class Qwen2AudioConfig(Config):
    """The complete model: encoder, projector, language model."""

    model_type: ClassVar[str] = "qwen2_audio"
    attribute_map: ClassVar[dict[str, str]] = {"audio_token_id": "audio_token_index"}
    sub_configs: ClassVar[dict[str, type[Config]]] = {
        "audio_config": Qwen2AudioEncoderConfig,
        "text_config": Qwen2Config,
    }

    audio_config: Qwen2AudioEncoderConfig = field(default_factory=Qwen2AudioEncoderConfig)
    text_config: Qwen2Config = field(default_factory=Qwen2Config)
    audio_token_index: int = 151646
    ignore_index: int = -100
    tie_word_embeddings: bool = False

    audio_token_id = alias("audio_token_index")

    def __post_init__(self) -> None:
        self._check_values("config")
        self.audio_config = _nested(Qwen2AudioEncoderConfig, self.audio_config)
        self.text_config = _nested(Qwen2Config, self.text_config)

    @property
    def tied(self) -> bool:
        """Whether the head shares the embedding's weights."""
        return self.tie_word_embeddings or self.text_config.tie_word_embeddings


def _part(data: dict[str, Any], name: str) -> dict[str, Any]:
    """The part `name` of a complete model's file, which may stand in for the part's own."""
    if data.get("model_type") != Qwen2AudioConfig.model_type:
        return data
    part = dict(data.get(name) or {})
    return part | {key: data[key] for key in ("quantization_config",) if key in data}


def _nested(kind: type[Any], value: Any) -> Any:
    if value is None:
        return kind()
    if isinstance(value, dict):
        return kind.from_dict(value)
    if not isinstance(value, kind):
        raise ConfigError(f"A part of the config is a {type(value).__name__}; expected an object or a {kind.__name__}.")
    return value
