"""Names that TensorFlow takes: it refuses others when a network is called, with pages of text."""

from __future__ import annotations

import re
from collections.abc import Iterator

import keras

from keras_structsparse import _keras_compat
from keras_structsparse._records import shortened
from keras_structsparse.errors import ModelError

SCOPE = re.compile(r"[A-Za-z0-9_.\\/>-]*")


def check_names(model: keras.Model, argument: str) -> None:
    """Raise if TensorFlow cannot call a model, because of the name of a layer.

    Args:
        model: The model.
        argument: What the caller's user knows the model as.

    Raises:
        ModelError: There is such a name, and TensorFlow is the backend.

    Examples:
        >>> layers = [keras.layers.Dense(2, name="größe")]
        >>> check_names(keras.Sequential([keras.Input((4,)), *layers]), "model")
        Traceback (most recent call last):
        ...
        keras_structsparse.errors.ModelError: model: expected names of layers of letters a to z, ...
    """
    if keras.backend.backend() != "tensorflow":
        return
    for name in _names(model):
        if not SCOPE.fullmatch(name):
            raise ModelError(
                f"{argument}: expected names of layers of letters a to z, digits and _.\\/>-, as "
                f"TensorFlow requires. Received: {shortened(name)}; give the layer another name"
            )


def _names(model: keras.Model) -> Iterator[str]:
    yield model.name
    yield from (layer.name for layer in _keras_compat.inner_layers(model))
