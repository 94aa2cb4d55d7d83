"""What the README shows exists: targets, spaces, settings, library names, files."""

import re
from pathlib import Path

import pytest

import slmrec_core as slm
from orchestrator.space.search_space import SPACES_FOLDER
from orchestrator.training.workers import worker_defaults
from slmrec_core.experiment import dotted_defaults

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def found(pattern: str) -> list[str]:
    return sorted(set(re.findall(pattern, README)))


def test_every_make_target_exists() -> None:
    targets = found(r"(?m)^make ([a-z-]+)")
    rules = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text())

    assert len(targets) >= 3
    assert set(targets) <= set(rules)


def test_every_space_exists_and_is_described() -> None:
    named = set(found(r"sweep\.py ([a-z_]+)")) | set(found(r"(?m)^\| `([a-z_]+)`"))
    shipped = {path.stem for path in SPACES_FOLDER.glob("*.yaml")}

    assert named == shipped


def test_every_setting_exists() -> None:
    known = {*dotted_defaults(), *worker_defaults(), "seeds", "dotted.key", "select.registered_model"}
    shown = set(found(r"--set ([a-z_.]+)=")) | set(
        found(r"`((?:data|teacher|student|distillation|training|evaluation|probe|workers)\.[a-z_]+)[:`]")
    )

    assert len(shown) >= 12
    assert shown <= known


def test_every_library_name_exists() -> None:
    for name in found(r"slm\.([A-Za-z_]+)"):
        assert getattr(slm, name) is not None, name


@pytest.mark.parametrize("path", found(r"\]\((?!https?:)([^)#]+)\)"))
def test_every_linked_file_exists(path: str) -> None:
    assert (ROOT / path).is_file()


def test_everything_in_the_tree_exists() -> None:
    folder, shown = "", 0
    for indent, name in re.findall(r"(?m)^( {0,2})([a-z_]+(?:\.py|/))  +\S", README):
        folder = name if not indent else folder
        assert (ROOT / (folder + name if indent else name)).exists(), name
        shown += 1

    assert shown >= 20
