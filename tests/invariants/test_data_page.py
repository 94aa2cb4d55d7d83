"""The page on data names what there is, and nothing else."""

import re
from pathlib import Path

from slmrec_core.data import FORMATS, DataConfig

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def test_every_format_has_a_row_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE, flags=re.MULTILINE)
    assert sorted(rows) == sorted(FORMATS)


def test_every_setting_of_the_data_is_there_with_its_default() -> None:
    table = PAGE.partition("## Settings")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `data.")]
    found = {}
    for names, defaults in rows:
        values = defaults.strip().split(", ") if "[" not in defaults else [defaults.strip()]
        found |= dict(zip(re.findall(r"`data\.(\w+)`", names), values, strict=True))
    assert found.keys() == DataConfig.model_fields.keys()
    for name, default in found.items():
        value = DataConfig.model_fields[name].default
        shown = "null" if value is None else str(list(value)) if isinstance(value, tuple) else str(value)
        assert default.strip("`") == shown, name
