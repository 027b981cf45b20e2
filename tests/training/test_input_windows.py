"""Windows that layers read: a kernel times a window is an output of the layer."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as L

from keras_structsparse.graph.kernel_axes import plain_kernel
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.training.input_windows import EXAMPLES, window_moments, windows

CONVOLUTIONS = {1: L.Conv1D, 2: L.Conv2D, 3: L.Conv3D}


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, dict[str, Any], tuple[int, ...]]:
    """The rank and the options of a convolution, and the sizes of a map that it reads."""
    rank = draw(st.integers(1, 3))
    several = st.tuples(*[st.integers(1, 3)] * rank)
    kernel, strides, dilation = draw(several), draw(several), draw(several)
    if rank == 3:  # TensorFlow's Conv3D in float64 begins elsewhere if a stride is longer
        strides = tuple(map(min, strides, kernel))
    if max(strides) > 1:  # Keras takes one or the other
        dilation = (1,) * rank
    padding = draw(st.sampled_from(["valid", "same", *(["causal"] if rank == 1 else [])]))
    least = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    sizes = [draw(st.integers(n, n + 5)) for n in least]
    options = {"strides": strides, "dilation_rate": dilation, "padding": padding}
    return rank, {"kernel_size": kernel, **options}, tuple(sizes)


def every_place(shape: tuple[int, ...]) -> Any:
    """The middle of every output, as parts of the sizes."""
    axes = [(np.arange(n) + 0.5) / n for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape)).astype("float32")


@given(cases())
def test_a_kernel_times_a_window_is_an_output(
    case: tuple[int, dict[str, Any], tuple[int, ...]],
) -> None:
    rank, options, sizes = case
    layer = CONVOLUTIONS[rank](3, use_bias=False, dtype="float64", **options)
    tensor = np.random.default_rng(0).standard_normal((2, *sizes, 2))
    outputs = keras.ops.convert_to_numpy(layer(tensor))
    places = every_place(outputs.shape[1:-1])
    read = keras.ops.convert_to_numpy(windows(layer, tensor, places))
    kernel = plain_kernel(layer).reshape(-1, 3)
    np.testing.assert_allclose(read @ kernel, outputs.reshape(-1, 3), atol=1e-12)
    if len(places) > 1:  # the control: other windows
        turned = keras.ops.convert_to_numpy(windows(layer, tensor, places[::-1]))
        assert np.abs(turned @ kernel - outputs.reshape(-1, 3)).max() > 1e-6


def test_windows_of_maps_with_the_channels_first() -> None:
    last = L.Conv2D(3, 2, strides=2, padding="same")
    first = L.Conv2D(3, 2, strides=2, padding="same", data_format="channels_first")
    tensor = np.random.default_rng(1).standard_normal((2, 5, 4, 6)).astype("float32")
    last.build(tensor.shape)
    first.build((2, 6, 5, 4))
    places = every_place((3, 2))
    read = [windows(first, np.moveaxis(tensor, -1, 1), places), windows(last, tensor, places)]
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, read))


@pytest.mark.parametrize("sizes", [(8, 6), (None, None)], ids=["fixed", "open"])
def test_moments_are_those_of_the_first_examples(sizes: tuple[int | None, ...]) -> None:
    inputs = keras.Input((*sizes, 2))
    x = L.Conv2D(3, 1, activation="relu", name="conv")(inputs)
    outputs = L.Dense(2, name="dense")(L.GlobalAveragePooling2D()(x))
    found = PrunableLayers.of(keras.Model(inputs, outputs))
    network = window_moments(found, found.layers)
    batch = np.random.default_rng(2).random((EXAMPLES + 3, 8, 6, 2)).astype("float32")
    measured = network.predict_on_batch(batch)
    mean, second = measured["dense"]
    read = keras.Model(inputs, found.model.layers[-2].output).predict(batch, verbose=0)
    np.testing.assert_allclose(mean, read[:EXAMPLES].mean(0), rtol=1e-5)
    np.testing.assert_allclose(second, read[:EXAMPLES].T @ read[:EXAMPLES] / EXAMPLES, rtol=1e-5)
    assert np.abs(mean - read.mean(0)).max() > 1e-4  # the control: all examples
    mean, second = measured["conv"]
    assert (mean.shape, second.shape) == ((2,), (2, 2))
    assert np.abs(mean - batch.mean((0, 1, 2))).max() < 0.05  # 40 places of 48
