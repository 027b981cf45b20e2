"""With the channels first, surgery does the same as with the channels last.

Not every backend runs such networks on a CPU; here, only their weights and layers are compared.
test_surgery_backends.py runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_formats import NETWORKS, PLANS, Format, moved, network
from helpers_models import (
    assert_exact_surgery,
    difference,
    kernel_shape,
    randomize,
    types,
    use_float64,
)
from keras import layers as L

from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.provenance import notes

Tensor = Any


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


@pytest.mark.parametrize("realize", ["auto", "crop", "split", "none"])
@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_networks_of_both_formats_have_the_same_weights(name: str, realize: str) -> None:
    last, first = (network(NETWORKS[name], axis) for axis in (-1, 1))
    np.testing.assert_equal(first.get_weights(), last.get_weights())
    pruned = assert_exact_surgery(last, PLANS[name], realize=realize)
    twin = prune(first, PLANS[name], realize=realize)
    np.testing.assert_equal(twin.get_weights(), pruned.get_weights())
    assert types(twin) == types(pruned)
    assert len(notes(twin)) == len(notes(pruned))
    formats = {getattr(layer, "data_format", "channels_first") for layer in twin.layers}
    assert formats == {"channels_first"}
    assert twin.count_params() < first.count_params()


def test_a_plain_flattening_puts_the_positions_of_a_channel_together() -> None:
    """`Flatten` moves the channels last only if it is told the data format."""
    inputs, f = keras.Input((2, 9, 8)), Format(1)
    x = f.conv(6, 3, "first", activation="sigmoid")(inputs)
    model = randomize(keras.Model(inputs, L.Dense(2, name="last")(L.Flatten()(x))))
    kernel = np.asarray(model.get_layer("last").kernel)
    bias = np.asarray(model.get_layer("first").bias)
    pruned = prune(model, Plan({"first": (3, 0, 3, 0, 3, 0)}))
    places = np.arange(6 * 42).reshape(6, 42)
    np.testing.assert_array_equal(pruned.get_layer("last").kernel, kernel[places[::2].ravel()])
    constants = np.repeat(1 / (1 + np.exp(-bias[1::2])), 42)
    expected = np.asarray(model.get_layer("last").bias) + constants @ kernel[places[1::2].ravel()]
    np.testing.assert_allclose(pruned.get_layer("last").bias, expected, rtol=1e-12)


ODD: dict[str, Callable[[Tensor], Tensor]] = {
    "dense": lambda x: L.Dense(3, name="odd")(x),
    "axis of the norm": lambda x: L.BatchNormalization(axis=-1, name="odd")(x),
    "format of the pool": lambda x: L.MaxPooling2D(data_format="channels_last", name="odd")(x),
    "axis of the join": lambda x: L.Concatenate(axis=-1, name="odd")([x, x]),
    "format of the convolution": lambda x: L.Conv2D(3, 1, name="odd")(x),
    "reshape": lambda x: L.Reshape((-1, 7), name="odd")(x),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_takes_another_axis_for_the_channels_keeps_them(kind: str) -> None:
    inputs = keras.Input((2, 9, 9))
    x = Format(1).conv(6, 3, "first")(inputs)
    model = randomize(keras.Model(inputs, ODD[kind](x)))
    pruned = prune(model, Plan({"first": (3, 0, 3, 0, 3, 0)}))
    assert kernel_shape(pruned, "first") == (3, 3, 2, 6)
    note, writer = notes(pruned)
    assert note.startswith("layer 'odd'")
    assert writer.endswith(": first 3 (for odd)")


def test_a_permutation_changes_the_format() -> None:
    inputs, f = keras.Input((9, 8, 2)), Format(1)
    x = L.Conv2D(4, 3, activation="sigmoid", name="before")(inputs)
    x = f.conv(6, 3, "first", activation="sigmoid")(L.Permute((3, 1, 2))(x))
    x = L.GlobalAveragePooling2D(data_format="channels_first")(x)
    model = randomize(keras.Model(inputs, L.Dense(2, name="last")(x)))
    pruned = prune(model, Plan({"before": (3, 0, 3, 3), "first": (3, 0, 3, 0, 3, 0)}))
    assert kernel_shape(pruned, "before")[-1] == 4
    assert kernel_shape(pruned, "first")[-2:] == (4, 3)
    assert kernel_shape(pruned, "last") == (3, 2)


def test_one_axis_is_not_cropped_with_the_channels_first() -> None:
    inputs = keras.Input((2, 12))
    x = L.Conv1D(4, 5, data_format="channels_first", name="first")(inputs)
    x = L.GlobalAveragePooling1D(data_format="channels_first")(x)
    model = randomize(keras.Model(inputs, L.Dense(2)(x)))
    pruned = prune(model, Plan({"first": (3, 0, 2, 1)}))
    assert kernel_shape(pruned, "first") == (5, 2, 3)


def test_moved_images_are_the_same_images() -> None:
    images = np.arange(24.0).reshape(1, 2, 3, 4)
    assert moved(images).shape == (1, 4, 2, 3)
    model = keras.Sequential([keras.Input((2, 3, 4)), L.Permute((3, 1, 2))])
    np.testing.assert_array_equal(model(images), moved(images))
    assert difference(model, model, images) == 0.0
