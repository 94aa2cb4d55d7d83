"""The command that goes on with a sweep: printed when one is interrupted, and kept in its plan."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from orchestrator.planning.backbones import PATH_SETTINGS
from slmrec_core.data import NAMED_SETS
from slmrec_core.models.backbone import SMOLLM2, TINY

_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets a variable of this name for what `ray job submit` starts: JSON with the job's runtime environment."""
_NAMES = (*NAMED_SETS, TINY, SMOLLM2)
"""Looked up before files."""


def resume_command(space: str, overrides: Sequence[str], storage: Path, name: str) -> str:
    """A command that works from any directory; for a job, the command that submits it again.

    Args:
        space: File or name, as it was given.
        overrides: `dotted.key=value`, as they were given.
        storage: The storage directory.
        name: Of the sweep.
    """
    runtime_env: dict[str, Any] = {}
    if (config := os.environ.get(_JOB_CONFIG)) is not None:
        runtime_env = json.loads(config).get("runtime_env") or {}
    # An uploaded working directory is a copy that is gone afterwards: what lies in it is named as in the next one.
    copy = Path.cwd() if "working_dir" in runtime_env else None
    words = [_placed(Path(__file__).with_name("sweep.py"), copy)]
    words.append(_placed(Path(space), copy) if Path(space).expanduser().is_file() else space)
    for override in overrides:
        words += ["--set", _placed_setting(override, copy)]
    words += ["--storage", str(storage), "--name", name, "--resume"]
    return shlex.join([sys.executable, *words] if config is None else [*_submission(runtime_env), *words])


def _submission(runtime_env: dict[str, Any]) -> list[str]:
    words = ["ray", "job", "submit"]
    if "working_dir" in runtime_env:
        address = str(runtime_env["working_dir"])
        # Ray's own scheme, for what was uploaded from the folder of the submission.
        words += ["--working-dir", "." if address.startswith("gcs://") else address]
    if any(value for key, value in runtime_env.items() if key not in ("working_dir", "excludes") and key[0] != "_"):
        # Its variables may be secrets, so they are not printed.
        words += ["--runtime-env-json", "<as before>"]
    found = shutil.which("python")
    is_ours = found is not None and Path(found).parent.samefile(Path(sys.executable).parent)
    return [*words, "--", "python" if is_ours else sys.executable]


def _placed_setting(override: str, copy: Path | None) -> str:
    name, _, text = override.partition("=")
    if name.strip() not in PATH_SETTINGS:
        return override
    value = yaml.safe_load(text)
    if isinstance(value, list):
        return f"{name}={json.dumps([_placed_value(item, copy) for item in value])}"
    return f"{name}={_placed_value(value, copy)}" if isinstance(value, str) else override


def _placed_value(value: Any, copy: Path | None) -> Any:
    is_path = isinstance(value, str) and value not in _NAMES and Path(value).expanduser().exists()
    return _placed(Path(value), copy) if is_path else value


def _placed(path: Path, copy: Path | None) -> str:
    path = path.expanduser().resolve()
    if copy is not None and path.is_relative_to(copy.resolve()):
        return str(path.relative_to(copy.resolve()))
    return str(path)
