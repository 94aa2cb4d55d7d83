"""MovieLens' logs of ratings: formats told apart, titles from beside."""

from pathlib import Path

import pytest

from slmrec_core.data import DataConfig, load_interactions, source_fingerprint
from slmrec_core.errors import DataError

EVENTS = [("196", "242", 881250949), ("186", "302", 891717742), ("196", "377", 878887116)]
TITLES = ["Amélie (2001)", "L.A. Confidential (1997)", ""]
# `é` in Latin-1 is no UTF-8.
MOVIES = {
    "u.item": "302|L.A. Confidential (1997)|01-Jan-1997||http://x|0|1\n242|Amélie (2001)|||0|1\n".encode("latin-1"),
    "movies.dat": "302::L.A. Confidential (1997)::Crime|Drama\n242::Amélie (2001)::Comedy\n".encode("latin-1"),
    "movies.csv": 'movieId,title,genres\n302,L.A. Confidential (1997),Crime\n242,"Amélie (2001)",Comedy\n'.encode(),
}


def rows(path: Path) -> list[tuple[str, str, int]]:
    return list(load_interactions(path)[["user_id", "item_id", "timestamp"]].itertuples(index=False, name=None))


def log(separator: str, header: str = "") -> str:
    return header + "".join(separator.join((u, i, "3", str(t))) + "\n" for u, i, t in EVENTS)


@pytest.mark.parametrize(
    ("name", "content", "movies"),
    [
        ("u.data", log("\t"), "u.item"),
        ("ua.base", log("\t"), "u.item"),
        ("ratings.dat", log("::"), "movies.dat"),
        ("ratings.csv", log(",", "userId,movieId,rating,timestamp\n"), "movies.csv"),
    ],
)
def test_movielens_is_read_with_the_titles_beside_it(tmp_path: Path, name: str, content: str, movies: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert rows(path) == EVENTS
    assert "title" not in load_interactions(path)
    without = source_fingerprint(DataConfig(path=str(path)))

    (tmp_path / movies).write_bytes(MOVIES[movies])
    frame = load_interactions(path)
    assert rows(path) == EVENTS
    assert frame["title"].tolist() == TITLES
    assert frame.attrs["has_timestamps"] is True
    assert source_fingerprint(DataConfig(path=str(path))) != without


def test_movies_in_utf_8_are_read_as_such(tmp_path: Path) -> None:
    # MovieLens-10M, unlike the older sets of the same form.
    (tmp_path / "ratings.dat").write_text("1::242::4.5::838985046\n")
    (tmp_path / "movies.dat").write_text("242::Amélie (2001)::Comedy\n", encoding="utf-8")

    assert load_interactions(tmp_path / "ratings.dat")["title"].tolist() == TITLES[:1]


def test_titles_of_another_set_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("user_id,item_id,timestamp\n1,242,3\n")
    (tmp_path / "movies.csv").write_bytes(MOVIES["movies.csv"])

    assert "title" not in load_interactions(tmp_path / "ratings.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("movies.dat", b"1::A::x\nrubbish\n", "movies.dat, line 2: a movie must be `id::title`, got 'rubbish'"),
        ("movies.dat", b"", "movies.dat: the file is empty"),
        ("movies.csv", b"id,title\n1,A\n", "movies.csv, line 1: MovieLens' movies must .* got 'id,title'"),
    ],
)
def test_movies_that_cannot_be_read_are_one_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    header = "userId,movieId,rating,timestamp\n" if name.endswith("csv") else ""
    path = tmp_path / name.replace("movies", "ratings")
    path.write_text(log("," if header else "::", header))
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError, match=message):
        load_interactions(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1::2::3", "line 2: column 'timestamp' must hold a number"),
        ("1::::3::978300760", "line 2: column 'item' must hold an id, got ''"),
        ("1::2::3::978300760::5", "not a table separated by .* line 2"),
        ("", "line 2: column 'user' must hold an id"),
    ],
)
def test_a_wrong_line_is_one_error_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "ratings.dat"
    path.write_text(f"1::1193::5::978300760\n{line}\n1::661::3::978302109\n")

    with pytest.raises(DataError, match=f"ratings.dat.*{message}"):
        load_interactions(path)


def test_a_list_of_three_items_separated_by_tabs_stays_a_list(tmp_path: Path) -> None:
    path = tmp_path / "seq.txt"
    path.write_text("196\t242\t3\t881\n186\t302\t3\t891\n")

    assert rows(path)[:3] == [("196", "242", 0), ("196", "3", 1), ("196", "881", 2)]
