"""Every benchmark runs and says what it found; no timing is asserted."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.stem for path in (ROOT / "benchmarks").glob("bench_*.py"))
NEEDS_RAY = {"bench_trial_overhead"}
FIELDS = {"benchmark", "size", "repeats", "date", "settings", "rows", "goals", "cores", "cpu", "commit", "host"}


@pytest.mark.parametrize(
    "script", [pytest.param(name, marks=pytest.mark.ray if name in NEEDS_RAY else ()) for name in SCRIPTS]
)
def test_smallest_form_ends_with_its_figures_as_json(script: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{script}", "--size", "smallest"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found.keys() >= FIELDS
    assert found["size"] == "smallest"
    assert found["rows"]
    assert len({tuple(row) for row in found["rows"]}) == 1
    for goal in found["goals"]:
        assert math.isfinite(goal["measured"])
        assert (goal["at_least"] is None) != (goal["at_most"] is None)


def test_readme_describes_every_script() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert [name for name in SCRIPTS if f"benchmarks.{name}" not in text] == []
