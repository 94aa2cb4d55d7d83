"""Which cluster is joined, and how an address that leads nowhere is told; Ray itself is not started."""

import json
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
import ray

from orchestrator.cluster import connected
from slmrec_core.errors import ConfigError


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("RAY_ADDRESS", "RAY_OVERRIDE_JOB_RUNTIME_ENV", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        # Set first, so that what is set meanwhile is undone as well.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    names = ("ray", "ray.tune", "ray.train", "ray.data")
    levels = {name: logging.getLogger(name).level for name in names}
    # Ray puts its own in its place.
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def refusal(address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError) as caught, connected():
        pass
    return str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8265", "https://head", "ray://head:10001"])
def test_the_address_of_the_job_server_is_no_cluster_to_join(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Exported for `ray job submit`, and then `make sweep` in the same shell.
    told = refusal(url, monkeypatch)
    assert f"RAY_ADDRESS: must be <host>:<port> of the head of a cluster that is up, got the URL '{url}'" in told
    assert "Submit a job, or unset it" in told


@pytest.mark.parametrize("address", ["nonsense", "localhost:0", "127.0.0.1:99999999"])
def test_an_address_that_cannot_be_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"got '{address}' (" in refusal(address, monkeypatch)


def test_a_cluster_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert f"got '{address}' ([Errno 111] Connection refused). Give what `ray start --head`" in refusal(
        address, monkeypatch
    )


def test_what_the_job_has_set_is_no_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    # `ray job submit --runtime-env-json '{"env_vars": {"SLMREC_CACHE": …}}'` once ended with "Failed to merge".
    variables = {"SLMREC_CACHE": "/cache", "HF_TOKEN": "x", "PYTHONPATH": "/lib", "RAY_TRAIN_V2_ENABLED": "1"}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {"env_vars": variables}}))
    for name in ("SLMREC_CACHE", "HF_TOKEN", "PYTHONPATH"):
        monkeypatch.setenv(name, variables[name])
    merged = {}

    def stop_here(runtime_env: dict[str, dict[str, str]], *_: object) -> None:
        """Ray calls it with what it has merged, before it connects to anything."""
        merged.update(runtime_env["env_vars"])
        raise RuntimeError("merged")

    monkeypatch.setattr(ray._private.worker, "_maybe_modify_runtime_env", stop_here)
    with pytest.raises(RuntimeError, match="merged"), connected():
        pass
    assert merged["SLMREC_CACHE"] == "/cache"
    assert merged["PYTHONPATH"].endswith(":/lib")
    assert merged["RAY_TRAIN_V2_ENABLED"] == "1"
