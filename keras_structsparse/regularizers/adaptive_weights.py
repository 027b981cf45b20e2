"""Weights of groups that are measured on a trained network: adaptive group lasso.

A group that the loss needs is hardly penalized, one that it does not need vanishes early (Wang &
Leng 2008).
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.kernel_axes import plain_kernel
from keras_structsparse.regularizers.base import GroupSparsityRegularizer
from keras_structsparse.regularizers.saliency import Saliency

EXPONENT = 0.5
"""``p`` in the weight ``1 / saliency^p``."""

FLOOR = 0.01
"""The smallest saliency that is told from 0, in units of the mean: no weight is above 10."""


def group_weights(
    saliency: Saliency, regularizer: GroupSparsityRegularizer, layers: Mapping[str, keras.Layer]
) -> dict[str, Array]:
    """The weights ``(m / (s + f m))^p`` of all groups, with ``m`` the mean over whole kernels.

    Args:
        saliency: What the loss would lose without each group; ``s`` is its second order.
        regularizer: The regularizer whose groups get the weights.
        layers: The layers with a regularizer, by name.

    Returns:
        For each layer an array (groups, kernels).

    Raises:
        ValueError: The saliency is not that of these layers and groups, or 0 everywhere.

    Examples:
        >>> from keras_structsparse.regularizers import KernelCount
        >>> layer = keras.layers.Dense(2)
        >>> layer.build((None, 3))
        >>> lost = {"dense": np.array([[1.0, 0.0]])}
        >>> found = group_weights(Saliency(lost, lost, "kernel"), KernelCount(), {"dense": layer})
        >>> found["dense"].round(2).tolist()
        [[0.71, 10.0]]
    """
    if saliency.groups != regularizer.groups:
        raise ValueError(
            f"saliency: expected that of the regularizer's groups, {regularizer.groups!r}. "
            f"Received: {saliency.groups!r}; see the argument groups of kss.saliency"
        )
    if not layers:
        raise ValueError(
            f"saliency: expected that of layers of the model. Received: {sorted(saliency.second)}"
        )
    for name, layer in layers.items():
        shape = tuple(regularizer.group_norms(plain_kernel(layer)).shape)
        received = saliency.second[name].shape if name in saliency.second else None
        if received != shape:
            raise ValueError(
                f"saliency: layer '{name}': expected numbers of the shape {shape}. Received: "
                f"{received}"
            )
    found = {name: saliency.second[name] for name in layers}
    mean = float(np.mean(np.concatenate([own[-1] for own in found.values()])))
    if mean == 0:
        raise ValueError("saliency: expected numbers above 0. Received: 0 for all kernels")
    return {n: (mean / (own + FLOOR * mean)) ** EXPONENT for n, own in found.items()}
