"""Surgery of products, quotients, maxima and bare operations; gates, maps of one channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    assert_exact_surgery,
    kernel_shape,
    network_around,
    randomize,
    types,
    use_float64,
)
from keras import layers as L
from keras import ops

from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.provenance import notes

Tensor = Any

HALF = Plan({"first": [3, 0, 3, 0, 3, 0]})


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def gated(x: Tensor) -> Tensor:
    """Squeeze and excite."""
    width = x.shape[-1]
    gate = L.Reshape((1, 1, width))(L.GlobalAveragePooling2D()(x))
    gate = L.Conv2D(2, 1, activation="relu", name="squeeze")(gate)
    return L.Multiply()([x, L.Conv2D(width, 1, activation="sigmoid", name="excite")(gate)])


BODIES: dict[str, tuple[Callable[[Tensor], Tensor], int, int]] = {
    "gate": (gated, 3, 6),
    "map of one channel": (lambda x: x * L.Conv2D(1, 1, activation="sigmoid")(x), 3, 6),
    "numbers": (lambda x: 1.0 - x * 2.0 / 3.0, 4, 4),
    "bare relu": (lambda x: ops.relu(x + 0.5), 4, 4),
    "bare functions": (lambda x: ops.tanh(ops.silu(ops.abs(x))), 3, 4),
    "bare sum": (lambda x: x + ops.square(x), 3, 4),
    "maximum": (lambda x: L.Maximum()([x, ops.negative(x)]), 3, 4),
    "average": (lambda x: L.Average()([x, ops.square(x)]), 3, 4),
    "difference of means": (lambda x: x - ops.mean(x, axis=(1, 2), keepdims=True), 3, 3),
    "reshaped": (lambda x: ops.reshape(L.Permute((2, 1, 3))(x), (-1, 2, 10, 6)), 3, 4),
    "up-sampled": (lambda x: L.Cropping2D(2)(L.UpSampling2D(2)(x)), 3, 4),
    "interpolated": (lambda x: L.UpSampling2D(2, interpolation="bilinear")(x), 3, 6),
}
"""What comes behind the convolution, and how many of its kernels stay: of removed ones that leave
zeros, and of ones that leave other constants."""


@pytest.mark.parametrize("constants", ["zero", "other"])
@pytest.mark.parametrize("body", BODIES)
def test_channels_go_through(body: str, constants: str) -> None:
    make, zero, other = BODIES[body]
    model = network_around(make, "relu" if constants == "zero" else "sigmoid")
    pruned = assert_exact_surgery(model, HALF, realize="crop")
    assert kernel_shape(pruned, "first")[-1] == (zero if constants == "zero" else other)


def test_a_gate_loses_the_channels_that_it_would_multiply_by_zero() -> None:
    pruned = assert_exact_surgery(network_around(gated), HALF, realize="crop")
    assert kernel_shape(pruned, "excite") == (1, 1, 2, 3)
    assert kernel_shape(pruned, "squeeze") == (1, 1, 3, 2)


def test_sides_in_different_orders_are_brought_into_one() -> None:
    """A concatenation sorts its parts, each for itself; a product needs one order."""

    def body(x: Tensor) -> Tensor:
        left = L.Concatenate()([L.Conv2D(4, 5, padding="same", name="wide")(x), x])
        return L.Multiply()([left, L.Conv2D(10, 5, padding="same", name="long")(x)])

    plan = Plan({**HALF.sizes, "wide": [1, 5, 1, 5], "long": [5, 1] * 5})
    assert_exact_surgery(network_around(body), plan, realize="split")


def test_arrays_in_a_call_are_left_alone() -> None:
    model = network_around(lambda x: ops.multiply(x, np.arange(6.0)))
    pruned = assert_exact_surgery(model, HALF)
    assert kernel_shape(pruned, "first")[-1] == 6
    assert any("array" in note for note in notes(pruned))


def test_what_no_one_reads_goes() -> None:
    """The reader has no weights for two channels, and a scale of 0 ends a third."""
    inputs = keras.Input((7, 6, 2))
    x = L.BatchNormalization(name="norm")(L.Conv2D(6, 3, name="first")(inputs))
    model = randomize(keras.Model(inputs, L.Conv2D(3, 3, name="reader")(x)))
    reader, norm = model.get_layer("reader"), model.get_layer("norm")
    reader.kernel.assign(np.asarray(reader.kernel) * np.array([1, 0, 1, 1, 0, 1])[:, None])
    norm.gamma.assign(np.asarray(norm.gamma) * np.array([1, 1, 1, 0, 1, 1]))
    pruned = assert_exact_surgery(model, Plan({"first": [3, 3, 3, 3, 3, 0]}))
    assert kernel_shape(pruned, "first")[-1] == 2
    assert types(pruned) == types(model)
