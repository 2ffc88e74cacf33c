"""Find the folder of a checkpoint: a local folder, or the cached download of a repository on the hub.

huggingface_hub reads `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `HF_TOKEN`, `HF_ENDPOINT` and
`HF_HUB_DISABLE_PROGRESS_BARS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import NoCheckpointError

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # one slash, no leading dot: not a path
TIMEOUT_SECONDS = 10.0  # without an answer for this long, the hub counts as unreachable
# Keywords of every `from_pretrained` that `resolve` takes, and others that the reference's programs pass: no code is
# downloaded, there is one kind of tokenizer, and the hub's library does these things by itself.
OPTIONS = ("revision", "local_files_only", "token", "cache_dir", "force_download", "subfolder")
WITHOUT_EFFECT = (
    "trust_remote_code", "use_fast", "from_slow", "legacy", "resume_download", "proxies", "low_cpu_mem_usage"
)  # fmt: skip


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keywords of a `from_pretrained`: those for `resolve`, and the rest, without those in WITHOUT_EFFECT."""
    own = {name: value for name, value in options.items() if name in OPTIONS and value is not None}
    return own, {name: value for name, value in options.items() if name not in (*OPTIONS, *WITHOUT_EFFECT)}


def resolve(
    name_or_path: str | Path,
    patterns: Sequence[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    subfolder: str = "",
) -> Path:
    """The folder that holds the files of `name_or_path`.

    Args:
        name_or_path: a folder, or `owner/name` on the hub. The hub is not asked when the name exists as a local path
            or does not have that form.
        patterns: file names to download, `*` allowed. Files in the cache are not downloaded again.
        revision: branch, tag or commit of the hub's repository.
        local_files_only: use only the cache, without any network request.
        token: of an account on the hub; False: anonymous. None: HF_TOKEN, or the one of `hf auth login`.
        cache_dir: where downloads are kept. None: HF_HUB_CACHE.
        force_download: download again what is in the cache.
        subfolder: the files' folder in the folder or repository; the result is that folder.

    Raises:
        NoCheckpointError: there is no such folder; no such repository, or no access to it; the hub is unreachable; or
            offline and not in the cache.
    """
    path = Path(name_or_path).expanduser()
    if name_or_path == "":  # Path("") would be the current folder
        raise NoCheckpointError("The name of the checkpoint is empty; give a folder, or 'owner/name' on the hub.")
    if path.is_dir():
        return path / subfolder
    if path.exists():
        raise NoCheckpointError(f"{path} is a file; expected the folder that holds config.json and the weights.")
    name = str(name_or_path)
    if not REPOSITORY.fullmatch(name):
        raise NoCheckpointError(
            f"No folder {name!r} here, and it is not a repository name of the form 'owner/name' either; "
            "check the path, or give a name such as 'Qwen/Qwen2-Audio-7B-Instruct'."
        )
    files = [f"{subfolder}/{pattern}" for pattern in patterns] if subfolder else list(patterns)
    options = {"token": token, "cache_dir": cache_dir, "force_download": force_download}
    return _from_hub(name, files, revision, local_files_only, options) / subfolder


def _from_hub(
    name: str, patterns: list[str], revision: str | None, local_files_only: bool, options: dict[str, Any]
) -> Path:
    """`options` are those of `snapshot_download`."""
    from huggingface_hub import HfApi, constants, snapshot_download

    offline = local_files_only or constants.HF_HUB_OFFLINE
    repository = _describe(name, revision)
    hub_error: Exception | None = None
    if not offline:
        try:
            # snapshot_download makes this request too, but without a time limit.
            HfApi(token=options["token"]).model_info(name, revision=revision, timeout=TIMEOUT_SECONDS)
        except Exception as error:  # requests', httpx's or the hub's own, depending on the hub library's version
            hub_error = error
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=patterns,
                local_files_only=bool(offline or hub_error),
                etag_timeout=TIMEOUT_SECONDS,
                **options,
            )
        )
    except Exception as error:
        if hub_error is not None:
            raise NoCheckpointError(_explain(repository, hub_error)) from hub_error
        if offline:
            cause = "local_files_only is set" if local_files_only else "HF_HUB_OFFLINE is set"
            cache = options["cache_dir"] or constants.HF_HUB_CACHE
            raise NoCheckpointError(
                f"{repository} is not, or not completely, in the cache {cache}, and {cause}; "
                "download it once while online, or give the path of a folder that holds it."
            ) from error
        raise NoCheckpointError(
            f"Downloading {repository} stopped: {_first_line(error)}. Run again; what has arrived is kept."
        ) from error


def _explain(repository: str, error: Exception) -> str:
    """The message for an error of the hub about `repository`, which has no complete copy in the cache."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):  # first, as it is a subclass of RepositoryNotFoundError
        return f"{repository} is gated; accept its terms on the hub and set HF_TOKEN to a token of that account."
    if isinstance(error, RevisionNotFoundError):
        return f"The hub has no {repository}; check the revision."
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"There is no folder {repository} here and the hub has no such repository, or it is private; "
            "check the spelling, or set HF_TOKEN."
        )
    failure = "answers with an error" if isinstance(error, HfHubHTTPError) else "cannot be reached"
    return (
        f"The hub {failure} ({_first_line(error)}), and {repository} is neither a folder here nor in the cache; "
        "check the network, or give the path of a folder that holds the checkpoint."
    )


def _describe(name: str, revision: str | None) -> str:
    return f"{name!r} at revision {revision!r}" if revision else repr(name)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
