"""A trial's trainer leaves out what it does not need, and is Ray's own where Ray has changed."""

import importlib
import sys
from collections.abc import Iterator

import pytest
import ray.train
from ray.train.torch import TorchTrainer

from orchestrator.training import trainer


@pytest.fixture
def ray_without_the_internals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setitem(sys.modules, "ray.train.v2._internal.execution.controller", None)
        importlib.reload(trainer)
        yield
    importlib.reload(trainer)


def made() -> TorchTrainer:
    return trainer.trial_trainer(print, run_config=ray.train.RunConfig(name="x", storage_path="/tmp"))


def test_only_the_needless_callbacks_are_left_out_or_replaced() -> None:
    theirs = [type(c).__name__ for c in TorchTrainer._create_default_callbacks(made())]
    ours = [type(c).__name__ for c in made()._create_default_callbacks()]

    assert type(made()) is not TorchTrainer, "Ray has changed: trials take seconds longer"
    expected = [name for name in theirs if name != "DatasetsCallback"]
    assert ours == ["_KeptCleaner" if name == "PlacementGroupCleanerCallback" else name for name in expected]
    assert len(ours) == len(theirs) - 1


@pytest.mark.usefixtures("ray_without_the_internals")
def test_a_ray_without_these_internals_gets_its_own_trainer() -> None:
    assert type(made()) is TorchTrainer
    # Its callback wants to be made inside a trial.
    with pytest.raises(RuntimeError, match="Tune session"):
        trainer.report_to_tune()
