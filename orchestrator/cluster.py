"""Ray: joined where a cluster is up, started here where none is, with its noise kept out of the user's sight."""

import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.forkserver import py_executable
from orchestrator.ray_environment import RAY_ENVIRONMENT
from orchestrator.resources import Node
from slmrec_core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
_AUTH_TOKEN = Path("~/.ray/auth_token")
_ANSWER_S = 10.0


@contextlib.contextmanager
def connected(forks: bool = True) -> Iterator[list[Node]]:
    """A connection to Ray for the length of the block; gives the nodes that are alive.

    A cluster is joined where RAY_ADDRESS names one, as under `ray job submit`; otherwise one is started here, with
    its dashboard, since Ray frees the workers of a trial that was stopped early through it.

    Args:
        forks: Worker processes are forked; see `orchestrator.forkserver`. False = Ray's own Python starts each.

    Raises:
        ConfigError: No cluster is where RAY_ADDRESS says.
    """
    # Failures are told by us, in a sentence; Ray's own tracebacks stay in its logs and in the sweep's folder.
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Under `ray job submit --runtime-env-json` Ray takes a key that both the job and we set for a conflict. What we
    # set starts from what the job has, so ours holds.
    os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address in (None, "", "local"):
            _init("local", forks, {}, include_dashboard=True, dashboard_host="127.0.0.1")
            if (token := _AUTH_TOKEN.expanduser()).is_file():
                # Ray writes it readable for all.
                token.chmod(0o600)
        else:
            _join(address, forks)
        yield _nodes()
    finally:
        ray.shutdown()


def _join(address: str, forks: bool) -> None:
    must = "RAY_ADDRESS: must be <host>:<port> of the head of a cluster that is up, got"
    if "://" in address:
        raise ConfigError(
            f"{must} the URL {address!r}, which is for `ray job submit -- python orchestrator/sweep.py`. Submit a job,"
            " or unset it to start Ray here."
        )
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdigit():
            # Ray itself takes two minutes to find that nobody is there.
            socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
        # Ray frees the workers of a stopped trial through an actor that looks for its cluster, and finds it by this
        # alone where a machine has several.
        _init(address, forks, {"RAY_ADDRESS": address})
    # A host or port that cannot be; a network that does not lead there.
    except (ValueError, OverflowError, OSError) as error:
        why = (str(error).splitlines() or [repr(error)])[0]
        raise ConfigError(
            f"{must} {address!r} ({why}). Give what `ray start --head` printed, or unset it to start Ray here."
        ) from error


def _init(address: str, forks: bool, environment: dict[str, str], **options: Any) -> None:
    own = {name: os.environ[name] for name in ("SLMREC_CACHE", "HF_HOME", "HF_TOKEN") if name in os.environ}
    ray.init(
        address=address,
        runtime_env={
            "env_vars": {**RAY_ENVIRONMENT, "PYTHONPATH": _python_path(), **own, **environment},
            **({"py_executable": py_executable(str(ROOT))} if forks else {}),
        },
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
        **options,
    )


def check_storage_is_shared(storage: Path, nodes: list[Node]) -> None:
    """Every node that may get a worker must see the storage directory.

    Raises:
        ConfigError: One does not; the message names it.
    """
    if len(nodes) < 2:
        return
    marker = storage / f".seen-{uuid.uuid4().hex[:8]}"
    marker.touch()
    try:
        blind = [node for node in ray.nodes() if node["Alive"] and not _sees(node["NodeID"], marker)]
    finally:
        marker.unlink()
    if blind:
        raise ConfigError(
            f"--storage: every node must see it, got {storage}, which {blind[0]['NodeManagerHostname']} does not."
            " Give a shared mount."
        )


def _sees(node_id: str, marker: Path) -> bool:
    look = ray.remote(num_cpus=0)(_exists)
    strategy = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    return bool(ray.get(look.options(scheduling_strategy=strategy).remote(str(marker))))


def _exists(path: str) -> bool:
    return Path(path).is_file()


def _nodes() -> list[Node]:
    return [
        Node(node["NodeManagerHostname"], node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]


def _python_path() -> str:
    """Workers import this very copy of the project, under `--working-dir` as well as from an editable install."""
    earlier = os.environ.get("PYTHONPATH")
    return f"{ROOT}{os.pathsep}{earlier}" if earlier else str(ROOT)
