"""Laws of intervals, paired tests and corrections."""

import itertools
import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmrec_core.errors import ConfigError, DataError
from slmrec_core.metrics import bootstrap_interval, holm, paired_test, sign_flip_p_value, significance

families = st.lists(st.floats(0, 1), max_size=8).map(lambda values: dict(zip("abcdefgh", values, strict=False)))


def normal(shape: tuple[int, ...], mean: float = 0.0, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, scale, shape)


def exact_p_value(differences: np.ndarray) -> float:
    """Share of all sign patterns whose mean is at least as far from 0 as the observed one."""
    observed = abs(sum(differences))
    patterns = list(itertools.product((-1, 1), repeat=len(differences)))
    sums = [abs(sum(sign * value for sign, value in zip(p, differences, strict=True))) for p in patterns]
    return sum(value >= observed - 1e-12 for value in sums) / len(patterns)


class TestBootstrapInterval:
    def test_a_constant_has_no_width(self) -> None:
        interval = bootstrap_interval(np.full((3, 40), 0.25), num_samples=50)
        assert (interval.mean, interval.low, interval.high) == pytest.approx((0.25, 0.25, 0.25))

    def test_it_has_the_width_of_the_normal_interval_when_seeds_agree(self) -> None:
        users = normal((400,), mean=2.0)
        interval = bootstrap_interval(np.stack([users, users, users]))
        standard_error = users.std() / math.sqrt(400)
        assert interval.mean == pytest.approx(users.mean())
        assert interval.high - interval.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)

    def test_draws_that_are_kept_are_those_that_are_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second = normal((3, 70)), normal((3, 70), mean=1.0)
        kept = [bootstrap_interval(values) for values in (first, second, first)]
        assert kept[0] == kept[2] != kept[1]
        monkeypatch.setattr(significance, "_KEPT_COUNTS", 0)
        monkeypatch.setattr(significance, "_CHUNK_VALUES", 70 * 7)
        for values, interval in zip((first, second), kept, strict=False):
            streamed = bootstrap_interval(values)
            assert (streamed.low, streamed.high) == pytest.approx((interval.low, interval.high), rel=1e-12)

    def test_it_equals_a_slow_bootstrap_of_both_ways_to_draw(self) -> None:
        values = normal((3, 12)) + np.array([[0.0], [0.5], [1.0]])
        rng = np.random.default_rng(1)
        means = []
        for _ in range(2_000):
            users, seeds = rng.integers(12, size=12), rng.integers(3, size=3)
            means.append(np.mean([values[seed, user] for seed in seeds for user in users]))
        interval = bootstrap_interval(values, num_samples=4_000)
        assert (interval.low, interval.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.06)

    def test_seeds_that_disagree_widen_it(self) -> None:
        users = normal((200,))
        agree = bootstrap_interval(np.stack([users, users, users]), num_samples=500)
        disagree = bootstrap_interval(np.stack([users - 1, users, users + 1]), num_samples=500)
        assert disagree.high - disagree.low > 2 * (agree.high - agree.low)

    def test_with_one_seed_and_two_users_every_draw_is_known(self) -> None:
        # The mean of two draws from {0, 1} is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4.
        values = np.array([[0.0, 1.0]])
        wide = bootstrap_interval(values, level=0.9)
        narrow = bootstrap_interval(values, level=0.4)
        assert (wide.mean, wide.low, wide.high) == (0.5, 0.0, 1.0)
        assert (narrow.low, narrow.high) == (0.5, 0.5)

    def test_shift_and_scale_carry_over(self) -> None:
        values = normal((2, 30))
        plain = bootstrap_interval(values, num_samples=100)
        moved = bootstrap_interval(3 * values + 7, num_samples=100)
        assert (moved.low, moved.high) == pytest.approx((3 * plain.low + 7, 3 * plain.high + 7))

    def test_it_covers_the_true_mean_about_as_often_as_it_says(self) -> None:
        covered = 0
        for seed in range(100):
            interval = bootstrap_interval(normal((1, 60), mean=1.0, seed=seed), num_samples=150, level=0.9)
            covered += interval.low <= 1.0 <= interval.high
        # 0.9 * 100 = 90 with a standard deviation of 3; a percentile interval is slightly too narrow.
        assert 81 <= covered <= 98

    def test_the_same_seed_gives_the_same_interval(self) -> None:
        values = normal((2, 20))
        assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
        assert bootstrap_interval(values, seed=4) != bootstrap_interval(values, seed=5)

    def test_float32_values_are_summed_in_float64(self) -> None:
        values = normal((1, 50)).astype(np.float32)
        assert bootstrap_interval(values) == bootstrap_interval(values.astype(np.float64))

    def test_the_result_is_frozen(self) -> None:
        with pytest.raises(FrozenInstanceError):
            bootstrap_interval(np.ones((1, 2)), num_samples=2).mean = 0.0  # type: ignore[misc]

    @pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
    def test_no_values_raise(self, shape: tuple[int, int]) -> None:
        with pytest.raises(DataError, match="nothing to average"):
            bootstrap_interval(np.zeros(shape))

    def test_values_that_are_not_finite_raise(self) -> None:
        with pytest.raises(DataError, match="got 2 that are not"):
            bootstrap_interval(np.array([[1.0, math.nan, math.inf]]))

    @pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
    def test_a_level_that_is_no_share_raises(self, level: float) -> None:
        with pytest.raises(ConfigError, match=f"got {level!r}"):
            bootstrap_interval(np.ones((1, 2)), level=level)

    def test_no_draws_raise(self) -> None:
        with pytest.raises(ConfigError, match="num_samples must be at least 1, got 0"):
            bootstrap_interval(np.ones((1, 2)), num_samples=0)


class TestSignFlipPValue:
    def test_worked_by_hand_for_three_users(self) -> None:
        # Of 2^3 sign patterns only + + + and - - - reach the observed sum: 2 / 8.
        p_value = sign_flip_p_value(np.array([1.0, 2.0, 3.0]), num_permutations=20_000)
        assert p_value == pytest.approx(2 / 8, abs=0.015)

    @given(st.lists(st.integers(-4, 4), min_size=1, max_size=8), st.integers(0, 100))
    @settings(max_examples=15)
    def test_it_agrees_with_exhaustive_enumeration(self, differences: list[int], seed: int) -> None:
        # Tenths tie often, and their sums in another order differ in the last digit.
        array = np.array(differences) / 10
        p_value = sign_flip_p_value(array, num_permutations=4_000, seed=seed)
        # 5 standard deviations of a share estimated from 4,000 flips.
        assert p_value == pytest.approx(exact_p_value(array), abs=5 * 0.5 / math.sqrt(4_000))

    def test_identical_runs_give_one(self) -> None:
        assert sign_flip_p_value(np.zeros(10)) == 1

    def test_users_without_a_difference_change_nothing(self) -> None:
        moved = normal((30,), mean=0.4)
        assert sign_flip_p_value(np.concatenate([moved, np.zeros(500)])) == sign_flip_p_value(moved)

    def test_swapping_the_runs_and_scaling_the_metric_change_nothing(self) -> None:
        differences = normal((30,), mean=0.3)
        p_value = sign_flip_p_value(differences)
        assert sign_flip_p_value(-differences) == p_value
        assert sign_flip_p_value(1e-6 * differences) == p_value

    def test_the_smallest_value_counts_the_observed_signs(self) -> None:
        assert sign_flip_p_value(np.ones(200), num_permutations=99) == 1 / 100

    def test_it_rejects_about_as_often_as_it_says_where_there_is_nothing(self) -> None:
        p_values = [sign_flip_p_value(normal((40,), seed=seed), num_permutations=199) for seed in range(400)]
        for level in (0.05, 0.2):
            expected, spread = 400 * level, math.sqrt(400 * level * (1 - level))
            assert abs(sum(p <= level for p in p_values) - expected) < 3 * spread

    def test_it_finds_a_difference_that_is_there(self) -> None:
        assert sign_flip_p_value(normal((200,), mean=0.5)) < 0.001

    def test_chunks_do_not_change_the_share(self, monkeypatch: pytest.MonkeyPatch) -> None:
        differences = normal((50,), mean=0.15)
        at_once = sign_flip_p_value(differences)
        monkeypatch.setattr(significance, "_CHUNK_VALUES", 120)
        assert sign_flip_p_value(differences, num_permutations=2_001) == pytest.approx(at_once, abs=0.05)

    def test_no_differences_or_no_flips_raise(self) -> None:
        with pytest.raises(DataError, match="nothing to average"):
            sign_flip_p_value(np.array([]))
        with pytest.raises(ConfigError, match="num_permutations must be at least 1, got 0"):
            sign_flip_p_value(np.ones(3), num_permutations=0)


class TestPairedTest:
    def test_identical_runs_are_equal_and_never_better(self) -> None:
        values = np.abs(normal((3, 100)))
        result = paired_test(values, values)
        assert (result.difference, result.low, result.high) == (0, 0, 0)
        assert result.p_value == 1
        assert result.by_seed == (0, 0, 0)
        assert result.verdict == "equal"

    def test_a_clear_gain_is_better_and_the_other_way_round_worse(self) -> None:
        b = np.abs(normal((3, 300)))
        a = b + normal((3, 300), mean=0.1, scale=0.2, seed=1)
        forward, backward = paired_test(a, b), paired_test(b, a)
        assert (forward.verdict, backward.verdict) == ("better", "worse")
        assert forward.p_value == backward.p_value < 0.001
        np.testing.assert_allclose(forward.by_seed, (a - b).mean(axis=1))
        assert min(forward.by_seed) > 0 > max(backward.by_seed)
        assert backward.difference == pytest.approx(-forward.difference)
        assert forward.difference == pytest.approx((a - b).mean())
        assert forward.low <= forward.difference <= forward.high

    def test_pairing_removes_what_users_have_in_common(self) -> None:
        b = normal((1, 300), scale=100.0)
        assert paired_test(b + 0.1, b).verdict == "better"

    def test_not_significant_is_undecided_and_not_equal(self) -> None:
        a, b = normal((2, 50)), normal((2, 50), seed=1)
        result = paired_test(a, b)
        assert result.p_value > 0.05
        assert result.verdict == "undecided"

    def test_seeds_that_disagree_are_undecided_however_many_users_there_are(self) -> None:
        # Nine seeds gain and one loses: the interval excludes 0, one seed does not agree.
        gains = np.array([0.1] * 9 + [-0.01])[:, None]
        b = np.zeros((10, 400))
        result = paired_test(b + gains, b)
        assert result.low > 0
        assert min(result.by_seed) == pytest.approx(-0.01)
        assert result.verdict == "undecided"

    def test_the_margin_decides_what_is_equal(self) -> None:
        # Half of the users gain what the others lose: the mean is 0 and the width follows the size of the gap.
        signs = np.resize([1.0, -1.0], 400)[None]
        zero = np.zeros((1, 400))
        # 1.96 standard errors: 1.96 * 0.01 / 20 = 0.001, inside 0.002; ten times that is outside.
        assert paired_test(0.01 * signs, zero).verdict == "equal"
        assert paired_test(0.1 * signs, zero).verdict == "undecided"

    def test_a_small_gain_that_is_certain_is_better_rather_than_equal(self) -> None:
        b = np.zeros((2, 50))
        assert paired_test(b + 0.001, b).verdict == "better"

    def test_users_are_averaged_over_seeds_before_the_flips(self) -> None:
        a, b = normal((3, 40), mean=0.1), normal((3, 40), seed=1)
        assert paired_test(a, b).p_value == sign_flip_p_value((a - b).mean(axis=0))

    def test_order_of_seeds_and_users_hardly_matters(self) -> None:
        a, b = normal((3, 60), mean=0.2), normal((3, 60), seed=1)
        users = np.random.default_rng(0).permutation(60)
        plain, moved = paired_test(a, b), paired_test(a[::-1, users], b[::-1, users])
        assert moved.difference == pytest.approx(plain.difference)
        assert moved.p_value == pytest.approx(plain.p_value, abs=0.02)
        assert (moved.low, moved.high) == pytest.approx((plain.low, plain.high), abs=0.03)

    def test_runs_of_different_users_raise(self) -> None:
        with pytest.raises(DataError, match=r"\[seed, user\] \[2, 3\] and \[2, 1\]"):
            paired_test(np.zeros((2, 3)), np.zeros((2, 1)))


class TestHolm:
    def test_worked_example(self) -> None:
        # In order: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1 lifted to the one before.
        adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
        assert list(adjusted) == ["a", "b", "c", "d"]
        assert list(adjusted.values()) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_it_is_capped_at_one(self) -> None:
        assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}

    def test_one_comparison_is_unchanged_and_none_gives_none(self) -> None:
        assert holm({"a": 0.03}) == {"a": 0.03}
        assert holm({}) == {}

    @settings(max_examples=30)
    @given(families, st.floats(0.001, 0.999))
    def test_it_rejects_what_the_step_down_procedure_rejects(self, p_values: dict[str, float], alpha: float) -> None:
        rejected = set()
        for index, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
            if (len(p_values) - index) * p_values[name] > alpha:
                break
            rejected.add(name)
        assert {name for name, p_value in holm(p_values).items() if p_value <= alpha} == rejected

    @settings(max_examples=30)
    @given(families)
    def test_it_keeps_the_order_and_lies_between_the_raw_and_bonferroni_values(
        self, p_values: dict[str, float]
    ) -> None:
        adjusted = holm(p_values)
        for name, p_value in p_values.items():
            assert p_value <= adjusted[name] <= min(1.0, len(p_values) * p_value)
            for other in p_values:
                assert p_value > p_values[other] or adjusted[name] <= adjusted[other]

    @pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
    def test_what_is_no_probability_raises(self, bad: float) -> None:
        with pytest.raises(DataError, match="for 'b'"):
            holm({"a": 0.5, "b": bad})
