"""Calibration: prices that were planted are found again, and the file holds what surgery takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse.errors import CostsError
from keras_structsparse.graph.channels.costs import FORMAT, Costs
from keras_structsparse.profiling import calibration
from keras_structsparse.profiling.calibration import calibrate, fit, networks
from keras_structsparse.profiling.latency import Latency

PRICES = st.floats(0.0, 1e3, allow_subnormal=False).map(lambda x: 0.0 if x < 1e-3 else x)


@given(st.tuples(PRICES, PRICES, PRICES).filter(any), st.integers(0, 1000))
def test_planted_prices_are_found(prices: tuple[float, ...], seed: int) -> None:
    counts = np.random.default_rng(seed).uniform(0.5, 2.0, (12, 3))
    found, error = fit(counts, counts @ prices)
    np.testing.assert_allclose(found, prices, atol=1e-6 * max(prices))
    assert error < 1e-6


def test_a_price_that_would_be_negative_is_zero() -> None:
    counts = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    prices, error = fit(counts, np.array([3.0, 2.0, 1.0]))
    assert prices[0] > 0
    assert prices[1] == 0
    assert 0.2 < error < 1


def timed(prices: tuple[float, ...], block: int = 8) -> Any:
    """A stand-in for the clock: every network takes what the prices say."""

    def latency(
        models: Mapping[str, keras.Model], sizes: tuple[int], repeats: int
    ) -> list[Latency]:
        counts = [calibration._counts(model, sizes[0], block) for model in models.values()]
        times = 1e3 * np.array(counts) @ prices
        return [Latency("", sizes[0], 0.0, (time, 0.0), repeats) for time in times]

    return latency


@pytest.fixture(scope="module")
def few() -> Mapping[str, keras.Model]:
    return networks()


@pytest.mark.parametrize(("batch_size", "block"), [(1, 1), (16, 8), (1, 32)])
def test_costs_are_those_of_the_clock(
    few: Mapping[str, keras.Model], monkeypatch: pytest.MonkeyPatch, batch_size: int, block: int
) -> None:
    monkeypatch.setattr(calibration, "networks", lambda: few)
    monkeypatch.setattr(calibration, "latency", timed((1e-4, 1e-10, 2e-9, 3e-5), block))
    found = calibrate(batch_size)
    assert found.costs.move == pytest.approx(20.0)
    assert found.costs.start == pytest.approx(3e5 / batch_size)
    assert found.costs.block == block
    assert found.nanoseconds == pytest.approx(0.1)
    assert found.error < 1e-6
    assert Costs.from_json(found.to_json()) == found.costs
    assert json.loads(found.to_json())["batch_size"] == batch_size
    assert f"batches of {batch_size}" in str(found)


def test_a_clock_that_does_not_see_the_work(
    few: Mapping[str, keras.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "networks", lambda: few)
    monkeypatch.setattr(calibration, "latency", timed((1e-4, 0.0, 0.0, 0.0)))
    with pytest.raises(CostsError, match="too busy"):
        calibrate()


def test_the_clock_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers depend on the machine; that they can be had does not."""
    monkeypatch.setattr(calibration, "MAPS", ((14, 16), (28, 32)))
    found = calibrate(repeats=3)
    assert found.networks == 2 * len(calibration.STAGES) * 2
    assert found.nanoseconds > 0
    assert 0 < found.error < 2


@pytest.mark.parametrize("content", ["{", "[]", '{"move": 1}', '{"format": "other"}'])
def test_files_that_hold_no_costs(content: str) -> None:
    with pytest.raises(CostsError, match="costs: expected"):
        Costs.from_json(content)


@pytest.mark.parametrize("value", [-1, float("nan"), "1", None, True])
def test_prices_are_numbers(value: Any) -> None:
    with pytest.raises(CostsError, match=r"start: expected a finite number >= 0\. Received"):
        Costs(1.0, value)
    with pytest.raises(CostsError, match="move: expected"):
        Costs(value)


@pytest.mark.parametrize("value", [0, -8, 8.0, "8", None, True])
def test_blocks_are_whole_numbers(value: Any) -> None:
    with pytest.raises(CostsError, match=r"block: expected a whole number >= 1\. Received"):
        Costs(block=value)


def test_a_file_without_a_block_has_the_usual_one() -> None:
    text = json.dumps({"format": FORMAT, "move": 1.0, "start": 2.0})
    assert Costs.from_json(text) == Costs(1.0, 2.0)
