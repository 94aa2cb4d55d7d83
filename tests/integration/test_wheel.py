"""The wheel: all that belongs into it, and a library in it that needs no cluster software."""

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_OF_THE_ORCHESTRATOR = ("ray", "mlflow", "deepspeed", "optuna", "matplotlib", "plotly", "slmrec", "__editable__")
_USE = """
import sys
from importlib.util import find_spec
assert not [name for name in ("ray", "mlflow", "deepspeed", "optuna") if find_spec(name)]
import slmrec_core as slm
from pathlib import Path
assert Path(slm.__file__).is_relative_to(sys.prefix), slm.__file__
dataset = slm.SequenceDataset.from_interactions(slm.synthetic_interactions(40, 12), 1, 1)
table = slm.train_sasrec(dataset, slm.SASRecConfig(item_dim=8), slm.TrainingConfig(epochs=1, precision="fp32"),
                         slm.EvaluationConfig(), 10, 0)[0]
model = slm.RecommenderModel.from_backbone(
    slm.RecommenderConfig(num_layers=2), slm.open_backbone("tiny"), table.item_table.detach())
recommender = slm.Recommender(model, list(dataset.item_ids), 10)
small = slm.compress(recommender, slm.CompressionConfig(weights="int8"))
small.save_pretrained("small")
print(*slm.Recommender.from_pretrained("small").recommend([[dataset.item_ids[1]]], k=3).item_ids[0])
"""


@pytest.mark.slow
def test_the_wheel_installs_and_its_library_works_without_cluster_software(tmp_path: Path) -> None:
    # A copy: setuptools leaves what it built beside the source, and would pack it again.
    source = tmp_path / "source"
    for folder in ("slmrec_core", "orchestrator", "search_spaces"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("slmrec-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    sources = {
        str(file.relative_to(ROOT))
        for folder, kind in (("slmrec_core", "py"), ("orchestrator", "py"), ("search_spaces", "yaml"))
        for file in (ROOT / folder).rglob(f"*.{kind}")
    }
    assert sources <= set(names), sorted(sources - set(names))
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=120)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, timeout=120)
    # What it needs is here already: all of it but what belongs to the orchestrator alone. Only ours comes from the
    # wheel: an editable install is not looked at.
    (packages,) = environment.glob("lib/python*/site-packages")
    needs = tmp_path / "needs"
    needs.mkdir()
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if not package.name.startswith(_OF_THE_ORCHESTRATOR):
            (needs / package.name).symlink_to(package)
    (packages / "needs.pth").write_text(f"{needs}\n")
    found = subprocess.run([str(python), "-c", _USE], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    assert len(found.stdout.split()) == 3
    # A sweep is planned before anything of a cluster is imported.
    plan = [str(python), "-m", "orchestrator.sweep", "smoke", "--dry-run", "--storage", str(tmp_path / "runs")]
    planned = subprocess.run(plan, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert planned.returncode == 0, planned.stderr
    assert "to run  sasrec-" in planned.stdout
