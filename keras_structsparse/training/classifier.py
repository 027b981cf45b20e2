"""A base network that fits the images and classes of a data set."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from keras_structsparse._typing import Array, Shape
from keras_structsparse.errors import ModelError
from keras_structsparse.graph.cloning import copy_model


def classifier(
    base: keras.Model, images: Array, classes: int, model: str = "model", data: str = "data"
) -> keras.Model:
    """A copy of a network without its regularizers, if it fits a data set.

    Args:
        base: The network.
        images: Some images (examples, height, width, channels).
        classes: Number of classes.
        model: What the user calls the network, for errors.
        data: What the user calls the data set, for errors.

    Returns:
        The copy, not compiled.

    Raises:
        ModelError: The network does not take the images or does not give class probabilities.
    """
    copy = copy_model(base)
    check_images(copy, images, model, data)
    outputs = [tuple(tensor.shape[1:]) for tensor in copy.outputs]
    if outputs != [(classes,)]:
        raise ModelError(
            f"{model}: expected an output of shape ({classes},), the classes of data set "
            f"'{data}'. Received: a model with {_listed('output', outputs)}"
        )
    answers = keras.ops.convert_to_numpy(keras.tree.flatten(copy(images))[0])
    if answers.min() < 0 or not np.allclose(answers.sum(axis=-1), 1.0, atol=1e-2):
        raise ModelError(
            f"{model}: expected class probabilities, as a softmax gives them. Received: outputs "
            f"from {answers.min():.3g} to {answers.max():.3g}"
        )
    return copy


def check_images(
    network: keras.Model, images: Array, model: str = "model", data: str = "data"
) -> None:
    """Raise unless a network takes the images of a data set.

    Args:
        network: The network.
        images: Some images (examples, height, width, channels).
        model: What the user calls the network, for errors.
        data: What the user calls the data set, for errors.

    Raises:
        ModelError: It takes several inputs, or inputs of another shape.
    """
    shape = tuple(images.shape[1:])
    inputs = [tuple(tensor.shape[1:]) for tensor in network.inputs]
    if len(inputs) != 1 or not _takes(inputs[0], shape):
        raise ModelError(
            f"{model}: expected an input of shape {shape}, the images of data set '{data}'. "
            f"Received: a model with {_listed('input', inputs)}"
        )


def _takes(shape: Shape, image: tuple[int, ...]) -> bool:
    return len(shape) == len(image) and all(
        side in (None, given) for side, given in zip(shape, image, strict=True)
    )


def _listed(what: str, shapes: Sequence[Shape]) -> str:
    return f"{what}s of shapes {shapes}" if len(shapes) > 1 else f"{what} of shape {shapes[0]}"
