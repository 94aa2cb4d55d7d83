"""Text is read block by block: equal results whatever the block, and memory for what is kept and no more."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from slmrec_core.data import load_interactions, text_files
from slmrec_core.data.text_files import open_text
from slmrec_core.errors import DataError
from tests.packing import COMPRESS

HEADERS = (
    "user_id,item_id,timestamp\n",
    "user_id;item_id;timestamp\n",
    "user_id\titem_id\ttimestamp\n",
    "user_id item_id timestamp\n",
    "# of ours\n\nuser_id,item_id,timestamp,\n",
    "user_id:token\titem_id:token\ttimestamp:float\n",
    "user_id:token\titem_id_list:token_seq\titem_id:token\n",
    "user_id,parent_asin,rating,timestamp,history\nu,b,5,7,a\n",
    "1::2::3::978300760\n",
    "A2CX7LUOHB2NDG,B00004Z5M1,5.0,1341100800\n",
    "1 2\n",
    "1 2 3\n",
    "uid iid\n",
    "",
)
WORDS = ("u", "v", "7", "30", "978300760", "Æ", '"', '""', '"q"', " ", ",", "\t", ";", "::", "nan", "#")
rows = st.lists(
    st.sampled_from(("u,a,7", "u\ta\t7", "2::2::3::978300761", "v,a,5,8,b a", "3 4", "4\t5 6\t7")), max_size=6
)
noise = st.lists(st.sampled_from(WORDS), max_size=9).map("".join)
ends = st.sampled_from(("\n", "\r\n", "\r", "\n\n", " \n"))
bodies = st.lists(st.tuples(st.one_of(rows.map("\n".join), noise), ends), max_size=5).map(
    lambda parts: "".join(text + end for text, end in parts)
)


def outcome(path: Path) -> object:
    """All that can be seen of a reading: the table, or the message."""
    try:
        frame = load_interactions(path)
    except DataError as error:
        return str(error)
    return frame.to_dict("list"), frame.dtypes.astype(str).to_dict(), frame.attrs


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.sampled_from(HEADERS),
    body=bodies,
    block_bytes=st.integers(1, 40),
    compression=st.sampled_from(list(COMPRESS)),
)
@example(header=HEADERS[2], body='u\t"a"\t7\nu\t"b\t8\n', block_bytes=4, compression="plain")
@example(header=HEADERS[0], body='u,a,7\nu,"b",8\nu,b,9,10\nu,"c,9\n', block_bytes=4, compression="plain")
@example(header=HEADERS[0], body="u,a,7\n\n \nu,b,8\n \n\n", block_bytes=1, compression="gzip")
def test_the_size_of_a_block_changes_neither_the_events_nor_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, body: str, block_bytes: int, compression: str
) -> None:
    path = tmp_path / "log"
    path.write_bytes(COMPRESS[compression]((header + body).encode()))
    whole = outcome(path)
    with monkeypatch.context() as small:
        small.setattr(text_files, "_BLOCK_BYTES", block_bytes)

        assert outcome(path) == whole


cells = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda cell: cell.strip() not in ("", "nan", "NaN")
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=st.lists(st.tuples(cells, cells, st.integers(-(2**63), 2**63 - 1), cells), min_size=1, max_size=20),
    separator=st.sampled_from([",", ";", "\t"]),
    block_bytes=st.integers(1, 60),
    compression=st.sampled_from(list(COMPRESS)),
)
def test_a_table_is_read_as_pandas_reads_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[tuple[str, str, int, str]], separator: str,
    block_bytes: int, compression: str,
) -> None:  # fmt: skip
    columns = ["user_id", "item_id", "timestamp", "title"]
    text = pd.DataFrame(events, columns=columns).to_csv(sep=separator, index=False, lineterminator="\n")
    path = tmp_path / "log"
    path.write_bytes(COMPRESS[compression](text.encode()))
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", block_bytes)

    frame = load_interactions(path, title_column="title")
    assert list(frame[columns].itertuples(index=False, name=None)) == events
    assert frame["timestamp"].dtype == "int64"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.sampled_from("ab \n\r\té"), max_size=60), block_bytes=st.integers(1, 9))
def test_blocks_are_the_lines_of_the_text_up_to_the_last_one_that_says_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, block_bytes: int
) -> None:
    path = tmp_path / "text"
    path.write_bytes(f"x{text}".encode())
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", block_bytes)
    lines = f"x{text}".replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while not lines[-1].strip():
        lines.pop()
    blocks = list(open_text(path).blocks())

    assert "".join(block for _, block in blocks) == "".join(f"{line}\n" for line in lines)
    starts = [sum(block.count("\n") for _, block in blocks[:number]) for number in range(len(blocks))]
    assert [position for position, _ in blocks] == starts


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=20), block_bytes=st.integers(1, 21))
def test_a_block_is_hardly_longer_than_what_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: list[int], block_bytes: int
) -> None:
    path = tmp_path / "text"
    path.write_text("".join("x" * length + "\n" for length in lengths))
    monkeypatch.setattr(text_files, "_BLOCK_BYTES", block_bytes)

    # Even where every read ends with a line. One line waits for the next one that says something.
    assert max(len(block) for _, block in open_text(path).blocks()) <= block_bytes + max(lengths) + 1


NUM_EVENTS = 60_000
MEASURE = """
import os, sys
from pathlib import Path
from slmrec_core.data import load_interactions

def resident(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024

load_interactions(sys.argv[1])
for path in sys.argv[2:]:
    # In a process of its own: memory that was freed would be used again, and not be seen.
    if os.fork() == 0:
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        assert len(load_interactions(path)) == %d
        print(resident("VmHWM") - before, flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's mark of resident memory")
def test_memory_is_that_of_the_wanted_columns_and_not_of_the_file(tmp_path: Path) -> None:
    events = [(f"u{n % 999}", f"i{n % 777}", 1_000_000_000 + n) for n in range(NUM_EVENTS)]
    review = "fine " * 200
    narrow = "user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in events)
    wide = "user_id,review,item_id,timestamp\n" + "".join(f"{u},{review},{i},{t}\n" for u, i, t in events)
    (tmp_path / "small").write_text(narrow[:10_000].rpartition("\n")[0])
    (tmp_path / "narrow").write_text(narrow)
    for name, compress in COMPRESS.items():
        (tmp_path / name).write_bytes(compress(wide.encode()))
    paths = [str(tmp_path / name) for name in ("small", "narrow", *COMPRESS)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE % NUM_EVENTS, *paths], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    of_narrow, *of_wide = map(int, done.stdout.split())

    assert len(wide) > 60_000_000
    # What was read whole took five times the file. A block takes a few copies of itself while it is parsed.
    assert max(of_wide) < of_narrow + 16 * text_files._BLOCK_BYTES, json.dumps([of_narrow, *of_wide])
