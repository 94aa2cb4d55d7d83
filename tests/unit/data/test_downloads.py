"""Fetching pinned files, with wheels built here; nothing in this file touches a network."""

import hashlib
import logging
import subprocess
import zipfile
from pathlib import Path

import pytest

from slmrec_core import downloads
from slmrec_core.downloads import PinnedWheel, cache_dir, fetch_from_wheel, pip_download
from slmrec_core.errors import DownloadError

CONTENT = {"pack/data/a.inter": b"events", "pack/data/a.item": b"titles", "pack/code.py": b"raise SystemExit"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Index:
    """A package index with one wheel; counts how often it was asked."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "pack-1.0-py3-none-any.whl"
        with zipfile.ZipFile(self.path, "w") as archive:
            for name, content in CONTENT.items():
                archive.writestr(name, content)
        self.served = self.path.read_bytes()
        self.calls = 0

    def wheel(self, *members: str) -> PinnedWheel:
        wanted = members or ("pack/data/a.inter", "pack/data/a.item")
        hashes = {member: sha256(CONTENT.get(member, b"")) for member in wanted}
        return PinnedWheel("pack", "1.0", sha256(self.path.read_bytes()), hashes, notice="for research")

    def download(self, wheel: PinnedWheel, directory: Path) -> None:
        self.calls += 1
        (directory / self.path.name).write_bytes(self.served)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path)


def files_below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_only_the_wanted_members_reach_the_cache(index: Index, tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    directory = fetch_from_wheel(index.wheel(), cache, download=index.download)

    assert directory == cache / "pack-1.0"
    assert files_below(cache) == ["pack-1.0/a.inter", "pack-1.0/a.item"]
    assert (directory / "a.inter").read_bytes() == b"events"


def test_a_second_call_downloads_nothing(index: Index, tmp_path: Path) -> None:
    for _ in range(2):
        fetch_from_wheel(index.wheel(), tmp_path / "cache", download=index.download)

    assert index.calls == 1


def test_the_terms_reach_stderr_once(
    index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            fetch_from_wheel(index.wheel(), tmp_path / "cache", download=index.download)

    assert capsys.readouterr().err.count("pack==1.0: for research") == 1
    assert "for research" not in caplog.text, "who shows the log would read it twice"


def test_a_damaged_cached_file_is_fetched_again_and_the_log_says_so(
    index: Index, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = fetch_from_wheel(index.wheel(), tmp_path / "cache", download=index.download)
    (directory / "a.item").write_bytes(b"rotten")

    with caplog.at_level(logging.WARNING):
        fetch_from_wheel(index.wheel(), tmp_path / "cache", download=index.download)

    assert (directory / "a.item").read_bytes() == b"titles"
    assert "a.item: cached file is damaged" in caplog.text


def test_a_wheel_with_other_bytes_is_refused_and_leaves_nothing(index: Index, tmp_path: Path) -> None:
    index.served = b"something else"

    with pytest.raises(DownloadError) as caught:
        fetch_from_wheel(index.wheel(), tmp_path / "cache", download=index.download)

    assert f"expected SHA-256 {index.wheel().sha256}, got {sha256(b'something else')}" in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_member_with_other_bytes_is_refused_and_no_member_is_published(index: Index, tmp_path: Path) -> None:
    pinned = index.wheel()
    wrong = PinnedWheel("pack", "1.0", pinned.sha256, {**pinned.members, "pack/data/a.item": "0" * 64})

    with pytest.raises(DownloadError, match="a.item is not the pinned file, expected SHA-256 0000"):
        fetch_from_wheel(wrong, tmp_path / "cache", download=index.download)

    assert files_below(tmp_path / "cache") == []


def test_a_member_that_is_not_in_the_wheel_is_named(index: Index, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="does not hold this member, got 'pack/missing'"):
        fetch_from_wheel(index.wheel("pack/missing"), tmp_path / "cache", download=index.download)


def test_a_download_without_a_wheel_is_an_error(index: Index, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"expected one wheel from the download, got \[\]"):
        fetch_from_wheel(index.wheel(), tmp_path / "cache", download=lambda wheel, directory: None)


def test_a_cache_that_cannot_be_written_is_named(index: Index, tmp_path: Path) -> None:
    # A file where the cache's parent should be stops even root, whom permissions do not.
    (tmp_path / "file").write_text("")
    cache = tmp_path / "file" / "cache"

    with pytest.raises(DownloadError, match="the cache cannot be used, got .*cache.*SLMREC_CACHE"):
        fetch_from_wheel(index.wheel(), cache, download=index.download)


def test_the_cache_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLMREC_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path

    monkeypatch.delenv("SLMREC_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "slmrec"


def run_as(
    monkeypatch: pytest.MonkeyPatch, status: int, stderr: str, written: dict[str, str] | None = None
) -> list[list[str]]:
    """Replace the child process; returns the command lines it was given."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if written is not None:
            path = Path(command[command.index("-r") + 1])
            written["requirements"] = path.read_text()
        return subprocess.CompletedProcess(command, status, stdout=None, stderr=stderr)

    monkeypatch.setattr(downloads.subprocess, "run", run)
    return commands


def test_pip_is_told_to_require_the_hash_and_to_install_nothing(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[str, str] = {}
    commands = run_as(monkeypatch, 0, "", written)

    pip_download(index.wheel(), tmp_path)

    assert written["requirements"] == f"pack==1.0 --hash=sha256:{index.wheel().sha256}\n"
    assert {"download", "--no-deps", "--only-binary=:all:", "--require-hashes"} <= set(commands[0])
    assert not any("index" in argument or "://" in argument for argument in commands[0])


def test_a_failing_pip_is_quoted_with_a_remedy(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_as(monkeypatch, 1, "\n".join(f"line {number}" for number in range(100)))

    with pytest.raises(DownloadError, match="got exit status 1. Check the network") as caught:
        pip_download(index.wheel(), tmp_path)

    assert "line 99" in str(caught.value)
    assert "line 50" not in str(caught.value)


def test_a_missing_pip_is_recognised(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_as(monkeypatch, 1, "/bin/python: No module named pip")

    with pytest.raises(DownloadError, match="ensurepip"):
        pip_download(index.wheel(), tmp_path)
