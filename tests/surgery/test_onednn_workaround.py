"""Strided convolutions of size 1 over few channels: the same function, and safe to train."""

from __future__ import annotations

import subprocess
import sys

import keras
import pytest
from helpers_models import assert_exact_surgery, randomize, use_float64
from keras import layers as L

from keras_structsparse.graph.onednn import REGISTER
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.provenance import notes


def network(width: int, size: int, padding: str, side: int, rank: int = 2) -> keras.Model:
    convolution = {1: L.Conv1D, 2: L.Conv2D}[rank]
    inputs = keras.Input((side,) * rank + (2,))
    hidden = convolution(width, 3, activation="relu", name="first")(inputs)
    outputs = convolution(4, size, strides=2, padding=padding, name="strided")(hidden)
    return randomize(keras.Model(inputs, outputs))


def pooled(model: keras.Model) -> bool:
    return any(
        isinstance(layer, (L.AveragePooling1D, L.AveragePooling2D)) for layer in model.layers
    )


@pytest.mark.parametrize("side", [9, 10])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("size", [1, 3])
def test_places_are_picked_before_a_convolution_that_cannot_be_trained(
    size: int, rank: int, padding: str, side: int
) -> None:
    use_float64()
    model = network(REGISTER, size, padding, side, rank)
    # Every second kernel goes; of those of 3 x 3, all that stay are cropped to their middle.
    plan = Plan({"first": [3, 0] * (REGISTER // 2), "strided": [1] * 4})
    pruned = assert_exact_surgery(model, plan, realize="crop")
    assert pooled(pruned)
    assert pruned.get_layer("strided").strides == (1,) * rank


@pytest.mark.parametrize("kept", [REGISTER, REGISTER + 1])
def test_enough_channels_are_read_with_strides(kept: int) -> None:
    use_float64()
    model = network(REGISTER + 4, 1, "same", 8)
    plan = Plan({"first": [3] * kept + [0] * (REGISTER + 4 - kept)})
    pruned = assert_exact_surgery(model, plan)
    assert not pooled(pruned)
    assert pruned.get_layer("strided").strides == (2, 2)


def test_what_was_so_before_stays() -> None:
    use_float64()
    model = network(REGISTER - 4, 1, "same", 8)
    assert not pooled(assert_exact_surgery(model, Plan({"first": [3] * 6 + [0] * 6})))


TRAINING = f"""
import keras, numpy as np
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery import prune
from keras import layers as L
stack = [%s, L.GlobalAveragePooling2D(), L.Dense(1)]
model = keras.Sequential([keras.Input((28, 28, 1)), *stack])
model = prune(model, Plan(dict(first=[%s] * 8 + [0] * {REGISTER - 8})))
model.compile("sgd", "mse")
model.fit(np.ones((500, 28, 28, 1)), np.ones((500, 1)), batch_size=125, epochs=15, verbose=0)
"""

BODIES = {
    3: f"L.Conv2D({REGISTER}, 3, padding='same', name='first'), L.Conv2D(16, 1, strides=2)",
    1: f"L.Conv2D(16, 3), L.Conv2DTranspose({REGISTER}, 1, strides=2, name='first')",
}
"""Layers before which, and in which, kernels of a size are removed."""


@pytest.mark.parametrize("size", BODIES)
def test_training_survives(size: int) -> None:
    """Without the workarounds it crashes where oneDNN writes past its memory."""
    code = TRAINING % (BODIES[size], size)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def widening(width: int, size: int, rank: int = 2) -> keras.Model:
    """A strided transposed layer whose kernels an activation with an offset and a layer read."""
    transposed = {1: L.Conv1DTranspose, 2: L.Conv2DTranspose, 3: L.Conv3DTranspose}[rank]
    convolution = {1: L.Conv1D, 2: L.Conv2D, 3: L.Conv3D}[rank]
    inputs = keras.Input((5,) * rank + (2,))
    hidden = convolution(4, 2, activation="relu", name="first")(inputs)
    hidden = transposed(width, size, strides=2, activation="sigmoid", name="strided")(hidden)
    return randomize(keras.Model(inputs, convolution(2, 2, name="last")(hidden)))


@pytest.mark.parametrize(
    ("width", "size", "rank", "left"),
    [
        (REGISTER + 8, 1, 2, REGISTER),
        (REGISTER, 1, 1, REGISTER),
        # Any number of kernels can be trained, or could not before.
        (REGISTER + 8, 2, 2, 5),
        (REGISTER, 1, 3, 5),
        (REGISTER - 2, 1, 2, 5),
    ],
)
@pytest.mark.parametrize("removed", ["strided", "first and strided"])
def test_a_strided_transposed_layer_keeps_as_many_kernels_as_can_be_trained(
    width: int, size: int, rank: int, left: int, removed: str
) -> None:
    use_float64()
    plan = Plan({"strided": [size] * 5 + [0] * (width - 5)})
    if "first" in removed:
        plan = Plan({**plan.sizes, "first": [2, 0, 0, 2]})
    model = widening(width, size, rank)
    pruned = assert_exact_surgery(model, plan)
    # Behind a sigmoid a removed kernel is a constant, for which the last layer has a bias.
    assert pruned.get_layer("strided").filters == left
    assert [note for note in notes(pruned) if "oneDNN" in note] == [
        f"kernels of zeros kept because oneDNN cannot train narrower strided 1x1 layers: "
        f"strided {left - 5}"
    ] * (left > 5)


def test_a_strided_transposed_layer_without_kernels_goes() -> None:
    use_float64()
    width = REGISTER + 2
    inputs = keras.Input((5, 5, 2))
    gone = L.Conv2DTranspose(width, 1, strides=2, name="strided")(inputs)
    model = keras.Model(inputs, L.Conv2D(2, 2)(gone) + L.UpSampling2D()(inputs)[:, 1:, 1:])
    pruned = assert_exact_surgery(randomize(model), Plan({"strided": [0] * width}))
    assert "strided" not in [layer.name for layer in pruned.layers]
