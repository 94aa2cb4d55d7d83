"""The command that goes on with a sweep, on this machine and as a job of a cluster."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import resume_command as module
from orchestrator.resume_command import resume_command

Command = Callable[..., list[str]]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a data file and a backbone in it."""
    folder = tmp_path / "copy"
    (folder / "llm").mkdir(parents=True)
    (folder / "log.csv").touch()
    (folder / "own.yaml").touch()
    (folder / "seeds").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    return folder


def command(space: str = "depth", *overrides: str) -> list[str]:
    return shlex.split(resume_command(space, overrides, Path("/storage"), "mine"))


def in_a_job(monkeypatch: pytest.MonkeyPatch, **runtime_env: Any) -> None:
    config = {"runtime_env": {"env_vars": {}, "_ray_commit": "x", **runtime_env}, "metadata": {"job_id": "1"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(config))


END = ["--storage", "/storage", "--name", "mine", "--resume"]
UPLOADED = "gcs://_ray_pkg_0123456789abcdef.zip"


def test_here_every_path_is_absolute(copy: Path) -> None:
    # A backbone's directory was not, and was looked for on a hub after a change of directory.
    words = command("own.yaml", "data.path=log.csv", "backbone=llm", "student.backbone=tiny", "seeds=3")
    assert words[0] == sys.executable
    assert words[1].endswith("/orchestrator/sweep.py")
    expected = f"--set data.path={copy}/log.csv --set backbone={copy}/llm --set student.backbone=tiny --set seeds=3"
    assert words[2:-5] == [f"{copy}/own.yaml", *expected.split()]
    assert words[-5:] == END


def test_the_paths_of_an_axis_are_absolute_too(copy: Path) -> None:
    (axis,) = [word for word in command("depth", "backbone=[llm, tiny, org/model]") if word.startswith("backbone")]
    assert json.loads(axis.partition("=")[2]) == [f"{copy}/llm", "tiny", "org/model"]


@pytest.mark.parametrize("override", ["data.path=synthetic", "seeds=seeds", f"seeds=[{', '.join('1' * 300)}]"])
def test_what_names_no_file_stays_as_it_was_given(copy: Path, override: str) -> None:
    (copy / "synthetic").touch()
    assert override in command("depth", override)


def test_an_uploaded_job_is_submitted_again_with_the_paths_of_the_next_copy(
    copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The command named /tmp/ray/…/_ray_pkg_…/orchestrator/sweep.py, which is gone when it is needed.
    in_a_job(monkeypatch, working_dir=UPLOADED)
    monkeypatch.setattr(module, "__file__", str(copy / "orchestrator" / "resume_command.py"))
    outside = tmp_path / "outside.csv"
    outside.touch()
    words = command("own.yaml", "data.path=log.csv", f"backbone={copy}/llm")
    submission = "ray job submit --working-dir . -- python orchestrator/sweep.py own.yaml"
    assert words == [*submission.split(), "--set", "data.path=log.csv", "--set", "backbone=llm", *END]
    assert f"data.path={outside}" in command("depth", f"data.path={outside}")


def test_a_job_without_a_working_directory_runs_what_is_installed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_job(monkeypatch)
    words = command("own.yaml")
    assert words[:5] == ["ray", "job", "submit", "--", "python"]
    assert Path(words[5]) == Path(module.__file__).with_name("sweep.py")
    assert words[6:] == [f"{copy}/own.yaml", *END]


def test_a_working_directory_that_lies_elsewhere_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_job(monkeypatch, working_dir="https://host/project.zip")
    assert command()[3:5] == ["--working-dir", "https://host/project.zip"]


def test_variables_of_a_job_are_asked_for_and_not_printed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_job(monkeypatch, env_vars={"HF_TOKEN": "secret"})
    assert command()[3:5] == ["--runtime-env-json", "<as before>"]
    assert "secret" not in " ".join(command())


def test_another_python_than_the_shells_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_job(monkeypatch)
    monkeypatch.setenv("PATH", str(copy))
    assert command()[4] == sys.executable
