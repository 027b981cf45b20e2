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
first = keras.layers.Conv2D({REGISTER}, 3, padding="same", name="first")
rest = [keras.layers.Conv2D(16, 1, strides=2), keras.layers.GlobalAveragePooling2D()]
model = keras.Sequential([keras.Input((28, 28, 1)), first, *rest, keras.layers.Dense(1)])
model = prune(model, Plan({{"first": [3] * 8 + [0] * {REGISTER - 8}}}))
model.compile("sgd", "mse")
model.fit(np.ones((500, 28, 28, 1)), np.ones((500, 1)), batch_size=125, epochs=15, verbose=0)
"""


def test_training_survives() -> None:
    """Without the pooling it crashes where oneDNN writes past its memory."""
    done = subprocess.run([sys.executable, "-c", TRAINING], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
