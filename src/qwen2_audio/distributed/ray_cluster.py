"""Ray, where it is installed: the one place that imports it, without its usage reports, and joins a cluster."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from ..errors import ConfigError

LOCAL = "local"  # the address of a Ray that this process starts for itself
# Ray's own variables, read when it is imported and by the processes that it starts. What the user has set stays.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no reports to Ray's makers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # without it each actor without a GPU prints a warning about the future
    "RAY_DEDUP_LOGS": "1",
}
_AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
_STORE_BYTES = 256 << 20  # of a local Ray's shared memory: a container has 64 MB, and rows and requests are small


def import_ray() -> Any:
    """The module `ray`. ConfigError where it is not installed."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError("Running on Ray needs Ray: pip install 'qwen2-audio[ray]'.") from error


def import_serve() -> Any:
    """The module `ray.serve`, with `ray.serve.request_router`. ConfigError where it is not installed."""
    try:
        import_ray()
        importlib.import_module("ray.serve.request_router")
        return importlib.import_module("ray.serve")
    except (ImportError, ConfigError) as error:
        raise ConfigError("Serving on Ray needs Ray Serve: pip install 'qwen2-audio[serve-ray]'.") from error


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Inside this context the process belongs to a Ray cluster; yields the module `ray`.

    Ray prints what it has to say, such as that a worker died, on the standard output of the program; in here that is
    the standard error, so that results keep a standard output of their own.

    Where the process has joined one before, that is used, and not left.

    Args:
        address: "auto" joins the cluster that runs on this machine or that $RAY_ADDRESS names, and starts a local Ray
            where there is none; "local" starts one; else where the cluster's head is, as `ray.init` takes it.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """
    ray = import_ray()
    with _stdout_to_stderr():
        if ray.is_initialized():
            yield ray
            return
        before = {name: os.environ.get(name) for name in _AUTH}
        try:
            _join(ray, address)
            yield ray
        finally:
            ray.shutdown()
            for name, value in before.items():  # another cluster has another token
                os.environ.pop(name, None)
                os.environ.update({} if value is None else {name: value})


def _join(ray: Any, address: str) -> None:
    options = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address not in ("auto", LOCAL):
        try:
            ray.init(address=address, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"There is no Ray cluster at {address!r}: {_first_line(error)}") from error
        return
    if address == "auto":
        try:
            ray.init(address="auto", **options)
            return
        except ConnectionError:  # none runs here
            pass
    if "RAY_AUTH_MODE" not in os.environ:  # otherwise Ray writes a token into the home folder, and says so
        os.environ.setdefault("RAY_AUTH_TOKEN", _local_token())
    ray.init(address="local", include_dashboard=False, object_store_memory=_STORE_BYTES, **options)


@functools.cache
def _local_token() -> str:
    """What the processes of a local Ray know each other by. Ray keeps the first one that a process has used."""
    return secrets.token_hex(32)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Inside this context what is written to standard output, by any code of this process, goes to standard error."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):  # of Python's own there may be another than the descriptor's
            yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
