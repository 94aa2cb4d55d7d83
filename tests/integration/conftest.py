"""One Ray cluster for the whole test run, with a home of its own, and sweeps run against it as a user would."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SWEEP = ROOT / "orchestrator" / "sweep.py"

SMALL = """# Does one small model train?
# Under a minute.
study: small
base:
  data.path: synthetic
  backbone: tiny
  teacher.num_layers: 2
  max_seq_len: 20
  item_table.training.epochs: 1
  training.epochs: {epochs}
  training.precision: fp32
params:
{params}
"""

FINETUNE_ONE = "  - {method: finetune, student.num_layers: 1}"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of a process that talks to a cluster of two CPUs, started with `ray start --head`."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        **os.environ,
        "HOME": str(home),
        # Downloads of earlier runs may be used; Ray's token must not be left in the real home.
        "SLMREC_CACHE": os.environ.get("SLMREC_CACHE", str(Path.home() / ".cache" / "slmrec")),
        "RAY_AUTH_MODE": "disabled",
        "RAY_raylet_start_wait_time_s": "180",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for name in ("MLFLOW_TRACKING_URI", "SLMREC_STORAGE", "RAY_ADDRESS"):
        environment.pop(name, None)
    # Not `ray stop`, which would end every cluster of the machine: this one is a process group of its own, under a
    # folder of its own, whose path must be short because sockets lie in it.
    temporary = tempfile.mkdtemp(prefix="slmrec-", dir="/tmp")
    port, dashboard_port = free_port(), free_port()
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    start += [f"--port={port}", f"--dashboard-port={dashboard_port}", "--dashboard-host=127.0.0.1"]
    start += ["--disable-usage-stats", f"--temp-dir={temporary}", f"--dashboard-agent-listen-port={free_port()}"]
    log = (home / "ray.log").open("w")
    head = subprocess.Popen(start, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for_cluster(head, home / "ray.log")
        yield {**environment, "RAY_ADDRESS": f"127.0.0.1:{port}", "DASHBOARD": f"http://127.0.0.1:{dashboard_port}"}
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        log.close()
        shutil.rmtree(temporary, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_cluster(head: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if "Ray runtime started" in log.read_text():
            return
        assert head.poll() is None, log.read_text()
        time.sleep(0.5)
    raise AssertionError(f"Ray did not come up in five minutes:\n{log.read_text()}")


@pytest.fixture
def small_space(tmp_path: Path) -> Callable[..., Path]:
    """Writes a search space of tiny models: `small_space(params, epochs=2, more="")`."""

    def write(params: str = FINETUNE_ONE, epochs: int = 2, more: str = "") -> Path:
        path = tmp_path / "small.yaml"
        path.write_text(SMALL.format(params=params, epochs=epochs) + more)
        return path

    return write


@pytest.fixture
def sweep(cluster: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `sweep.py` with arguments, from a folder that is not the repository's, and gives what it printed."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SWEEP), *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env={**cluster, **environment}, capture_output=True, text=True, timeout=600
        )

    return run


@pytest.fixture
def start_sweep(cluster: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `sweep.py` and goes on; what still runs at the end of the test is killed."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(SWEEP), *map(str, arguments)]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**cluster, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()
