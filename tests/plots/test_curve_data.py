"""The points of a sweep as curves: one place for each alpha, every threshold in one curve."""

from __future__ import annotations

from collections import Counter

from helpers_curves import SWEEP, Swept, swept
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse.plots.curves import envelope, tau_curves

TAUS = (0.0, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.3)


def test_every_threshold_has_a_curve_from_cheap_to_dear() -> None:
    none, some = tau_curves(SWEEP)
    assert (none.label, some.label) == ("0", "0.1")
    assert (none.alphas, none.fractions, none.accuracies) == (
        (1e-3, 1e-4),
        (0.4, 0.9),
        (0.91, 0.87),
    )
    assert (some.alphas, some.fractions, some.accuracies) == (
        (1e-2, 1e-3),
        (0.1, 0.3),
        (0.79, 0.88),
    )


def test_seeds_are_one_place_that_a_collapsed_one_does_not_move() -> None:
    seeds = [Swept(1e-3, 0.1, cost, 0.9, value) for cost, value in ((2, 0.9), (3, 0.1), (4, 0.88))]
    (curve,) = tau_curves(seeds)
    assert (curve.alphas, curve.fractions, curve.accuracies) == ((1e-3,), (3,), (0.88,))


def test_the_validation_split_chooses_the_envelope_and_the_test_split_is_shown() -> None:
    curve = envelope(SWEEP)
    assert curve.fractions == (0.1, 0.3, 0.9)
    assert curve.accuracies == (0.79, 0.88, 0.87), "chosen by the test split it would not fall"


def test_many_thresholds_share_curves_that_hold_about_as_many_points() -> None:
    assert [curve.label for curve in tau_curves(swept(TAUS * 3))] == [
        "0",
        "0.001–0.003",
        "0.01",
        "0.03",
        "0.1–0.2",
        "0.3",
    ]
    labels = [curve.label for curve in tau_curves(swept((0.0, 0.1, 0.2, *[0.3] * 9)), most=2)]
    assert labels == ["0–0.2", "0.3"]
    assert len(tau_curves(swept(TAUS), most=8)) == 8


@given(st.lists(st.sampled_from(TAUS), min_size=1, max_size=60), st.integers(1, 9))
def test_curves_are_few_and_hold_every_threshold_in_order(taus: list[float], most: int) -> None:
    labels = [curve.label for curve in tau_curves(swept(taus), most)]
    assert 1 <= len(labels) <= min(most, len(set(taus)))
    ends = [float(end) for label in labels for end in label.split("–")]
    assert ends == sorted(ends)
    assert (ends[0], ends[-1]) == (min(taus), max(taus))
    assert max(Counter(label for label in labels).values()) == 1
