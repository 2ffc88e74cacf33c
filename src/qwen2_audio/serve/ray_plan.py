"""What a server on Ray Serve consists of: the model and how it is loaded, settings, replicas and what they may use."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import ConfigError, refuse_unknown
from .settings import FetchPolicy, Settings

_NOT_HERE = ("tensor_parallel", "renamed")  # arguments of `load` that need torchrun, or are old


@dataclass(frozen=True)
class Plan:
    """What is served, and on how much of the cluster. ConfigError for a value that cannot work."""

    load: Mapping[str, Any] = field(default_factory=dict)  # arguments of `qwen2_audio.load`
    settings: Settings = field(default_factory=Settings)  # `concurrency` is each replica's
    replicas: int = 1  # at least; 0: started when the first request comes, and ended when none has come for a while
    max_replicas: int | None = None  # as many as are needed up to here; None: always `replicas`
    target_requests: int = 8  # open requests for each replica, between `replicas` and `max_replicas`
    cpus: float = 1.0  # cores for each replica
    gpus: float = 0.0  # for each replica; several may share one
    gateways: int = 1  # processes that read requests; one is enough for some hundred requests a second

    def __post_init__(self) -> None:
        for name in ("replicas", "max_replicas", "target_requests", "cpus", "gpus", "gateways"):
            value = getattr(self, name)
            if not isinstance(value, int | float) and (name, value) != ("max_replicas", None):
                raise ConfigError(f"{name} is {value!r}; expected a number.")
        most = self.replicas if self.max_replicas is None else self.max_replicas
        if self.replicas < 0 or most < max(self.replicas, 1):
            raise ConfigError(
                f"replicas is {self.replicas} and max_replicas {self.max_replicas}; expected at least one replica, and "
                "no more replicas than max_replicas."
            )
        for name in ("target_requests", "cpus", "gateways"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected a number above 0.")
        if self.gpus < 0:
            raise ConfigError(f"gpus is {self.gpus}; expected 0 or more for each replica.")

    @property
    def most(self) -> int:
        """The largest number of replicas."""
        return self.replicas if self.max_replicas is None else self.max_replicas


def plan_of(args: Mapping[str, Any]) -> Plan:
    """The plan that a RayService file's `args` describe, or the NAME=VALUE of `serve run`, which are strings.

    Keys: `model`; the other arguments of `qwen2_audio.load`; the fields of `Plan`; `settings`, with the fields of
    serve/settings.py. ConfigError for any other key.
    """
    from ..api.loading import load

    loading = [name for name in inspect.signature(load).parameters if name not in (*_NOT_HERE, "name")]
    scale = [item.name for item in fields(Plan) if item.name not in ("load", "settings")]
    refuse_unknown(args, ["model", *loading, *scale, "settings"], ConfigError, "build() has no argument")
    options = {name: _parsed(name, args[name]) for name in scale if name in args}
    options["load"] = {name: _parsed(name, args[name]) for name in loading if name in args}
    if "model" in args:
        options["load"]["name"] = args["model"]
    return Plan(settings=_settings_of(_parsed("settings", args.get("settings", {}))), **options)


def _parsed(name: str, value: Any) -> Any:
    """A value of the command line, where numbers, truths and tables are JSON."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except ValueError:
        return value
    return value if isinstance(parsed, str) else parsed


def _settings_of(given: Mapping[str, Any]) -> Settings:
    def built(kind: Any, values: Any, where: str) -> Any:
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where} is {type(values).__name__}; expected a table of settings.")
        known = {item.name: item for item in fields(kind)}
        refuse_unknown(values, known, ConfigError, f"{where} has no setting")
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    values = dict(given) if isinstance(given, Mapping) else given
    if isinstance(values, dict) and "fetch" in values:
        values["fetch"] = built(FetchPolicy, values["fetch"], "settings.fetch")
    return built(Settings, values, "settings")  # type: ignore[no-any-return]
