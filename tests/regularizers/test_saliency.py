"""The saliency of groups as a value, and as text."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse.regularizers.saliency import FORMAT, Saliency


def some(seed: int = 0) -> Saliency:
    rng = np.random.default_rng(seed)
    first = {"a": rng.random((3, 2)), "block/b": rng.random((1, 5)) * 1e-12}
    return Saliency(first, {name: np.square(own) for name, own in first.items()}, "half_ring")


@given(st.integers(0, 10**6))
def test_text_keeps_every_bit(seed: int) -> None:
    saliency = some(seed)
    again = Saliency.from_json(saliency.to_json())
    assert again.groups == saliency.groups
    for order in ("first", "second"):
        own, other = getattr(saliency, order), getattr(again, order)
        assert list(own) == list(other)
        for name, array in own.items():
            np.testing.assert_array_equal(other[name], array)
    assert again.to_json() != some(seed + 1).to_json()


def damaged(change: dict[str, Any]) -> str:
    return json.dumps({**json.loads(some().to_json()), **change})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "saliency: expected JSON"),
        ("[1]", "saliency: expected .*Received: 'list'"),
        (damaged({"format": FORMAT + "0"}), "saliency: expected .*Received: '.*10'"),
        (damaged({"groups": "rings"}), "groups: expected one of .*'rings'"),
        (damaged({"first": {"a": [[1.0]]}}), "same shapes"),
        (damaged({"first": [1.0]}), "saliency: expected .*'first'"),
        (damaged({"first": {"a": [["x"]]}}), "saliency: layer 'a': expected"),
        (damaged({"first": {"a": [[1.0], [1.0, 2.0]]}}), "saliency: layer 'a': expected"),
        ('{"format": "' + FORMAT + '", "groups": "ring"}', "saliency: expected .*'first'"),
    ],
)
def test_damaged_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Saliency.from_json(text)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_only_finite_numbers_that_are_not_negative(value: float) -> None:
    with pytest.raises(ValueError, match="saliency: layer 'a': expected finite numbers >= 0"):
        Saliency({"a": [[value]]}, {"a": [[1.0]]}, "kernel")


def test_both_orders_have_the_same_shapes() -> None:
    with pytest.raises(ValueError, match=r"same shapes for both orders.*\(1, 1\).*\(1, 2\)"):
        Saliency({"a": [[1.0]]}, {"a": [[1.0, 2.0]]}, "kernel")
