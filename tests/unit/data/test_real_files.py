"""Counts on real data, against those that the data's own page gives; skipped where the files are not."""

from pathlib import Path

import pytest

from slmrec_core.data import SequenceDataset, load_interactions
from slmrec_core.data.inspection import inspect_interactions
from slmrec_core.data.interactions import ML_100K
from slmrec_core.downloads import cache_dir

REAL_DATA = Path(__file__).parents[3] / "../shared/data"


def real_file(name: str) -> Path:
    path = REAL_DATA / name
    if not path.is_file():
        pytest.skip(f"real data file {name} is not on this machine")
    return path


@pytest.mark.parametrize(
    ("name", "columns", "num_events", "core"),
    [
        ("amazon-beauty-2014/LLM-RecSys-ID/sequential_data.txt", {}, 198_502, (22_363, 12_101, 198_502)),
        ("amazon-toys-sports-2014/Toys_and_Games.txt", {}, 167_597, (19_412, 11_924, 167_597)),
        ("amazon-toys-sports-2014/Sports_and_Outdoors.txt", {}, 296_337, (35_598, 18_357, 296_337)),
        ("amazon-video-2014/Video.txt", {}, 287_107, (24_303, 10_672, 231_780)),
        ("amazon-raw-samples/All_Beauty(1).csv.gz", {}, 2_535, (253, 356, 2_535)),
        ("amazon-raw-samples/Gift_Cards_5.json.gz", {}, 2_972, (456, 147, 2_960)),
    ],
    ids=["beauty", "toys", "sports", "video", "beauty-2023", "gift-cards-2018"],
)
def test_five_core_counts_match(
    name: str, columns: dict[str, str], num_events: int, core: tuple[int, int, int]
) -> None:
    interactions = load_interactions(real_file(name), **columns)
    dataset = SequenceDataset.from_interactions(interactions)

    assert num_events == len(interactions)
    assert core == (dataset.num_users, dataset.num_items, dataset.num_events)


def test_recbole_lists_are_read_whole_with_their_titles() -> None:
    interactions = load_interactions(real_file("amazon-games-2018/Games-6k.test.inter"))

    assert len(interactions) == 440_264
    assert (interactions["user_id"].nunique(), interactions["item_id"].nunique()) == (50_546, 16_859)
    assert (interactions["title"] != "").all()


def test_every_gift_card_has_the_title_of_the_metadata_beside_it() -> None:
    real_file("amazon-raw-samples/meta_Gift_Cards.json.gz")
    interactions = load_interactions(real_file("amazon-raw-samples/Gift_Cards_5.json.gz"))

    assert interactions["item_id"].nunique() == 148
    assert (interactions["title"] != "").all()


def test_a_log_with_day_timestamps_keeps_the_order_of_the_file_within_a_day() -> None:
    interactions = load_interactions(real_file("amazon-grocery-2014/train.csv"), timestamp_column="time")
    dataset = SequenceDataset.from_interactions(interactions, min_user=1, min_item=1)
    # Plain reference on a few users, by Python's stable sort.
    for user in range(0, dataset.num_users, 1_500):
        own = interactions[interactions["user_id"] == dataset.user_ids[user]]
        events = sorted(zip(own["timestamp"], own["item_id"], strict=True), key=lambda event: event[0])
        items = dataset.events[dataset.offsets[user] : dataset.offsets[user + 1]]

        assert [item for _, item in events] == dataset.item_ids[items].tolist()


def test_movielens_after_five_core_has_the_published_counts() -> None:
    directory = cache_dir() / f"{ML_100K.package}-{ML_100K.version}"
    if not (directory / "ml-100k.inter").is_file():
        pytest.skip("MovieLens-100K has not been fetched into the cache")
    dataset = SequenceDataset.from_interactions(load_interactions("ml-100k"))

    assert (dataset.num_users, dataset.num_items, dataset.num_events) == (943, 1_349, 99_287)
    assert dataset.titles is not None
    assert "Toy Story" in dataset.titles


@pytest.mark.parametrize(
    "name",
    [
        "amazon-beauty-2014/LLM-RecSys-ID/sequential_data.txt",
        "amazon-toys-sports-2014/Toys_and_Games.txt",
        "amazon-video-2014/Video.txt",
        "amazon-raw-samples/Gift_Cards_5.json.gz",
        "amazon-raw-samples/All_Beauty.train.csv",
    ],
)
def test_a_set_in_the_order_of_time_is_told_from_the_same_one_sorted_by_item(name: str) -> None:
    # Reviews of one day lie in the order of products in Amazon's own files, so that a fifth of the users ascend.
    interactions = load_interactions(real_file(name))
    found = inspect_interactions(interactions)
    by_item = inspect_interactions(interactions.sort_values("item_id", kind="stable").assign(timestamp=0))

    assert not found.is_sorted_by_item
    assert found.ascending_share < 0.25 < found.turned_share
    assert by_item.is_sorted_by_item
    assert (by_item.ascending_share, by_item.turned_share) == (1, 0)


def test_rows_of_amazons_training_split_agree_with_its_histories() -> None:
    path = real_file("amazon-raw-samples/All_Beauty.train.csv")
    interactions = load_interactions(path)
    longest = max(path.read_text().splitlines(), key=len).split(",")
    own = interactions[interactions["user_id"] == longest[0]]

    assert (len(interactions), interactions["user_id"].nunique(), interactions["item_id"].nunique()) == (
        19_120,
        8_151,
        10_496,
    )
    assert interactions.attrs["has_timestamps"] is True
    assert own.sort_values("timestamp")["item_id"].tolist() == [*longest[4].split(), longest[1]]
    assert len(own) == 162
