"""Every example runs in its small form, from a folder of its own, and shows what it promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slmrec_core.recommender import Recommender
from tests.integration.conftest import ROOT

EXAMPLES = ROOT / "examples"


def run_small(name: str, folder: Path) -> str:
    # The checkout's library, one thread, and no hub.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--small"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def values(pattern: str, text: str) -> list[float]:
    return [float(value) for value in re.findall(pattern, text)]


def test_these_are_the_examples_and_each_is_run_here() -> None:
    source = Path(__file__).read_text()
    names = sorted(path.stem for path in EXAMPLES.glob("*.py"))
    assert names == ["compress_and_serve", "own_data", "own_loss"]
    assert all(f'run_small("{name}"' in source for name in names)


@pytest.mark.slow
def test_own_data_ends_with_a_student_that_ranks_and_answers(tmp_path: Path) -> None:
    text = run_small("own_data", tmp_path)
    quality = dict(re.findall(r"(?m)^(SASRec|teacher|student): test NDCG@10 ([\d.]+)$", text))
    # Who has learnt nothing has 0.08 among 60 items; who knows the ring is right four times in five.
    assert {name: float(value) > 0.6 for name, value in quality.items()} == dict.fromkeys(
        ("SASRec", "teacher", "student"), True
    )
    model = Recommender.from_pretrained(tmp_path / "student")
    assert model.network.num_layers == 2
    answers = re.findall(r"(?m)^user-\d+: … (.*) → (.*)$", text)
    assert len(answers) == 3
    for newest, best in answers:
        assert len(set(best.split(", ")) & set(model.item_ids)) == 5
        assert not set(best.split(", ")) & set(newest.split(", "))


@pytest.mark.slow
def test_compress_and_serve_ends_with_a_smaller_model_that_answers_alike(tmp_path: Path) -> None:
    text = run_small("compress_and_serve", tmp_path)
    ((before, after),) = re.findall(r"weights: (\d+) kB → (\d+) kB as int8", text)
    assert int(after) < int(before)
    assert values(r"the same among the best 10: (\d+)", text)[0] >= 8
    assert len(re.findall(r"(?m)^after item-\d+: item-\d+, item-\d+, item-\d+$", text)) == 5
    assert "as for the whole history: True" in text
    model = Recommender.from_pretrained(tmp_path / "compressed")
    assert model.network.weight_format == "int8"
    assert len(re.findall(r"(?m)^the most popular, for a stranger: item-\d+, item-\d+, item-\d+$", text)) == 1


@pytest.mark.slow
def test_own_loss_is_logged_beside_the_librarys_and_does_something(tmp_path: Path) -> None:
    text = run_small("own_loss", tmp_path)
    assert len(re.findall(r"cosine [\d.]+, next_item [\d.]+, norm [\d.]+, supervision [\d.]+, top_items", text)) == 6
    without, beside = values(r"epoch 3: .*top_items ([\d.]+);", text)
    assert beside < without
    assert min(values(r"epoch 3: .*valid NDCG@10 ([\d.]+)", text)) > 0.6
