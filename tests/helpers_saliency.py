"""What the loss loses without groups, by brute force: the slope when their entries are scaled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from helpers_models import randomize
from keras import layers as L

from keras_structsparse.graph.kernel_axes import (
    axes_of,
    groups_of,
    kernel_of,
    plain_shape,
    stored,
)
from keras_structsparse.graph.nested_groups import masks
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.inner_layers import inner_layers

Array = Any
EXACT = keras.backend.backend() == "tensorflow"
"""JAX and torch round in between to float32, whatever the layers' dtype."""

STEP, TOLERANCE = (1e-4, 2e-4) if EXACT else (1e-2, 1e-2)


def small(outputs: str = "classes", **options: Any) -> keras.Model:
    """Normalisation, dropout, a dense layer and a transposed convolution; random weights."""
    inputs = keras.Input((4, 4, 2), name="image")
    x = L.Conv2D(3, 3, padding="same", name="a", **options)(inputs)
    x = L.Dropout(0.5)(L.Activation("tanh")(L.BatchNormalization(name="norm")(x)))
    x = L.Conv2DTranspose(2, 2, activation="tanh", name="up")(x)
    x = L.Dense(4, activation="tanh", name="b")(L.GlobalAveragePooling2D()(x))
    classes = L.Dense(3, activation="softmax", name="classes")(x)
    value = L.Dense(1, name="value")(x)
    found = {"classes": classes, "value": value, "both": [classes, value]}[outputs]
    return randomize(keras.Model(inputs, found), 3)


def slopes(model: keras.Model, loss: Callable[[], float], groups: str) -> dict[str, Array]:
    """For each group (groups, kernels) of inner layers the slope of the loss."""
    found = PrunableLayers.of(model)
    result = {}
    for name in inner_layers(found):
        layer = found.layers[name]
        variable, axes = kernel_of(layer), axes_of(layer)
        value = axes.plain(keras.ops.convert_to_numpy(variable)).copy()
        shape = plain_shape(layer)
        rows = []
        for mask in masks(shape[:-2], groups_of(layer, groups)):
            row = []
            for kernel in range(shape[-1]):
                losses = []
                for step in (STEP, -STEP):
                    scale = np.ones(shape)
                    scale[..., kernel] += step * mask.reshape(*shape[:-2], 1)
                    variable.assign(stored(layer, value * scale))
                    losses.append(loss())
                row.append((losses[0] - losses[1]) / (2 * STEP))
            rows.append(row)
        variable.assign(stored(layer, value))
        result[name] = np.array(rows)
    return result


def brute(
    model: keras.Model,
    batches: Sequence[tuple[Any, ...]],
    loss: Callable[..., Any],
    groups: str = "half_ring",
) -> tuple[dict[str, Array], dict[str, Array]]:
    """First and second order of the saliency, from differences of the loss.

    ``loss`` is called with the outputs and what a batch has after its inputs.
    """
    found = []
    for x, *others in batches:

        def total(x: Any = x, others: Sequence[Any] = others) -> float:
            return float(loss(model(x, training=False), *others))

        found.append(slopes(model, total, groups))
    examples = np.mean([len(keras.tree.flatten(batch[0])[0]) for batch in batches])
    first = {n: np.mean([np.abs(own[n]) for own in found], axis=0) for n in found[0]}
    second = {
        n: examples / 2 * np.mean([np.square(own[n]) for own in found], axis=0) for n in found[0]
    }
    return first, second
