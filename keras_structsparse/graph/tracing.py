"""Make a functional model of a subclassed one whose ``call`` uses only layers and keras.ops."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Tensor
from keras_structsparse.errors import ModelError
from keras_structsparse.graph.functional_graph import read
from keras_structsparse.graph.masked_steps import with_masked_steps
from keras_structsparse.graph.masks import follow
from keras_structsparse.graph.numerics import relative_difference

TOLERANCE = 1e-4
"""Largest relative difference that counts as rounding; another branch of the call differs more."""


def traced(model: keras.Model, example: Any) -> keras.Model:
    """A functional model over the layers of a subclassed one.

    The model's ``call`` is run once on symbolic inputs. The functional model uses the layers and
    weights of the model, not copies; a subclassed layer remains one layer. Both models are compared
    on the example.

    Args:
        model: The model; its ``call`` may use Keras layers and ``keras.ops`` only.
        example: Inputs as the model takes them, arrays (batch, ...) in any structure: their shapes
            become those of the inputs, with a free batch size. If the model makes masks, both
            models are compared on the example with masked steps as well.

    Returns:
        A functional model that computes the same at inference.

    Raises:
        ModelError: The call cannot be traced, uses weights of no layer, or gives other outputs
            than the traced model, for example because it branches on values.

    Examples:
        >>> class Twice(keras.Model):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.dense = keras.layers.Dense(3, name="dense")
        ...     def call(self, x):
        ...         return keras.ops.relu(self.dense(x)) * 2.0
        >>> model = traced(Twice(), np.ones((2, 4), "float32"))
        >>> model.output_shape
        (None, 3)
    """
    if not isinstance(model, keras.Model):
        raise ModelError(f"Expected a keras.Model. Received: {type(model).__name__}")
    expected = model(example)
    inputs = keras.tree.map_structure(_placeholder, example)
    try:
        outputs = model.call(inputs)
        functional = keras.Model(inputs, outputs, name=model.name)
    except Exception as error:  # whatever a user's code raises on symbolic tensors
        raise ModelError(
            f"Model '{model.name}': its call cannot be traced; expected one made of Keras layers "
            f"and keras.ops only. Received {type(error).__name__}: {error}"
        ) from error
    _check_weights(model, functional)
    check_outputs(model.name, expected, functional(example))
    if follow(read(functional)).beside:
        masked = _with_masked_steps(functional, example)
        check_outputs(model.name, model(masked), functional(masked))
    return functional


def _with_masked_steps(model: keras.Model, example: Any) -> Any:
    """The example with masked steps, since it may have none."""
    arrays = [keras.ops.convert_to_numpy(array) for array in keras.tree.flatten(example)]
    arrays = [np.concatenate([array, array]) for array in arrays]  # a sample is left as it is
    return keras.tree.pack_sequence_as(example, with_masked_steps(model, arrays, seed=0))


def _placeholder(array: Any) -> Tensor:
    tensor = keras.ops.convert_to_tensor(array)
    return keras.Input(tensor.shape[1:], dtype=keras.backend.standardize_dtype(tensor.dtype))


def _check_weights(model: keras.Model, functional: keras.Model) -> None:
    found = {id(weight) for weight in functional.weights}
    lost = [weight.path for weight in model.weights if id(weight) not in found]
    if lost:
        raise ModelError(
            f"Model '{model.name}': expected all weights to belong to layers that its call "
            f"uses. Received others, which a graph cannot hold: {', '.join(sorted(lost))}"
        )


def check_outputs(name: str, expected: Any, received: Any) -> None:
    """Raise a ModelError unless a traced model computes the same as the original.

    Args:
        name: The name of the model.
        expected: Outputs of the original, in any structure.
        received: Outputs of the traced model, in the same order.
    """
    pairs = zip(keras.tree.flatten(expected), keras.tree.flatten(received), strict=True)
    for left, right in pairs:
        a, b = (np.asarray(keras.ops.convert_to_numpy(x), np.float64) for x in (left, right))
        if a.shape != b.shape or not relative_difference(a, b) <= TOLERANCE:
            raise ModelError(
                f"Model '{name}': expected the traced model to compute the same on the "
                "example. Received other outputs: its call branches on values or draws random "
                "numbers."
            )
