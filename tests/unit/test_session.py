"""A session against the plain path: the whole history read anew for every request."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from slmrec_core.errors import ConfigError, DataError
from slmrec_core.models.decoder import empty_decoder
from slmrec_core.models.prompt import Prompt
from slmrec_core.models.recommender import RecommenderConfig, RecommenderModel
from slmrec_core.models.sasrec import SASRec, SASRecConfig
from slmrec_core.recommender import Recommender
from tests.tiny import LLAMA, jolted, tiny_model

ITEMS = [f"i{n}" for n in range(1, 13)]
WINDOW = 6


def recommender(network: RecommenderModel | SASRec) -> Recommender:
    return Recommender(network, ["", *ITEMS], WINDOW)


def assert_same_answers(model: Recommender, events: list[str], first: int) -> None:
    session = model.session(events[:first])
    for seen in range(first, len(events) + 1):
        if seen > first:
            session.append(events[seen - 1])
        ours, plain = session.recommend(k=5), model.recommend([events[:seen]], k=5)
        np.testing.assert_allclose(ours.scores, plain.scores, atol=1e-5)
        assert ours.item_ids == plain.item_ids


@pytest.mark.parametrize("pooling", ["item", "response"])
def test_every_request_equals_the_whole_history_read_anew(item_table: Tensor, pooling: str) -> None:
    # Nine events over a window of six: the last three requests are beyond it.
    events = [ITEMS[n] for n in (0, 3, 5, 3, 1, 8, 9, 2, 11)]
    assert_same_answers(recommender(jolted(tiny_model(item_table, pooling=pooling))), events, first=2)


@given(events=st.lists(st.sampled_from(ITEMS), min_size=1, max_size=9), data=st.data())
def test_sessions_of_any_length_from_any_event_on(events: list[str], data: st.DataObject) -> None:
    first = data.draw(st.integers(1, len(events)))
    table = torch.randn(13, 6, generator=torch.Generator().manual_seed(7))
    assert_same_answers(recommender(jolted(tiny_model(table))), events, first)


def test_only_new_items_go_through_the_decoder(item_table: Tensor) -> None:
    network = tiny_model(item_table)
    lengths: list[int] = []
    network.decoder.register_forward_pre_hook(
        lambda module, inputs, options: lengths.append(options["inputs_embeds"].shape[1]), with_kwargs=True
    )
    session = recommender(network).session(ITEMS[:3])
    session.recommend()
    session.recommend(k=2)
    session.append("i7")
    session.append("i8")
    session.recommend()
    assert lengths == [len(network.prompt.before) + 3, 2]


def test_a_decoder_that_cannot_go_on_reads_everything_anew(item_table: Tensor) -> None:
    decoder = empty_decoder({**LLAMA, "model_type": "mistral", "num_hidden_layers": 4, "sliding_window": 4})
    network = RecommenderModel(RecommenderConfig(), decoder, Prompt((1, 2), ()), item_table).eval()
    assert not network.can_continue
    assert_same_answers(recommender(network), ITEMS[:8], first=1)
    with pytest.raises(ConfigError, match="got a MistralModel"):
        network.continued(torch.tensor([1]))


def test_sasrec_has_sessions_too() -> None:
    assert_same_answers(recommender(SASRec(SASRecConfig(item_dim=8), len(ITEMS), WINDOW)), ITEMS[:9], first=1)


def test_seen_items_are_left_out_as_they_come(item_table: Tensor) -> None:
    session = recommender(tiny_model(item_table)).session(["i1"])
    session.append("i2")
    assert not {"i1", "i2"} & set(session.recommend(k=12).item_ids[0])
    assert {"i1", "i2"} <= set(session.recommend(k=12, exclude_seen=False).item_ids[0])


def test_unknown_items_and_bad_k_are_refused_and_change_nothing(item_table: Tensor) -> None:
    model = recommender(jolted(tiny_model(item_table)))
    with pytest.raises(DataError, match="the history of a session must hold known items, got \\['i98'\\]"):
        model.session(["i1", "i98"])
    with pytest.raises(DataError, match="must hold a known item, got none"):
        model.session().recommend()
    session = model.session(["i1"])
    with pytest.raises(DataError, match="got \\['i99'\\]"):
        session.append("i99")
    with pytest.raises(ConfigError, match="k must be a whole number, at least 1, got 0"):
        session.recommend(k=0)
    assert session.recommend().item_ids == model.recommend([["i1"]]).item_ids


def test_numbers_and_text_are_the_same_id(item_table: Tensor) -> None:
    network = tiny_model(item_table)
    model = Recommender(network, ["", *map(str, range(1, 13))], WINDOW)
    session = model.session([1])
    session.append(2)
    assert_close(torch.from_numpy(session.recommend().scores), torch.from_numpy(model.recommend([["1", "2"]]).scores))
