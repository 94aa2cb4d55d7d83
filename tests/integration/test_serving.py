"""The logged student behind `mlflow models serve`: it answers a POST as the library does."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.tracking.pyfunc import save_pyfunc
from slmrec_core.recommender import Recommender
from tests.integration.conftest import free_port
from tests.tiny import jolted, tiny_model

CATALOGUE = ["", *(f"item-{index}" for index in range(1, 13))]
HISTORIES = [["item-3", "item-5"], ["item-1", "gone"], []]


def ask(port: int, question: dict[str, object]) -> list[dict[str, object]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: list[dict[str, object]] = json.loads(answer.read())["predictions"]
    return found


def wait_until_up(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(240):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
        else:
            return
    raise AssertionError(f"no server in two minutes:\n{log.read_text()}")


@pytest.mark.slow
def test_a_server_answers_a_post_as_the_library_does(tmp_path: Path) -> None:
    table = torch.randn(13, 6, generator=torch.Generator().manual_seed(7))
    Recommender(jolted(tiny_model(table)), CATALOGUE, 5, counts=range(13)).save_pretrained(tmp_path / "model")
    expected = Recommender.from_pretrained(tmp_path / "model").recommend(HISTORIES, k=3)
    save_pyfunc(tmp_path / "model", tmp_path / "logged")
    port, log = free_port(), tmp_path / "serve.log"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(tmp_path / "logged")]
    command += ["--env-manager", "local", "--port", str(port), "--workers", "1"]
    # MLflow looks for its server on the path, as where the environment is activated.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with log.open("w") as stream:
        # Not from the checkout: the code comes with the model.
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        wait_until_up(server, port, log)
        question = {"dataframe_split": {"columns": ["history"], "data": [[history] for history in HISTORIES]}}
        answers = ask(port, {**question, "params": {"top_k": 3}})
        # The example that lies beside the model is a question as it should be asked.
        example = json.loads((tmp_path / "logged" / "serving_input_example.json").read_text())
        assert len(ask(port, example)) == 1
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(port, {**question, "params": {"top_k": 0}})
        assert refused.value.code == 400
        assert "k must be a whole number, at least 1, got 0" in json.loads(refused.value.read())["message"]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    assert [answer["item_ids"] for answer in answers] == expected.item_ids
    assert [answer["unknown_items"] for answer in answers] == expected.unknown_items
    assert [answer["by_popularity"] for answer in answers] == expected.by_popularity
    for answer, scores in zip(answers, expected.scores, strict=True):
        np.testing.assert_allclose(answer["scores"], scores, rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
