"""A network of inverted residual blocks, as MobileNetV2 has, is shrunk to a budget."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers_depthwise import normed
from helpers_shrinking import CROSS, easy, shrunk
from keras import layers as L

import keras_structsparse as kss

pytestmark = [
    pytest.mark.filterwarnings("ignore:shrink. accuracy changed:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def network() -> keras.Model:
    """Three blocks with depthwise kernels of 5x5, the second with a sum around it."""
    inputs = keras.Input((8, 8, 1))
    x = normed(L.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(inputs), "relu6")
    for number, strides in enumerate((2, 1, 1)):
        y = normed(L.Conv2D(24, 1, use_bias=False, name=f"expand{number}")(x), "relu6")
        options = {"padding": "same", "use_bias": False, "name": f"depthwise{number}"}
        y = normed(L.DepthwiseConv2D(5, strides, **options)(y), "relu6")
        y = normed(L.Conv2D(8, 1, use_bias=False, name=f"project{number}")(y))
        x = L.Add()([x, y]) if number == 1 else y
    x = normed(L.Conv2D(32, 1, use_bias=False, name="last")(x), "relu6")
    return keras.Model(inputs, L.Dense(2, "softmax", name="head")(L.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("groups", [None, "mixed", "half_ring"])
def test_the_budget_is_met_with_whole_depthwise_kernels_or_several_sizes(
    groups: str | None,
) -> None:
    keras.utils.set_random_seed(0)
    model = network()
    model.compile(keras.optimizers.Adam(0.01), CROSS, metrics=["accuracy"], run_eagerly=True)
    data = easy(model)
    method = kss.ShrinkMethod(groups=groups)
    result = shrunk(model, data, data, multiply_adds=0.4, method=method)
    comparison = result.comparison
    assert 0.25 < comparison.multiply_adds_fraction <= 0.4
    assert not any("expected" in text for text in result.warnings)
    assert result.verification is None or bool(result.verification)
    sizes = np.concatenate([result.plan.sizes[f"depthwise{n}"] for n in range(3)])
    found = set(sizes.tolist())
    assert len(found) > 2 if groups == "half_ring" else found == {0, 5}
    assert {*result.plan.sizes["stem"]} - {0, 3}  # Other kernels get smaller in any case.
    assert not comparison.left_out


def test_a_residual_stream_gets_narrower() -> None:
    """The kernels that write one of its channels are removed together."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = normed(L.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(inputs), "relu")
    for name in ("first", "second"):
        y = normed(L.Conv2D(16, 3, padding="same", use_bias=False, name=f"{name}_in")(x), "relu")
        y = normed(L.Conv2D(16, 3, padding="same", use_bias=False, name=f"{name}_out")(y))
        x = L.ReLU()(L.Add()([x, y]))
    x = L.Dense(2, "softmax", name="head")(L.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    model.compile(keras.optimizers.Adam(0.01), CROSS, metrics=["accuracy"], run_eagerly=True)
    data = easy(model)
    result = shrunk(model, data, data, multiply_adds=0.3)
    writers = [np.array(result.plan.sizes[name]) for name in ("stem", "first_out", "second_out")]
    together = np.all([own == 0 for own in writers], axis=0)
    assert 0 < together.sum() < 16
    assert result.comparison.multiply_adds_fraction <= 0.3
    assert result.verification is None or bool(result.verification)
