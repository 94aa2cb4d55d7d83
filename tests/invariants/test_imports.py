"""The library stays light: nothing that talks to a cluster is imported by it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("ray", "mlflow", "deepspeed")

_IMPORT_ALL = """
import importlib, pkgutil, sys, tempfile
import slmrec_core
names = [module.name for module in pkgutil.walk_packages(slmrec_core.__path__, "slmrec_core.")]
for name in names:
    importlib.import_module(name)
"""
_USE_IT = """
import torch
from slmrec_core import Recommender, RecommenderConfig, RecommenderModel, open_backbone
for tuning in ("lora", "full"):
    config = RecommenderConfig(num_layers=1, tuning=tuning)
    model = RecommenderModel.from_backbone(config, open_backbone("tiny"), torch.zeros(4, 3))
    with tempfile.TemporaryDirectory() as folder:
        Recommender(model, ["", "a", "b", "c"], 5).save_pretrained(folder)
        Recommender.from_pretrained(folder).recommend([["a"]], k=1)
"""
_REPORT = f"""
print(len(names), *[name for name in {HEAVY} if name in sys.modules])
"""


def run_fresh(source: str) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    count, *heavy = done.stdout.split()
    return int(count), heavy


def test_importing_the_library_and_saving_a_model_loads_no_cluster_software() -> None:
    num_modules, heavy = run_fresh(_IMPORT_ALL + _USE_IT + _REPORT)
    assert num_modules == len(list((ROOT / "slmrec_core").rglob("*.py"))) - 1, "a module was not imported"
    assert heavy == []


def test_the_check_would_notice_an_import() -> None:
    # Stand-ins, so that this holds whether or not the real ones are installed, and takes no time.
    pretend = "\n".join(f"import types, sys; sys.modules[{name!r}] = types.ModuleType({name!r})" for name in HEAVY)
    assert run_fresh(f"names = []\n{pretend}\n{_REPORT}") == (0, list(HEAVY))


def test_the_four_lowest_packages_do_not_import_one_another_nor_anything_above() -> None:
    lowest = ("data", "models", "losses", "metrics")
    above = ("compression", "distillation", "training", "experiment", "recommender")
    checked = 0
    for package in lowest:
        forbidden = [f"slmrec_core.{name}" for name in (*lowest, *above) if name != package]
        for file in (ROOT / "slmrec_core" / package).glob("*.py"):
            checked += 1
            lines = [
                line.strip() for line in file.read_text().splitlines() if line.strip().startswith(("from", "import"))
            ]
            strays = [line for line in lines for name in forbidden if f"{name} " in f"{line} " or f"{name}." in line]
            assert not strays, (file.name, strays)
    assert checked > 15


def test_the_library_never_imports_the_orchestrator() -> None:
    files = list((ROOT / "slmrec_core").rglob("*.py"))
    assert len(files) > 30
    assert not [file for file in files if "orchestrator" in file.read_text().replace("orchestrator's", "")]
