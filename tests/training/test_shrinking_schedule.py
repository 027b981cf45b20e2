"""When a smaller network makes up for its compilation."""

from __future__ import annotations

import time

import numpy as np
import pytest

from keras_structsparse.training.shrinking_schedule import TRUST, TrainingSection, saving


def section(work: int, step: float, first: float, surgery: float = 0.0) -> TrainingSection:
    return TrainingSection(work, surgery=surgery, steps=[first, step, step, step])


def test_the_first_cut_is_expected_to_keep_what_multiply_adds_promise() -> None:
    whole = section(100, step=0.5, first=4.5)
    assert whole.cost == pytest.approx(4.0)
    assert saving([whole], 40, steps=100) == pytest.approx(100 * 0.5 * 0.6 - 4.0)
    assert saving([whole], 40, steps=10) < 0
    assert saving([whole], 100, steps=1000) == pytest.approx(-4.0)


def test_later_cuts_are_measured_against_what_earlier_ones_have_brought() -> None:
    whole, half = section(100, 0.5, 4.5), section(50, 0.375, 1.375, surgery=2.0)
    assert half.cost == pytest.approx(3.0)
    # Half of the multiply-adds have saved a quarter of the time.
    worth = (0.25 + TRUST) / (0.5 + TRUST)
    assert saving([whole, half], 25, 100) == pytest.approx(100 * 0.5 * 0.25 * worth - 3.0)
    slower = section(10, 0.6, 1.0)
    assert saving([whole, slower], 1, 10**6) < 0
    faster = section(50, 0.1, 1.0, surgery=1.0)
    assert saving([whole, faster], 25, 100) == pytest.approx(100 * 0.1 * 0.5 - 1.9)


def test_what_does_not_shrink_with_the_multiply_adds_is_not_saved_again() -> None:
    whole, small = section(100, 0.055, 6.0), section(20, 0.030, 8.0)
    # Per multiply-add a step of the small network is nearly three times as long.
    assert saving([whole, small], 14, 2000) < 0 < saving([whole, small], 0, 2000)


def test_a_small_cut_that_shows_no_gain_does_not_forbid_the_next() -> None:
    whole, slower = section(100, 0.5, 4.5), section(98, 0.505, 4.5)
    assert saving([whole, slower], 40, 100) > 0


def test_a_last_batch_that_is_compiled_by_itself_counts() -> None:
    steps = [4.5, 0.5, 0.5, 0.5, 0.6, 3.0, 0.5, 0.5]
    assert TrainingSection(100, steps=[*steps[:5], 5.5, 0.5, 0.5]).cost == pytest.approx(4.0 + 5.0)
    # the steps are slow, but nothing was compiled
    assert TrainingSection(100, steps=steps).cost == pytest.approx(4.0)


def test_a_network_that_was_not_trained_yet_costs_nothing_known() -> None:
    assert TrainingSection(10).step == 0.0
    assert TrainingSection(10).cost == 0.0
    assert TrainingSection(10, steps=[2.0]).cost == 0.0


def test_the_cost_of_a_long_training_is_known_at_once() -> None:
    section = TrainingSection(100, steps=[3.0, *np.linspace(0.4, 0.6, 50_000)])
    start = time.perf_counter()
    assert section.cost == pytest.approx(2.5)
    assert time.perf_counter() - start < 5.0  # A median for every step would take minutes.
