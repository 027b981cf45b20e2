"""Give batch normalisations the scale gamma that penalties need."""

from __future__ import annotations

import keras
import numpy as np

from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.prunable_layers import batch_norm_pairs


def with_scales(model: keras.Model) -> keras.Model:
    """Copy a network so that every convolution's batch normalisation has a scale gamma.

    If a batch normalisation with ``scale=False`` follows, the norm of a kernel has no effect, and
    there is no gamma for a penalty to act on. With gamma = 1 the network computes the same as
    before, and a penalty has an effect.

    Args:
        model: A functional or built Sequential model; it is not changed.

    Returns:
        An uncompiled copy with its own weights, without regularizers of this package. Only batch
        normalisations that are the only reader of a convolution or dense layer are different.

    Raises:
        ModelError: The model has no graph.

    Examples:
        >>> norm = keras.layers.BatchNormalization(scale=False, name="norm")
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3), norm])
        >>> with_scales(model).get_layer("norm").gamma.numpy().tolist()
        [1.0, 1.0]
    """
    pairs = batch_norm_pairs(functional_graph.read(model)).values()
    flat = {id(norm) for norm in pairs if not norm.scale}
    return copy_model(
        model,
        config=lambda layer: {"scale": True} if id(layer) in flat else {},
        weights=lambda layer: _with_gamma(layer) if id(layer) in flat else layer.get_weights(),
    )


def _with_gamma(norm: keras.Layer) -> list[np.ndarray]:
    """The weights of a normalisation with a gamma of ones in front."""
    return [np.ones(norm.moving_mean.shape, norm.moving_mean.dtype), *norm.get_weights()]
