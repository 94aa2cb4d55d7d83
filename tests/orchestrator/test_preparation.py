"""What is done before Ray starts: finished stages are checked, data are built, mistakes come out at once."""

from pathlib import Path

import pytest

from orchestrator.preparation import prepare
from orchestrator.storage.stages import StageStore
from slmrec_core.errors import CheckpointError
from tests.orchestrator.small_spaces import only, plan_of


def test_data_are_built_once_and_what_is_there_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of({"method": "sasrec"})
    data = only(plan, "data")
    prepare(plan, tmp_path)
    assert StageStore(tmp_path / "stages").is_done(data.stage_id)
    assert f"{data.stage_id} done" in capsys.readouterr().out
    prepare(plan, tmp_path)
    assert "Checking 1 finished stage(s)" in capsys.readouterr().out


def test_a_finished_stage_that_was_altered_is_told_before_anything_reads_it(tmp_path: Path) -> None:
    plan = plan_of({"method": "sasrec"})
    prepare(plan, tmp_path)
    folder = tmp_path / "stages" / only(plan, "data").stage_id
    victim = max((path for path in folder.iterdir() if path.name != "manifest.json"), key=lambda p: p.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"{victim.name} must be as the manifest says.*Delete .*made again"):
        prepare(plan, tmp_path)
