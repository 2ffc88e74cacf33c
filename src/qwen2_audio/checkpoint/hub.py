"""Where a checkpoint lies: a local folder as it is, a repository of the hub as its cached download.

`HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE`, `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_DISABLE_PROGRESS_BARS` work as
everywhere: huggingface_hub reads them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import WeightsError

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # one slash, no leading dot: not a path
TIMEOUT_SECONDS = 10.0  # until the hub is called unreachable


def resolve(
    name_or_path: str | Path,
    patterns: Sequence[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder that holds the files of `name_or_path`.

    Args:
        name_or_path: a folder, or `owner/name` on the hub. Whatever exists here or looks like a path is never asked
            of the hub.
        patterns: file names, `*` allowed, that a download brings. Already cached files are not fetched again.
        revision: branch, tag or commit of the hub's repository.
        local_files_only: use what is cached; ask nobody.

    Raises:
        WeightsError: no such folder, no such repository or no right to it, hub unreachable, offline and not cached.
    """
    path = Path(name_or_path).expanduser()
    if name_or_path == "":  # which Path takes for the current folder
        raise WeightsError("The name of the checkpoint is empty; give a folder, or 'owner/name' on the hub.")
    if path.is_dir():
        return path
    if path.exists():
        raise WeightsError(f"{path} is a file; expected the folder that holds config.json and the weights.")
    name = str(name_or_path)
    if not REPOSITORY.fullmatch(name):
        raise WeightsError(
            f"No folder {name!r} here, and it is not a repository name of the form 'owner/name' either; "
            "check the path, or give a name such as 'Qwen/Qwen2-Audio-7B-Instruct'."
        )
    return _from_hub(name, patterns, revision, local_files_only)


def _from_hub(name: str, patterns: Sequence[str], revision: str | None, local_files_only: bool) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download

    offline = local_files_only or constants.HF_HUB_OFFLINE
    found = _describe(name, revision)
    trouble: Exception | None = None
    if not offline:
        try:
            # snapshot_download asks this too, but without a time limit.
            HfApi().model_info(name, revision=revision, timeout=TIMEOUT_SECONDS)
        except Exception as error:  # requests, httpx and the hub's own; which of them depends on its version
            trouble = error
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(patterns),
                local_files_only=bool(offline or trouble),
                etag_timeout=TIMEOUT_SECONDS,
            )
        )
    except Exception as error:
        if trouble is not None:
            raise WeightsError(_refusal(found, trouble)) from trouble
        if offline:
            why = "local_files_only is set" if local_files_only else "HF_HUB_OFFLINE is set"
            raise WeightsError(
                f"{found} is not, or not completely, in the cache {constants.HF_HUB_CACHE}, and {why}; "
                "download it once while online, or give the path of a folder that holds it."
            ) from error
        raise WeightsError(
            f"Downloading {found} stopped: {_first_line(error)}. Run again; what has arrived is kept."
        ) from error


def _refusal(found: str, error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):  # a kind of RepositoryNotFoundError
        return f"{found} is gated; accept its terms on the hub and set HF_TOKEN to a token of that account."
    if isinstance(error, RevisionNotFoundError):
        return f"The hub has no {found}; check the revision."
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"There is no folder {found} here and the hub has no such repository, or it is private; "
            "check the spelling, or set HF_TOKEN."
        )
    what = "answers with an error" if isinstance(error, HfHubHTTPError) else "cannot be reached"
    return (
        f"The hub {what} ({_first_line(error)}), and {found} is neither a folder here nor in the cache; "
        "check the network, or give the path of a folder that holds the checkpoint."
    )


def _describe(name: str, revision: str | None) -> str:
    return f"{name!r} at revision {revision!r}" if revision else repr(name)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
