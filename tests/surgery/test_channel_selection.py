"""Which order channels get: one that needs no sorting where tensors are added."""

from __future__ import annotations

import keras
import pytest
from helpers_models import assert_exact_surgery, randomize, use_float64
from keras import layers as L

from keras_structsparse.profiling.profile import profile
from keras_structsparse.surgery.plans import Plan

SIDES = {"left": 6, "right": 4}


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def concatenated() -> keras.Model:
    """A stream that begins with a concatenation; two branches are added to it."""
    inputs = keras.Input((8, 8, 3))
    sides = [L.Conv2D(n, 5, padding="same", name=name)(inputs) for name, n in SIDES.items()]
    stream = L.Concatenate(name="stream")(sides)
    for name in ("first", "second"):
        y = L.Conv2D(3, 3, padding="same", activation="relu", name=f"{name}_inner")(stream)
        y = L.Conv2D(10, 1, name=f"{name}_outer")(y)
        stream = L.ReLU()(L.Add(name=f"{name}_sum")([stream, y]))
    outputs = L.Dense(2, name="classes")(L.GlobalAveragePooling2D()(stream))
    return randomize(keras.Model(inputs, outputs))


@pytest.mark.parametrize("realize", ["split", "auto", "crop"])
@pytest.mark.parametrize("inner", [(3, 1, 3), (1, 3, 1)])
def test_branches_come_in_the_order_of_the_concatenation_that_they_are_added_to(
    realize: str, inner: tuple[int, ...]
) -> None:
    """All ten channels of the stream stay; both its sides would sort theirs by size."""
    model = concatenated()
    plan = Plan({"left": (5, 1, 3, 1, 5, 3), "right": (3, 5, 1, 3), "first_inner": inner})
    pruned = assert_exact_surgery(model, plan, realize=realize)
    assert not [layer.name for layer in pruned.layers if "spread" in layer.name]
    assert profile(pruned).multiply_adds <= profile(model).multiply_adds


def test_groups_keep_their_order_beside_a_tensor_in_another_one() -> None:
    """The second side of the sum is reversed, so its convolution has the channels backwards."""
    inputs = keras.Input((8, 8, 4))
    y = L.Conv2D(6, 3, padding="same", name="backwards")(inputs)
    x = L.Conv2D(6, 3, padding="same", groups=2, name="grouped")(inputs)
    total = L.Conv2D(4, 5, padding="same", name="last")(L.Add()([y[..., ::-1], x]))
    model = randomize(keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(total))))
    plan = Plan({"backwards": (1, 3, 2, 3, 1, 2), "last": (5, 1, 0, 3)})
    for realize in ("split", "crop"):
        assert_exact_surgery(model, plan, realize=realize)


@pytest.mark.parametrize("turned", [slice(None, None, -1), [1, 2, 3, 0], [1, 0, 3, 2]])
def test_a_tensor_may_be_added_to_itself_in_another_order(turned: slice | list[int]) -> None:
    """Channels that are joined crosswise share their fate, and finding that out has an end."""
    inputs = keras.Input((6, 6, 3))
    x = L.Conv2D(4, 3, padding="same", name="conv")(inputs)
    y = x[..., turned] if isinstance(turned, slice) else keras.ops.take(x, turned, axis=-1)
    outputs = L.Dense(2)(L.GlobalAveragePooling2D()(L.Add()([x, y])))
    assert_exact_surgery(randomize(keras.Model(inputs, outputs)), Plan({"conv": (3, 1, 0, 3)}))
