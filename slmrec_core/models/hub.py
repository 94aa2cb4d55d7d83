"""Models of the Hugging Face hub: the commit that a name stands for, and the files of a commit.

A branch moves. What is trained must be named by its commit, or a push in the middle of a sweep would change the weights
behind a name that is already part of stages' hashes.
"""

import json
import logging
import re
from pathlib import Path

from slmrec_core.errors import ConfigError, DownloadError

logger = logging.getLogger(__name__)

HUB_TIMEOUT_S = 10.0
"""An unreachable hub is answered in seconds: one request, no retries."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FILES = ["*.safetensors", "*.json", "*.model", "*.txt"]
"""Weights, settings and tokenizer; never pickles or code."""


def pinned_hub_id(name: str, hint: str) -> str:
    """`owner/model@<commit>` for `owner/model` or `owner/model@<branch or tag>`.

    Without a hub, the newest commit in the local cache; a name with a commit is returned as it is, without a request.

    Args:
        name: Of that shape.
        hint: What else the user may have meant, for the errors.

    Raises:
        ConfigError: The hub has no such model or revision.
        DownloadError: The hub does not answer within seconds, and the cache does not hold the model.
    """
    repository, _, revision = name.partition("@")
    if _COMMIT.fullmatch(revision):
        return name
    return f"{repository}@{_current_commit(repository, revision or None, hint)}"


def hub_snapshot(pinned: str) -> Path:
    """The folder with the files of `owner/model@<commit>`: from the local cache without any request, else downloaded.

    Raises:
        ConfigError: The hub would refuse the name.
        DownloadError: It could not be fetched whole.
    """
    # Only hub ids need it.
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    repository, _, commit = pinned.partition("@")
    try:
        folder = Path(snapshot_download(repository, revision=commit, allow_patterns=_FILES, local_files_only=True))
        if _is_whole(folder):
            return folder
    except LocalEntryNotFoundError:
        logger.info("%s is not in the local cache", pinned)
    except HFValidationError as error:
        raise ConfigError(f"backbone: must be a model of the hub, got {pinned!r}. The hub says: {error}") from error
    try:
        return Path(snapshot_download(repository, revision=commit, allow_patterns=_FILES, etag_timeout=HUB_TIMEOUT_S))
    except hub_faults() as error:
        raise DownloadError(
            f"backbone: {repository!r} at revision {commit} could not be downloaded, got {error}."
            " Try again, or name a local model directory."
        ) from error


def has_tokenizer(folder: Path) -> bool:
    """True = a model directory holds what tokenizers are kept in."""
    return any(file for pattern in ("tokenizer*", "vocab*", "*.model") for file in folder.glob(pattern))


def _current_commit(repository: str, revision: str | None, hint: str) -> str:
    # Only hub ids need them.
    from huggingface_hub import HfApi, constants  # noqa: PLC0415
    from huggingface_hub.errors import (  # noqa: PLC0415
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    reason = "is not asked (HF_HUB_OFFLINE)"
    if not constants.HF_HUB_OFFLINE:
        try:
            return str(HfApi().model_info(repository, revision=revision, timeout=HUB_TIMEOUT_S).sha)
        except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
            wanted = repository if revision is None else f"{repository}@{revision}"
            raise ConfigError(
                f"backbone: must be an alias, a model directory, a GGUF file or a model of the hub, got {wanted!r}."
                f" The hub says: {str(error).strip()} {hint}"
            ) from error
        except hub_faults() as error:
            reason = f"cannot be reached ({error})"
    if (commit := _newest_cached(repository, revision)) is None:
        raise DownloadError(
            f"backbone: {repository!r} is no alias, not a file here nor in the local cache, and the hub {reason}."
            f" {hint} Or name a local model directory or GGUF file."
        )
    logger.warning("The hub %s: the newest cached commit of %s is taken, %s", reason, repository, commit)
    return commit


def _newest_cached(repository: str, revision: str | None) -> str | None:
    from huggingface_hub import scan_cache_dir  # noqa: PLC0415  # only hub ids need it
    from huggingface_hub.errors import CacheNotFound  # noqa: PLC0415

    try:
        cached = [found for found in scan_cache_dir().repos if found.repo_id == repository]
    except CacheNotFound:
        return None
    # Files fetched by commit leave no branch behind, so a branch's name alone would find nothing of ours.
    commits = [
        commit
        for found in cached
        for commit in found.revisions
        if (revision is None or revision in commit.refs) and _is_whole(commit.snapshot_path)
    ]
    newest = max(commits, key=lambda commit: commit.last_modified, default=None)
    return None if newest is None else str(newest.commit_hash)


def _is_whole(folder: Path) -> bool:
    """True = settings, every weight file and a tokenizer are there; other programs fetch only some of them."""
    index = folder / "model.safetensors.index.json"
    try:
        weights = (
            set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else set()
        )
    except (OSError, ValueError, LookupError):
        return False
    has_weights = all((folder / name).is_file() for name in weights) if weights else any(folder.glob("*.safetensors"))
    return (folder / "config.json").is_file() and has_weights and has_tokenizer(folder)


def hub_faults() -> tuple[type[Exception], ...]:
    """What the hub's client raises without a network: OSError, and the base of its HTTP library's own errors.

    Taken from the bases of its error class, because that library has changed twice.
    """
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415  # only hub ids need it

    return (OSError, *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)))
