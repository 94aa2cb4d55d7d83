"""The documentation: its code runs, what it names exists, and the site builds and needs no other host."""

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.testing import assert_close

import slmrec_core as slm
from orchestrator.space.search_space import SPACES_FOLDER, SelectConfig
from orchestrator.training.workers import worker_defaults
from slmrec_core.experiment import dotted_defaults
from tests.integration.conftest import ROOT
from tests.invariants.test_public_names import PACKAGES
from tests.tiny import LLAMA, jolted, tiny_model, write_model_directory

DOCS = ROOT / "docs"
# `make study` writes the page and the rows, whose models have a card each.
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.relative_to(DOCS).parts[0] not in ("study", "study.md"))


def write_llm(folder: Path) -> None:
    write_model_directory(folder / "my-llm", LLAMA)


def write_student(folder: Path) -> None:
    table = torch.randn(41, 6, generator=torch.Generator().manual_seed(7))
    catalogue = ["", *(f"item-{index}" for index in range(1, 41))]
    slm.Recommender(jolted(tiny_model(table)), catalogue, 5, counts=range(41)).save_pretrained(folder / "student")


def write_log(folder: Path) -> None:
    columns = {"user_id": "customer", "item_id": "article", "timestamp": "time"}
    slm.synthetic_interactions().rename(columns=columns).to_csv(folder / "log.csv.gz", index=False)


WITH_CODE: dict[str, Callable[[Path], None]] = {
    "data.md": write_log,
    "tutorial.md": lambda folder: None,
    "howto/own_llm.md": write_llm,
    "howto/own_loss.md": lambda folder: None,
    "howto/serve.md": write_student,
}
"""Pages with Python, and what a reader has before the first line of it."""


def blocks(page: str) -> list[str]:
    """Fenced Python, each behind as many empty lines as put it where it stands in the page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.finditer(r"(?ms)^ *```python\n(.*?)^ *```$", text)
    return ["\n" * text[: block.start(1)].count("\n") + block[1] for block in found]


def test_these_pages_have_python_and_no_others() -> None:
    assert {str(page.relative_to(DOCS)) for page in PAGES if "```python" in page.read_text()} == set(WITH_CODE)
    assert {page: len(blocks(page)) for page in WITH_CODE} == {
        "data.md": 1,
        "tutorial.md": 9,
        "howto/own_llm.md": 3,
        "howto/own_loss.md": 3,
        "howto/serve.md": 7,
    }
    assert all((DOCS / page).read_text().count("```python") == len(blocks(page)) for page in WITH_CODE)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE)
def test_the_code_of_a_page_runs_from_its_first_line_to_its_last(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WITH_CODE[page](tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names: dict[str, object] = {}
    for block in blocks(page):
        exec(compile(block, str(DOCS / page), "exec"), names)
    if page == "tutorial.md":
        assert slm.Recommender.from_pretrained("student").network.num_layers == 2
        assert names["found"].by_popularity == [False, False, True]  # type: ignore[attr-defined]


def test_the_loss_of_the_page_is_that_of_the_example() -> None:
    # Lines of a page are shorter: what is compared is the code, not where it breaks.
    page, example = (
        {node.name: ast.dump(node) for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for text in ("\n".join(blocks("howto/own_loss.md")), (ROOT / "examples" / "own_loss.py").read_text())
    )
    assert set(page) == {"top_items_loss", "WithTopItems"}
    assert page == {name: example[name] for name in page}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    settings = {*dotted_defaults(), *worker_defaults(), "seeds", *(f"select.{n}" for n in SelectConfig.model_fields)}
    sections = "|".join(sorted({name.partition(".")[0] for name in settings if "." in name}))
    shown = {*re.findall(r"--set ([a-z_.]+)=", text), *re.findall(rf"`((?:{sections})\.[a-z_.]+)[:`=]", text)}
    assert shown <= settings
    spaces = {path.stem for path in SPACES_FOLDER.glob("*.yaml")}
    assert set(re.findall(r"sweep\.py ([a-z_]+)", text)) <= spaces
    rules = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    assert set(re.findall(r"(?m)(?:^|`)make ([a-z-]+)", text)) <= rules
    for name in re.findall(r"\bslm\.([A-Za-z_]+)", text):
        assert getattr(slm, name) is not None, name
    for script in re.findall(r"(?:examples|orchestrator|docs)/[a-z_]+\.py", text):
        assert (ROOT / script).is_file(), script


def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_figures", DOCS / "make_figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_figures_show_the_gradients_that_the_page_states() -> None:
    drawn = figures()
    angles, lengths = torch.tensor([0.3, 1.0, 2.5]), torch.tensor([0.5, 2.0, 3.0])
    states = drawn.at(angles, lengths)
    gap = states - torch.tensor([1.0, 0.0])
    cosine = drawn.gradients(drawn.feature_cosine_loss, states)
    assert_close(cosine.norm(dim=1), angles.sin() / lengths)
    assert_close((cosine * states).sum(dim=1), torch.zeros(3), atol=1e-6, rtol=0.0)
    assert_close(drawn.gradients(drawn.feature_norm_loss, states), 2 * gap)
    assert_close(drawn.gradients(drawn.distance_loss, states), gap / gap.norm(dim=1, keepdim=True))


def test_the_figures_of_the_page_are_those_that_the_script_draws(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "make_figures.py"), str(tmp_path)],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == set(re.findall(r"\]\((\w+\.png)\)", (DOCS / "explanation.md").read_text()))
    assert all((DOCS / name).is_file() for name in drawn)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` builds it: every warning, also of a link, is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_has_every_page_and_fetches_nothing_from_elsewhere(site: Path) -> None:
    for page in (*PAGES, DOCS / "study.md"):
        assert (site / page.relative_to(DOCS)).with_suffix(".html").is_file(), page
    assert not list(site.rglob("*.py"))
    read = [path.read_text(encoding="utf-8") for path in site.rglob("*.html")]
    assert len(read) > len(PAGES)
    fetched = {
        address
        for text in read
        for tag in re.findall(r"<(?:script|link|img|iframe|source|video)\b[^>]*>", text)
        for address in re.findall(r"(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)", tag)
    }
    assert fetched == set()
    assert not any("googleapis" in text or "gtag" in text for text in read)


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site: Path) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html"))
    names = {
        name
        for package in PACKAGES
        for name in importlib.import_module(package).__all__
        if inspect.isclass(thing := getattr(importlib.import_module(package), name)) or inspect.isfunction(thing)
    }
    assert len(names) > 80
    assert sorted(name for name in names if not re.search(rf'id="slmrec_core\.(?:\w+\.)*{name}"', text)) == []
