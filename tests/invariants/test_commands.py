"""The command line is a contract: options are added on purpose or not at all."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "orchestrator" / "sweep.py"


def run_sweep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SWEEP), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_help_lists_these_options_and_works_from_any_directory(tmp_path: Path) -> None:
    done = run_sweep(tmp_path, "--help")
    assert done.returncode == 0, done.stderr
    assert sorted(set(re.findall(r"--[a-z-]+", done.stdout.partition("options:")[2]))) == [
        "--dry-run",
        "--help",
        "--name",
        "--quiet",
        "--resume",
        "--set",
        "--storage",
    ]
    assert "SPACE" in done.stdout
    assert "(default: depth)" in " ".join(done.stdout.split())
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_ends_the_script_with_2_and_no_traceback(tmp_path: Path) -> None:
    done = run_sweep(tmp_path, "dept", "--storage", "here")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "search space: there is no such file or name, got 'dept'. Did you mean 'depth'?\n"
    assert list(tmp_path.iterdir()) == []


def test_the_entry_defines_nothing_that_would_pickle_as_main() -> None:
    tree = ast.parse(SWEEP.read_text())
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    assert not [node for node in ast.walk(tree) if isinstance(node, kinds)]
    assert "from orchestrator.cli import main" in SWEEP.read_text()


def test_these_modules_read_a_command_line_and_no_others() -> None:
    files = [*(ROOT / "orchestrator").rglob("*.py"), *(ROOT / "slmrec_core").rglob("*.py")]
    assert len(files) > 50
    assert sorted(str(file.relative_to(ROOT)) for file in files if "import argparse" in file.read_text()) == [
        "orchestrator/cli.py",
        "slmrec_core/data/__main__.py",
    ]
