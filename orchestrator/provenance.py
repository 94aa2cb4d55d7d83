"""Where numbers come from: versions, commit and host, for tags, summaries and manifests."""

import functools
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("slmrec", "ray", "torch", "torchao", "transformers", "peft", "deepspeed", "mlflow", "pandas", "numpy")


@functools.cache
def provenance() -> dict[str, str]:
    """By name: `version.<package>`, `commit`, `host`, `python`."""
    found = {"host": platform.node(), "python": platform.python_version(), "commit": _commit()}
    for package in _PACKAGES:
        try:
            found[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            # Under `--working-dir` the project is a bare folder.
            found[f"version.{package}"] = "not installed"
    return found


def _commit() -> str:
    root = Path(__file__).resolve().parents[1]
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return f"{commit}+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    run = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return run.stdout.strip()
