"""`qwen2-audio serve`: serves a checkpoint with the OpenAI API and a web page to talk to it."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError
from . import terminal, transcribe
from .terminal import note

if TYPE_CHECKING:
    from ..api.chat import AudioChat
    from ..serve.backend import Backend
    from ..serve.ray_plan import Plan
    from ..serve.run import Address
    from ..serve.settings import Settings

KEY_VARIABLE = "QWEN2_AUDIO_API_KEY"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_REQUIRED_PACKAGES = ("starlette", "uvicorn", "pydantic", "python_multipart", "prometheus_client", "h11", "llguidance")


def command(
    model: terminal.Model = None,
    adapter: terminal.Adapter = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all addresses of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks one.", min=0, max=65535)] = 8000,
    api_key: Annotated[
        list[str] | None, typer.Option(help=f"A key that clients must send; repeatable. Also ${KEY_VARIABLE}.")
    ] = None,
    served_model_name: Annotated[
        list[str] | None, typer.Option(help="The model's name in the API, in place of its own; repeatable.")
    ] = None,
    ssl_certfile: Annotated[Path | None, typer.Option(help="TLS certificate with its chain, PEM.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="The certificate's key, PEM.")] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin of web pages that may send requests, such as https://example.org; repeatable."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A host name that requests may use; default this machine's own, or any with --host."),
    ] = None,
    allowed_media_domain: Annotated[
        list[str] | None,
        typer.Option(help="Fetch clips only from this domain and its subdomains; repeatable; default any public host."),
    ] = None,
    allowed_private_host: Annotated[
        list[str] | None, typer.Option(help="Fetch clips from this host even if its address is private; repeatable.")
    ] = None,
    allowed_local_media_path: Annotated[
        Path | None, typer.Option(help="Folder whose files clients may name as file: URLs.")
    ] = None,
    media_redirects: Annotated[int, typer.Option(help="Most redirects to follow when a clip is fetched.", min=0)] = 3,
    media_timeout: Annotated[float, typer.Option(help="Most seconds to fetch a clip.")] = 10.0,
    no_media_fetch: Annotated[bool, typer.Option("--no-media-fetch", help="Fetch no clips from the web.")] = False,
    max_body_mb: Annotated[int, typer.Option(help="Most megabytes of a request.", min=1)] = 35,
    max_clip_mb: Annotated[int, typer.Option(help="Most megabytes of an encoded clip in a conversation.", min=1)] = 25,
    max_upload_mb: Annotated[
        int, typer.Option(help="Most megabytes of a file to transcribe; it waits on disk.", min=1)
    ] = 2048,
    max_clips: Annotated[int, typer.Option(help="Most clips in a request.", min=1)] = 64,
    max_clip_seconds: Annotated[int, typer.Option(help="Longest clip to transcribe.", min=1)] = 14_400,
    max_logprobs: Annotated[
        int,
        typer.Option(
            help="Most tokens to name beside one in logprobs; -1: the whole vocabulary, which is slow.", min=-1
        ),
    ] = 20,
    max_concurrency: Annotated[int, typer.Option(help="Most requests at a time, queued ones included.", min=1)] = 256,
    deadline: Annotated[float, typer.Option(help="Most seconds from a request to the end of its answer.")] = 600.0,
    keep_alive: Annotated[
        int, typer.Option(help="Seconds that an idle connection stays open; a proxy's must be shorter.", min=1)
    ] = 30,
    grace: Annotated[
        float, typer.Option(help="Seconds that running answers get to finish when the server stops.")
    ] = 20.0,
    lora_folder: Annotated[
        Path | None,
        typer.Option(help="Folder whose subfolders are LoRA adapters that requests may name, as MODEL:ADAPTER."),
    ] = None,
    lora_modules: Annotated[
        list[str] | None, typer.Option(help="One such adapter by a name of its own: NAME=FOLDER; repeatable.")
    ] = None,
    max_loras: Annotated[int, typer.Option(help="Most of those adapters in memory at a time.", min=1)] = 8,
    device: terminal.Device = "auto",
    dtype: terminal.DType = "auto",
    quantize: terminal.Quantize = None,
    draft: Annotated[
        str | None,
        typer.Option(help="A smaller checkpoint that proposes tokens (speculative decoding).", show_default=False),
    ] = None,
    aligner: transcribe.Aligner = None,
    num_speculative_tokens: Annotated[int, typer.Option(help="Most tokens that the draft proposes a step.", min=1)] = 4,
    ray: Annotated[
        str | None,
        typer.Option(help="Serve replicas on a Ray cluster: its address, or auto: the one here, else a new one."),
    ] = None,
    replicas: Annotated[int, typer.Option(help="With --ray: copies of the model.", min=1)] = 1,
    cpus_per_replica: Annotated[float, typer.Option(help="With --ray: cores for each of them.")] = 1.0,
    gpus_per_replica: Annotated[float, typer.Option(help="With --ray: GPUs for each of them.")] = 0.0,
) -> None:
    _check_installed()
    from ..checkpoint.locate import find
    from ..serve.app import create_app
    from ..serve.capabilities import read_capabilities
    from ..serve.ray_plan import Plan
    from ..serve.run import Address, listening, serve
    from ..serve.settings import FetchPolicy, Settings

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("qwen2_audio.serve").setLevel(logging.INFO)
    warnings.simplefilter("always", UserWarning)  # the default filter never forgets a damaged clip's message
    address = Address(host, port, ssl_certfile, ssl_keyfile)
    fetch = FetchPolicy(
        web=not no_media_fetch,
        domains=tuple(allowed_media_domain or ()),
        private_hosts=tuple(allowed_private_host or ()),
        redirects=media_redirects,
        seconds=media_timeout,
        folder=allowed_local_media_path,
    )
    settings = Settings(
        api_keys=_api_keys(api_key),
        names=tuple(served_model_name or ()),
        origins=tuple(cors_origin or ()),
        hosts=tuple(allowed_host or (_LOOPBACK if host in _LOOPBACK else ())),
        body_bytes=max_body_mb << 20,
        clip_bytes=max_clip_mb << 20,
        upload_bytes=max_upload_mb << 20,
        clips=max_clips,
        clip_seconds=max_clip_seconds,
        logprobs=max_logprobs,
        concurrency=max_concurrency,
        deadline=deadline,
        keep_alive=keep_alive,
        grace=grace,
        fetch=fetch,
    )
    others = {
        "draft": draft,
        "num_speculative_tokens": num_speculative_tokens,
        "aligner": aligner,
        "lora_folder": lora_folder,
        "lora_modules": _named_folders(lora_modules or ()),
        "max_loras": max_loras,
    }
    if ray is not None:
        options = {"name": model, "device": device, "dtype": dtype, "adapter": adapter, "quantize": quantize}
        plan = Plan(options | others, settings, replicas, cpus=cpus_per_replica, gpus=gpus_per_replica)
        _serve_on_ray(plan, ray, address)
        return
    load = partial(terminal.load_model, model, device, dtype, adapter, quantize, **others)
    if not terminal.is_first():
        load()  # raises typer.Exit when the first process ends
    capabilities = read_capabilities(Path(find(model)))
    with listening(address) as listener:  # before the model, so that a port in use fails at once
        backend = _load(load, model)
        app = create_app(backend, settings, capabilities)
        _announce(address.at(listener), settings, app.state.server.names[0])
        serve(app, address, listener)


def _serve_on_ray(plan: Plan, cluster: str, address: Address) -> None:
    from ..checkpoint.locate import api_name, find
    from ..serve.ray_app import run
    from ..serve.run import listening

    if address.certificate is not None:
        raise ConfigError("--ray takes no certificate: a proxy before the cluster ends TLS (deploy/compose.yaml).")
    with listening(address) as listener:  # so that a port in use fails at once; Ray Serve opens it again
        url, port = address.at(listener), listener.getsockname()[1]
    name = plan.settings.names[0] if plan.settings.names else api_name(find(plan.load["name"]))
    note(f"Starting {plan.replicas} replica{'s' if plan.replicas > 1 else ''} of {name}.")
    run(plan, cluster, replace(address, port=port), lambda: _announce(url, plan.settings, name))


def _load(load: Callable[[], AudioChat], model: str | None) -> Backend:
    """The checkpoint with its engine."""
    from ..api.service import service_of
    from ..checkpoint.locate import api_name, find

    service = service_of(load(), api_name(find(model)))
    service.set_up_grammars()
    return service


def _named_folders(options: Sequence[str]) -> dict[str, Path]:
    """Adapters by name, from NAME=FOLDER. Raises ConfigError."""
    folders = {}
    for option in options:
        name, _, folder = option.partition("=")
        if not name or not folder or name in folders:
            found = "names an adapter twice" if name in folders else "has no name or no folder"
            raise ConfigError(f"--lora-modules {option} {found}; expected NAME=FOLDER, each name once.")
        folders[name] = Path(folder)
    return folders


def _api_keys(options: list[str] | None) -> tuple[str, ...]:
    """Keys from the options and from the environment, which other users of the machine cannot read."""
    return (*(options or ()), *os.environ.get(KEY_VARIABLE, "").replace(",", " ").split())


def _announce(url: str, settings: Settings, name: str) -> None:
    """Prints the URL, and a warning if anybody may send requests."""
    if settings.hosts == () and not settings.api_keys:
        note("Anybody who reaches this address may ask; --api-key lets in only those who have the key.")
    note(f"Serving {name} at {url} (API: {url}/v1). Ctrl-C ends it.")


def _check_installed() -> None:
    missing = [name for name in _REQUIRED_PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"serve needs packages that are not installed ({', '.join(missing)}): pip install 'qwen2-audio[server]'."
        )
