"""How alpha is shared among the layers of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import keras
import numpy as np
from keras import ops

from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.kernel_axes import plain_kernel, plain_shape
from keras_structsparse.regularizers.coupled_groups import positions
from keras_structsparse.regularizers.group_norms import group_norms

Shares = Callable[[functional_graph.Graph, Mapping[str, keras.Layer]], dict[str, float]]


def _uniform(
    network: functional_graph.Graph, layers: Mapping[str, keras.Layer]
) -> dict[str, float]:
    return dict.fromkeys(layers, 1.0)


def _params(network: functional_graph.Graph, layers: Mapping[str, keras.Layer]) -> dict[str, float]:
    return {name: math.prod(plain_shape(layer)[:-1]) for name, layer in layers.items()}


def _multiply_adds(
    network: functional_graph.Graph, layers: Mapping[str, keras.Layer]
) -> dict[str, float]:
    places = {c.name: positions(network, c) for c in network.layers() if c.name in layers}
    return {n: places[n] * size for n, size in _params(network, layers).items()}


SHARES: dict[str, Shares] = {
    "uniform": _uniform,
    "multiply_adds": _multiply_adds,
    "params": _params,
}


def scale_free_shares(
    shares: Mapping[str, float],
    layers: Mapping[str, keras.Layer],
    norms: Mapping[str, keras.Layer],
) -> dict[str, float]:
    """Shares of alpha divided by the mean norm of the kernels of the layer.

    With them alpha has no unit: ``|k_j| / m_i`` is penalized, ``m_i`` the mean over the layer. A
    network without normalization computes the same when a layer before a ReLU is multiplied by a
    number and the next one divided by it; its penalty remains the same too.

    Args:
        shares: The shares of alpha, by name of the layer.
        layers: The layers.
        norms: The batch normalizations that are paired with layers: there the norm of an effective
            kernel is ``|gamma_j|``, so nothing changes for an untrained network.

    Raises:
        ValueError: All kernels of a layer are 0.
    """
    found = {}
    for name, layer in layers.items():
        if name in norms:
            lengths = np.abs(ops.convert_to_numpy(norms[name].gamma).astype(float))
        else:
            lengths = ops.convert_to_numpy(group_norms(plain_kernel(layer), "kernel", "l2")[-1])
        mean = math.fsum(lengths.tolist()) / len(lengths)
        if not 0 < mean < math.inf:
            raise ValueError(
                f"scale_free: layer '{name}': expected kernels with a finite norm above 0. "
                f"Received: a mean norm of {mean}"
            )
        found[name] = shares[name] / mean
    return found
