"""MovieLens' and Amazon's logs of ratings: formats told apart, titles from beside, and what cannot be told."""

import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
        ("1::2::3::978300760::5", "line 2: more fields separated by '::' than the first line has"),
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


users = st.from_regex(r"A[0-9A-Z]{11,19}", fullmatch=True)
products = st.from_regex(r"(B00[0-9A-Z]{7}|[0-9]{9}[0-9X])", fullmatch=True)
amazon_events = st.lists(st.tuples(users, products, st.integers(10**8, 2 * 10**9)), min_size=1, max_size=20)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=amazon_events, is_2018=st.booleans(), is_zipped=st.booleans())
def test_amazons_ratings_are_read_with_their_columns_either_way_round(
    tmp_path: Path, events: list[tuple[str, str, int]], is_2018: bool, is_zipped: bool
) -> None:
    lines = [",".join([*((i, u) if is_2018 else (u, i)), "5.0", str(t)]) for u, i, t in events]
    content = "\n".join([*lines, ""]).encode()
    path = tmp_path / "ratings.file"
    path.write_bytes(gzip.compress(content) if is_zipped else content)

    frame = load_interactions(path)
    assert rows(path) == events
    assert frame.attrs["format"].startswith(f"Amazon ratings of {2018 if is_2018 else 2014}")


@pytest.mark.parametrize("is_2018", [False, True])
def test_a_user_whose_id_is_as_short_as_a_products_does_not_turn_the_columns(tmp_path: Path, is_2018: bool) -> None:
    # Some of Amazon's first users have such ids.
    events = [("AKJHHD5VEH", "0132793040", 1365811200)]
    events += [(f"A2CX7LUOHB2N{n}G", "B00004Z5M1", 1341100800) for n in range(19)]
    lines = [",".join([*((i, u) if is_2018 else (u, i)), "5.0", str(t)]) for u, i, t in events]
    (tmp_path / "ratings.csv").write_text("\n".join(lines))

    assert rows(tmp_path / "ratings.csv") == events


@pytest.mark.parametrize(
    ("first", "second"),
    [("u1", "a"), ("AKJHHD5VEH", "B00004Z5M1"), ("A2CX7LUOHB2NDG", "A2NWSAGRHCP8N5"), ("B00004Z5M1", "0132793040")],
)
def test_columns_that_cannot_be_told_apart_are_refused_with_both_forms(tmp_path: Path, first: str, second: str) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(f"{first},{second},5.0,1365811200\n")

    with pytest.raises(DataError) as caught:
        load_interactions(path)

    message = str(caught.value)
    assert message.startswith(f"{path}, line 1: cannot tell users from items, got '{first},{second},5.0,1365811200'.")
    assert "2014 are user,item,rating,timestamp and those of 2018 item,user,rating,timestamp" in message
    assert "Set data.format to amazon-2014 or amazon-2018." in message


def test_a_wrong_line_of_2018_names_the_right_column(tmp_path: Path) -> None:
    lines = [f"B00004Z5M1,A2CX7LUOHB2N{n}G,5.0,1341100800" for n in range(19)]
    (tmp_path / "ratings.csv").write_text("\n".join([*lines, "B00004Z5M1,,5.0,1341100800"]))

    with pytest.raises(DataError, match=r"ratings.csv, line 20: column 'user' must hold an id, got ''"):
        load_interactions(tmp_path / "ratings.csv")
