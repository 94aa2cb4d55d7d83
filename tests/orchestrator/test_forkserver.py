"""A forked worker process is what plain Python would have made of it, only sooner."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.forkserver import MODULES, py_executable

ROOT = Path(__file__).resolve().parents[2]
LOOK = """
import json, os, random, sys
import numpy
print(json.dumps({
    "arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ), "name": __name__,
    "path": sys.path[0], "read": sys.stdin.read(), "modules": list(sys.modules), "parent": os.getppid(),
    "files": sorted(os.listdir("/proc/self/fd"))[:-1], "is_leader": os.getpgrp() == os.getpid(),
    "draws": [random.random(), float(numpy.random.rand())],
}))
print("a word", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def raylet() -> Iterator[subprocess.Popen[bytes]]:
    """What a server takes for its raylet: it ends with it."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture
def run(raylet: subprocess.Popen[bytes], tmp_path: Path) -> Run:
    """Runs a script as Ray would: by the shell words, from a folder, with the variables of a job."""
    script = tmp_path / "look.py"
    script.write_text(LOOK)

    def run_script(status: int = 0, root: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"RAY_RAYLET_PID": str(raylet.pid), "RAY_JOB_ID": "01", "PYTHONPATH": str(ROOT), **variables}
        words = f"exec {py_executable(str(root))} {shlex.join([str(script), str(status), 'a b'])}"
        return subprocess.run(
            ["bash", "-c", words],
            cwd=tmp_path,
            env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", **environment},
            input="typed",
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run_script


def seen(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_forked_script_sees_what_a_plain_one_sees(run: Run, tmp_path: Path) -> None:
    forked, plain = run(3, GIVEN="1"), run(3, GIVEN="1", RAY_RAYLET_PID="")

    assert forked.returncode == plain.returncode == 3
    assert forked.stderr == plain.stderr == "a word\n"
    for name in ("arguments", "folder", "name", "read", "files"):
        assert seen(forked)[name] == seen(plain)[name]
    assert seen(forked)["path"] == str(tmp_path)
    theirs = {**seen(plain)["environment"], "RAY_RAYLET_PID": seen(forked)["environment"]["RAY_RAYLET_PID"]}
    assert seen(forked)["environment"] == theirs


def test_a_forked_script_has_the_libraries_and_not_ray(run: Run) -> None:
    forked, plain = seen(run()), seen(run(RAY_RAYLET_PID=""))

    assert set(MODULES) <= set(forked["modules"])
    assert "torch" not in plain["modules"]
    assert [name for name in forked["modules"] if name == "ray" or name.startswith("ray.")] == []


def test_forks_share_a_server_and_nothing_else(run: Run) -> None:
    one, two = seen(run()), seen(run())

    assert one["parent"] == two["parent"]
    assert one["draws"][0] != two["draws"][0]
    assert one["draws"][1] != two["draws"][1]
    assert one["is_leader"], "Ray ends the process group of a worker"


def test_another_job_has_a_server_of_its_own(run: Run) -> None:
    assert seen(run())["parent"] != seen(run(RAY_JOB_ID="02"))["parent"]


def test_a_server_that_was_lost_is_replaced(run: Run) -> None:
    lost = psutil.Process(seen(run())["parent"])
    lost.kill()
    lost.wait(10)

    assert seen(run())["parent"] != lost.pid


def test_a_node_without_this_copy_of_the_project_runs_plain_python(run: Run, tmp_path: Path) -> None:
    done = run(root=tmp_path / "elsewhere")

    assert done.returncode == 0, done.stderr
    assert "torch" not in seen(done)["modules"]


def test_a_server_has_one_thread_that_matters_and_ends_with_its_raylet(run: Run) -> None:
    with subprocess.Popen(["sleep", "600"]) as raylet:
        server = psutil.Process(seen(run(RAY_RAYLET_PID=str(raylet.pid)))["parent"])
        names = {(Path("/proc") / str(server.pid) / "task" / str(t.id) / "comm").read_text() for t in server.threads()}
        raylet.kill()

    # Arrow's allocator starts its thread anew in a fork.
    assert {name.strip() for name in names} <= {
        "python",
        Path(os.path.realpath(sys.executable)).name,
        "jemalloc_bg_thd",
    }
    deadline = time.monotonic() + 10
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
