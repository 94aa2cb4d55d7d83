"""score.py through real Ray: the library's own answers, once for each user, also after it was killed."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from slmrec_core.recommender import Recommender
from tests.integration.conftest import ROOT
from tests.tiny import jolted, tiny_model

SCORE = ROOT / "orchestrator" / "score.py"
NUM_USERS = 300


def histories(folder: Path) -> list[list[str]]:
    """Two files of users with histories of 0 to 9 events, some of them unknown to the model."""
    generator = np.random.default_rng(0)
    found = [
        [f"item-{item}" for item in generator.integers(1, 15, generator.integers(0, 10))] for _ in range(NUM_USERS)
    ]
    folder.mkdir()
    frame = pd.DataFrame({"user_id": [f"u{index}" for index in range(NUM_USERS)], "history": found})
    for part in range(2):
        frame[part::2].to_parquet(folder / f"{part}.parquet", row_group_size=20)
    return found


def model(folder: Path) -> Recommender:
    table = torch.randn(13, 6, generator=torch.Generator().manual_seed(7))
    catalogue = ["", *(f"item-{index}" for index in range(1, 13))]
    recommender = Recommender(jolted(tiny_model(table)), catalogue, 5, counts=range(13))
    recommender.save_pretrained(folder)
    return Recommender.from_pretrained(folder).merge_lora()


def score(environment: dict[str, str], *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCORE), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def output(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate(timeout=300)
    return text


@pytest.mark.ray
def test_the_answers_are_the_librarys_once_for_each_user_after_a_kill(cluster: dict[str, str], tmp_path: Path) -> None:
    asked, recommender, out = histories(tmp_path / "histories"), model(tmp_path / "model"), tmp_path / "out"
    arguments = (tmp_path / "model", tmp_path / "histories", out, "-k", 4)
    killed = score(cluster, *arguments)
    for _ in range(1200):
        if killed.poll() is not None or list(out.glob("*.parquet")):
            break
        time.sleep(0.1)
    killed.kill()
    output(killed)
    again = score(cluster, *arguments)
    text = output(again)
    assert again.returncode == 0, text
    frame = pd.read_parquet(out)
    assert sorted(frame["user_id"]) == sorted(f"u{index}" for index in range(NUM_USERS))
    frame = frame.set_index("user_id").loc[[f"u{index}" for index in range(NUM_USERS)]]
    expected = recommender.recommend(asked, k=4)
    assert [list(items) for items in frame["item_ids"]] == expected.item_ids
    assert [list(items) for items in frame["unknown_items"]] == expected.unknown_items
    assert frame["by_popularity"].tolist() == expected.by_popularity
    for found, row in zip(frame["scores"], expected.scores, strict=True):
        np.testing.assert_allclose(found, row[: len(found)], rtol=1e-4, atol=1e-5)
    # Once more: nothing is left to do, and another question needs another folder.
    done = score(cluster, *arguments)
    assert "are scored already" in output(done)
    assert done.returncode == 0
    other = score(cluster, *arguments[:3], "-k", 5)
    assert "was begun with k 4, got 5" in output(other)
    assert other.returncode == 2


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"user_id": ["a"]}), "must have the columns user_id and history"),
        (pd.DataFrame({"user_id": ["a"], "history": ["x y"]}), "a list of raw item ids"),
        (pd.DataFrame({"user_id": ["a", "a"], "history": [["x"], ["y"]]}), "each user_id once, got 1 twice"),
        (pd.DataFrame({"user_id": ["a", None], "history": [["x"], ["y"]]}), "each user_id once, got 1 without"),
    ],
)
def test_histories_that_cannot_be_scored_are_refused_before_ray_starts(
    tmp_path: Path, frame: pd.DataFrame, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(tmp_path, capsys, message, lambda path: frame.to_parquet(path))


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], message: str, write: Callable[[Path], object]) -> None:
    from orchestrator.cli import score_main  # noqa: PLC0415

    model(tmp_path / "model")
    write(tmp_path / "h.parquet")
    code = score_main([str(tmp_path / "model"), str(tmp_path / "h.parquet"), str(tmp_path / "out")])
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_no_parquet_no_model_or_no_folder_of_ours_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.cli import score_main  # noqa: PLC0415

    refused(tmp_path, capsys, "must be parquet, got", lambda path: path.write_text("user_id,history\n"))
    good = pd.DataFrame({"user_id": ["a"], "history": [["x"]]})
    good.to_parquet(tmp_path / "h.parquet")
    arguments = [str(tmp_path / "model"), str(tmp_path / "h.parquet"), str(tmp_path / "out")]
    assert score_main([str(tmp_path / "nothing"), *arguments[1:]]) == 2
    assert "must be a directory that save_pretrained wrote" in capsys.readouterr().err
    assert score_main([arguments[0], str(tmp_path / "nothing"), arguments[2]]) == 2
    assert "there is no such file or folder" in capsys.readouterr().err
    assert score_main([*arguments, "-k", "0"]) == 2
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert score_main(arguments) == 2
    assert "must be a new or empty folder" in capsys.readouterr().err
    (tmp_path / "out" / "_scoring.json").write_text(json.dumps({"asked": {}}))
    assert score_main(arguments) == 2
    assert "scoring.json cannot be read" in capsys.readouterr().err
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"
