"""What the three configurations share: JSON in and out, other names of keys, keys that are unknown here."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from ..errors import ConfigError, refuse_unknown
from . import hub
from .json_file import read_json, write_json

CONFIG_FILE = "config.json"
C = TypeVar("C", bound="Config")


@dataclass
class Config:
    """Base of the configurations. The constructor takes any key: what is no field becomes an attribute, as in a file.

    The attributes below belong to a run; in a file they stand only if they were set.
    """

    model_type: ClassVar[str] = ""
    attribute_map: ClassVar[dict[str, str]] = {}  # another name of a key -> its field
    sub_configs: ClassVar[dict[str, type[Config]]] = {}  # the fields that are configurations themselves
    is_encoder_decoder: ClassVar[bool] = False  # this and the next are asked by Trainer, peft and accelerate
    base_model_tp_plan: ClassVar[dict[str, str] | None] = None

    _attn_implementation = "sdpa"  # never written to the file
    _name_or_path = ""  # where it was read from; never written either
    output_hidden_states = False
    output_attentions = False
    return_dict = True
    # Of a classifier that somebody puts on top: its labels, two as in the reference until they are set.
    id2label = {0: "LABEL_0", 1: "LABEL_1"}  # noqa: RUF012  (not a field: written only if it was set)
    label2id = {"LABEL_0": 0, "LABEL_1": 1}  # noqa: RUF012

    @classmethod
    def from_dict(cls, data: dict[str, Any], **changes: Any) -> Self:
        """Build from the JSON object `data`, then set `changes`, which may be dicts of keys of a part.

        Raises ConfigError for another model_type, an invalid value, or a change of a key that there is not.
        """
        config = cls(**{key: value for key, value in data.items() if not key.startswith("_")})
        config.change(changes)
        return config

    @classmethod
    def normalized(cls, data: dict[str, Any]) -> dict[str, Any]:
        """The keys of `data` by their current names. Raises ConfigError for another model_type."""
        data = dict(data)
        model_type = data.pop("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ConfigError(
                f"model_type is {model_type!r}; expected {cls.model_type!r}. "
                "This package loads Qwen2-Audio checkpoints only; check the path or name."
            )
        return {cls.attribute_map.get(key, key): value for key, value in data.items()}

    def __iter__(self) -> Iterator[str]:
        """The keys, as in the reference."""
        return iter(vars(self))

    def __setattr__(self, key: str, value: Any) -> None:
        if key in ("_attn_implementation", "attn_implementation"):
            # A name for all parts, or {"": of this one, "text_config": ..., "audio_config": ...}. Written through, so
            # that every layer reads a plain attribute.
            key = "_attn_implementation"
            for name in self.sub_configs:
                part = vars(self).get(name)
                if isinstance(part, Config):
                    old = part._attn_implementation
                    part._attn_implementation = value.get(name, old) if isinstance(value, dict) else value
            value = (value.get("", self._attn_implementation) if isinstance(value, dict) else value) or "sdpa"
        elif key == "id2label":
            value = {int(number): label for number, label in value.items()}  # JSON's keys are strings
        super().__setattr__(key, value)

    @classmethod
    def key_names(cls) -> set[str]:
        """The fields, their other names, and the keys that belong to a run."""
        run = {"attn_implementation", "output_hidden_states", "output_attentions", "return_dict"}
        run |= {"num_labels", "id2label", "label2id"}
        return {item.name for item in fields(cls)} | {*cls.attribute_map} | run

    def change(self, changes: dict[str, Any]) -> None:
        """Set keys; a dict changes keys of a part. Raises ConfigError for a key that there is not."""
        refuse_unknown(changes, self.key_names() | {*vars(self)}, ConfigError, "The config has no key")
        for key, value in changes.items():
            part = self.sub_configs.get(key)
            if part is not None and isinstance(value, dict):
                value = part.from_dict(getattr(self, key).to_dict() | value)
            setattr(self, key, value)

    def _check_values(self, part: str) -> None:
        """Raise ConfigError for a value whose type differs from its default's, a size below 1, an id below 0.

        `part` is the name of this configuration in the message.
        """
        for item in fields(self):
            value, default = getattr(self, item.name), item.default
            if isinstance(default, bool):
                valid, expected = isinstance(value, bool), "true or false"
            elif isinstance(default, int) and default > 0:
                valid, expected = type(value) is int and value > 0, "a whole number above 0"
                if item.name.endswith("_token_index"):
                    valid, expected = type(value) is int and value >= 0, "a token id, 0 or above"
            elif isinstance(default, float):
                valid, expected = type(value) in (int, float), "a number"
            else:
                continue
            if not valid:
                raise ConfigError(f"{part}: {item.name} is {value!r}; expected {expected}. Fix config.json.")

    @property
    def name_or_path(self) -> str:
        """The name or folder that it was read from; "" for one that was made."""
        return self._name_or_path

    @name_or_path.setter
    def name_or_path(self, value: str | Path) -> None:
        self._name_or_path = str(value)

    @property
    def num_labels(self) -> int:
        """The labels of a classifier; setting it names them LABEL_0, LABEL_1 and so on."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, value: int) -> None:
        self.id2label = {number: f"LABEL_{number}" for number in range(value)}
        self.label2id = {label: number for number, label in self.id2label.items()}

    @property
    def use_return_dict(self) -> bool:
        """The older name of `return_dict`, which peft reads."""
        return self.return_dict

    @property
    def per_layer_config(self) -> list[Self]:
        """The configuration of each layer, which is the same for all."""
        return [self] * getattr(self, "num_hidden_layers", 0)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Any:
        """The configuration of the language model: `text_config`, or this one if it has none."""
        return getattr(self, "text_config", self)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object: every field, unknown keys included, nested configurations as objects."""
        out: dict[str, Any] = {"model_type": self.model_type}
        for key, value in vars(self).items():
            if not key.startswith("_"):
                out[key] = value.to_dict() if isinstance(value, Config) else _plain(value)
        return out

    def to_diff_dict(self) -> dict[str, Any]:
        """`to_dict` without what belongs to a run and is as it always is."""
        data = self.to_dict()
        for part in (data, *(data[name] for name in self.sub_configs)):
            for key in ("output_hidden_states", "output_attentions", "return_dict"):
                if key in part and part[key] == getattr(Config, key):
                    del part[key]
        return data

    def to_json_string(self, use_diff: bool = True) -> str:
        """The file's text, keys in order; of `to_dict` unless `use_diff`."""
        data = self.to_diff_dict() if use_diff else self.to_dict()
        return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    def to_json_file(self, json_file_path: str | Path, use_diff: bool = True) -> None:
        """Write `to_json_string` to a file."""
        write_json(Path(json_file_path), json.loads(self.to_json_string(use_diff)))

    def to_checkpoint_dict(self, architecture: str, dtype: str) -> dict[str, Any]:
        """`to_dict` for the config.json beside weights of class `architecture` in `dtype` ("float32", ...)."""
        data = self.to_dict() | {"architectures": [architecture], "torch_dtype": dtype}
        for part in (data, data.get("audio_config", {}), data.get("text_config", {})):
            part |= {key: dtype for key in ("dtype", "torch_dtype") if key in part}
        return data

    def update(self, config_dict: dict[str, Any]) -> None:
        """Set every key of `config_dict`, also one that is unknown here."""
        for key, value in config_dict.items():
            setattr(self, key, value)

    @classmethod
    def from_json_file(cls, json_file: str | Path) -> Self:
        """Read one JSON file. Raises ConfigError for a missing or invalid file."""
        path = Path(json_file)
        if not path.is_file():
            raise ConfigError(f"There is no file {path}; expected a {CONFIG_FILE}.")
        return cls.from_dict(read_json(path, ConfigError))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        subfolder: str = "",
        return_unused_kwargs: bool = False,
        **changes: Any,
    ) -> Any:
        """Read `config.json` of a folder or of a repository on the hub.

        `trust_remote_code` is accepted, as the reference's examples pass it, and does nothing: no code is downloaded.
        `subfolder` is the config's folder in the folder or repository. `changes` are set after reading, as in
        `from_dict`; with `return_unused_kwargs` those that are no keys are returned too: (config, unused).
        Raises ConfigError for a missing or invalid file, WeightsError when the repository cannot be reached.
        """
        folder = hub.resolve(
            pretrained_model_name_or_path,
            [CONFIG_FILE],
            revision=revision,
            local_files_only=local_files_only,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            subfolder=subfolder,
        )
        path = folder / CONFIG_FILE
        if not path.is_file():
            raise ConfigError(f"{folder} has no {CONFIG_FILE}; expected the folder of a Qwen2-Audio checkpoint.")
        config = cls.from_dict(read_json(path, ConfigError))
        config.name_or_path = pretrained_model_name_or_path
        known = config.key_names() | {*vars(config)}
        unused = {key: changes.pop(key) for key in [*changes] if return_unused_kwargs and key not in known}
        config.change(changes)
        return (config, unused) if return_unused_kwargs else config

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False) -> None:
        """Write `config.json` into a folder, creating it. Raises ConfigError for `push_to_hub`."""
        if push_to_hub:
            raise ConfigError("push_to_hub is not offered; save to a folder and upload it with `hf upload`.")
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG_FILE, self.to_dict())


def any_key(cls: type[C]) -> type[C]:
    """Let a configuration's constructor take the other names of its keys, and keys that are no fields."""
    declared: Callable[..., None] = cls.__init__
    names = {item.name for item in fields(cls)}

    @functools.wraps(declared)
    def constructor(self: C, *values: Any, **keys: Any) -> None:
        keys = cls.normalized(keys)
        declared(self, *values, **{key: value for key, value in keys.items() if key in names})
        for key, value in keys.items():
            if key not in names:
                setattr(self, key, value)

    setattr(cls, "__init__", constructor)  # noqa: B010 - mypy knows no other way to replace a method
    return cls


def alias(target: str) -> Any:
    """A property that reads and writes another attribute: with it, `config.hidden_size = 8` sets `config.d_model`."""
    return property(lambda self: getattr(self, target), lambda self, value: setattr(self, target, value))


def _plain(value: Any) -> Any:
    """A dtype by its name, in JSON."""
    return str(value).removeprefix("torch.") if type(value).__module__ == "torch" else value
