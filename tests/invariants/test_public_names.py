"""Names that users and the README rely on."""

import importlib
import inspect

import pytest

import slmrec_core as slm

_SUBPACKAGES = ("compression", "data", "distillation", "losses", "metrics", "models", "training")
PACKAGES = ("slmrec_core", *(f"slmrec_core.{name}" for name in _SUBPACKAGES))
CONTRACT = (
    "load_interactions",
    "SequenceDataset.from_interactions",
    "losses.next_item_loss",
    "losses.feature_cosine_loss",
    "losses.feature_norm_loss",
    "metrics.rank_targets",
    "metrics.hit_rate",
    "metrics.ndcg",
    "metrics.mrr",
    "Recommender.from_pretrained",
    "Recommender.save_pretrained",
    "Recommender.recommend",
    "Recommender.rank",
    "ExperimentConfig",
)


@pytest.mark.parametrize("name", CONTRACT)
def test_the_contract_names_exist(name: str) -> None:
    found: object = slm
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)


@pytest.mark.parametrize("package", PACKAGES)
def test_all_lists_what_is_exported_sorted_and_once(package: str) -> None:
    module = importlib.import_module(package)
    exported = module.__all__
    # Constants, classes, functions: the order that ruff keeps.
    key = lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name)  # noqa: E731
    assert exported == sorted(set(exported), key=key)
    for name in exported:
        assert hasattr(module, name), name


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_says_what_it_is(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), name
            members = vars(thing).items() if inspect.isclass(thing) else ()
            for member, value in members:
                if inspect.isfunction(value) and value.__name__ == member and not member.startswith("_"):
                    assert inspect.getdoc(value), f"{name}.{member}"


def test_recommend_takes_the_arguments_of_the_contract() -> None:
    parameters = inspect.signature(slm.Recommender.recommend).parameters
    assert list(parameters)[:4] == ["self", "histories", "k", "exclude_seen"]
    assert parameters["allowed_items"].default is None
    assert parameters["k"].default == 10
    assert parameters["exclude_seen"].default is True
    assert list(inspect.signature(slm.Recommender.rank).parameters) == ["self", "histories", "candidates"]
    assert inspect.signature(slm.losses.feature_norm_loss).parameters["squared"].default is True
