"""Upper bounds of drops, and the search that uses them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import stats

from keras_structsparse.training.shrink.drop_bound import (
    DropBound,
    bound_of,
    mean_bound,
    paired_bound,
    student,
)
from keras_structsparse.training.shrink.smallest import search

SURE = 0.975
LIMIT = 0.01
RUNS = 400


def likely_drop(lost: int, gained: int, count: int, drop: float) -> bool:
    """Whether a drop agrees with the answers, by the definition: a grid search of likelihoods."""
    shares = np.linspace(0.0, 1.0 - drop, 200_001)[1:-1] / 2  # of gained answers
    likely = np.zeros_like(shares)
    for number, chance in (
        (lost, shares + drop),
        (gained, shares),
        (count - lost - gained, 1 - 2 * shares - drop),
    ):
        if number:
            likely += number * np.log(np.maximum(chance, 1e-300))
    gain = shares[np.argmax(likely)]
    error = math.sqrt(count * (2 * gain + drop * (1 - drop)))
    return bool((lost - gained - count * drop) / error > stats.norm.ppf(1 - SURE))


@pytest.mark.parametrize(
    ("lost", "gained", "count"),
    [(0, 0, 500), (3, 0, 100), (0, 4, 100), (7, 5, 300), (90, 60, 2000)],
)
def test_the_bound_is_where_a_drop_no_longer_agrees_with_the_answers(
    lost: int, gained: int, count: int
) -> None:
    bound = paired_bound(lost, gained, count, SURE)
    assert bound > (lost - gained) / count
    assert likely_drop(lost, gained, count, bound - 2e-4)
    assert not likely_drop(lost, gained, count, bound + 2e-4)


@pytest.mark.parametrize("count", [100, 500, 2000])
@pytest.mark.parametrize(("lose", "gain"), [(0.01, 0.0), (0.01, 0.005), (0.05, 0.05), (0.02, 0.04)])
def test_the_bound_is_right_as_often_as_it_says(count: int, lose: float, gain: float) -> None:
    rng = np.random.default_rng(0)
    answers = rng.multinomial(count, [lose, gain, 1 - lose - gain], size=2000)
    pairs = [(int(lost), int(gained)) for lost, gained, _ in answers]
    known = {pair: paired_bound(*pair, count, SURE) for pair in set(pairs)}
    wrong = np.mean([known[pair] < lose - gain for pair in pairs])
    assert wrong < 1 - SURE + (0.02 if count == 100 else 0.01)  # it is that of many answers
    estimates = (answers[:, 0] - answers[:, 1]) / count
    assert np.mean(estimates < lose - gain) > 0.25  # the control: the drop as it was measured


def test_a_bound_of_means_is_right_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    drops = rng.normal(0.3, 1.0, size=(2000, 12))
    wrong = np.mean([mean_bound(own, SURE) < 0.3 for own in drops])
    assert 0.015 < wrong < 0.035


def test_quantiles_are_those_of_students_distribution() -> None:
    for confidence in (0.5, 0.6, 0.9, 0.975, 0.999):
        for degrees in (1, 2, 3, 7, 19, 300, 1000, 5000):
            expected = stats.t.ppf(confidence, degrees)
            assert student(confidence, degrees) == pytest.approx(expected, rel=2e-3, abs=1e-9)


def test_answers_and_other_drops_have_their_own_bounds() -> None:
    drops = np.array([1.0, -1.0, 0.0, 0.0] * 50)
    assert bound_of(drops, SURE).value == paired_bound(50, 50, 200, SURE)
    assert bound_of(drops, SURE, "batches").value == mean_bound(drops, SURE)
    assert bound_of(drops / 2, SURE).value == mean_bound(drops / 2, SURE)
    assert bound_of(drops, 0.5).value == bound_of(drops / 2, 0.5).value == 0.0
    assert bound_of(drops[:1], SURE, "batches").value == math.inf
    text = str(bound_of(drops, SURE))
    assert text.endswith("with a confidence of 97.5 % (200 examples)")


@dataclass(frozen=True)
class Simulated:
    """A network of a known drop, with the bound of one validation set."""

    drop: float
    drop_bound: DropBound


def simulated(curve: Any, count: int, confidence: float, rng: Any) -> Any:
    """From a share to a network whose drop is that of the curve; 4 % of the answers differ."""

    def attempt(share: float) -> Simulated:
        drop = curve(share)
        differ = max(0.04, 1.5 * abs(drop))
        lose, gain = (differ + drop) / 2, (differ - drop) / 2
        lost, gained, _ = (int(n) for n in rng.multinomial(count, [lose, gain, 1 - lose - gain]))
        value = paired_bound(lost, gained, count, confidence)
        return Simulated(drop, DropBound(value, confidence, count))

    return attempt


CURVES = {
    "steep": lambda share: 0.01 * (0.3 / share) ** 3 - 0.002,
    "flat": lambda share: 0.012 - 0.008 * share,
    "better": lambda share: 0.03 * (0.2 / share) - 0.015,
    "hopeless": lambda share: 0.03,
}


def missed(curve: Any, count: int, confidence: float) -> float:
    """How often the drop of the smallest network within the limit is above it."""
    rng, misses = np.random.default_rng(2), 0
    for _ in range(RUNS):
        tried = search(simulated(curve, count, confidence, rng), LIMIT)
        within = {s: each for s, each in tried.items() if each.drop_bound.value <= LIMIT}
        misses += bool(within) and within[min(within)].drop > LIMIT
    return misses / RUNS


@pytest.mark.parametrize("count", [400, 4000])
@pytest.mark.parametrize("name", CURVES)
def test_the_smallest_network_within_the_limit_is_within_it(name: str, count: int) -> None:
    assert missed(CURVES[name], count, SURE) <= 0.05
    if name in ("steep", "better"):  # the control: without a margin
        assert missed(CURVES[name], count, 0.5) > 0.15


def test_all_larger_networks_that_were_tried_are_within_the_limit_too() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        tried = search(simulated(CURVES["steep"], 1000, SURE, rng), LIMIT)
        within = {share: each.drop_bound.value <= LIMIT for share, each in tried.items()}
        smallest = min((share for share, fine in within.items() if fine), default=1.0)
        assert all(within[share] for share in tried if share >= smallest)
