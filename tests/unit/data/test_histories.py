"""Amazon 2023's splits with histories: no event is lost, whichever of the three files is read."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmrec_core.data import load_interactions

HEADER = "user_id,parent_asin,rating,timestamp,history\n"
sequences = st.dictionaries(
    st.sampled_from("uvwxyz"), st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=9), min_size=1
)


def sequences_of(path: Path) -> dict[str, list[str]]:
    frame = load_interactions(path).sort_values("timestamp", kind="stable")
    return {str(user): own["item_id"].tolist() for user, own in frame.groupby("user_id")}


def line(user: str, items: list[str], position: int) -> str:
    return f"{user},{items[position]},5.0,{1_600_000_000_000 + position},{' '.join(items[:position])}\n"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(whole=sequences, data=st.data())
def test_train_valid_and_test_hold_the_sequences_up_to_their_last_event(
    tmp_path: Path, whole: dict[str, list[str]], data: st.DataObject
) -> None:
    train = [line(user, items, n) for user, items in whole.items() for n in range(len(items) - 2)]
    parts = {
        "train": data.draw(st.permutations(train)),
        "valid": [line(user, items, len(items) - 2) for user, items in whole.items()],
        "test": [line(user, items, len(items) - 1) for user, items in whole.items()],
    }
    for (name, lines), left_out in zip(parts.items(), (2, 1, 0), strict=True):
        path = tmp_path / f"{name}.csv"
        path.write_text(HEADER + "".join(lines))

        assert sequences_of(path) == {user: items[: len(items) - left_out] for user, items in whole.items()}
        assert load_interactions(path).attrs["has_timestamps"] is (name == "train")


def test_a_split_at_a_point_in_time_may_hold_several_events_of_a_user(tmp_path: Path) -> None:
    items = ["a", "b", "c", "d"]
    path = tmp_path / "test.csv"
    path.write_text(HEADER + line("u", items, 3) + line("v", items, 0) + line("u", items, 2))

    assert sequences_of(path) == {"u": items, "v": ["a"]}


def test_a_column_of_another_table_that_is_called_history_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp,history\nu,a,1,x y\n")

    assert sequences_of(path) == {"u": ["a"]}
