"""Read and write the kernels of a model during training, without reading its graph again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph import nested_groups
from keras_structsparse.graph.kernel_axes import (
    groups_of,
    kernel_of,
    plain_kernel,
    plain_shape,
    stored,
)
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.kernel_correlation import mean_correlation
from keras_structsparse.surgery.thresholds import threshold_norms

KernelState = Mapping[str, tuple[Array, Array | None]]
"""By layer its kernel (*spatial, in, out) and the gamma (out,) of its normalisation, or None."""


def reached_sizes(found: PrunableLayers, name: str, groups: str) -> Array:
    """The sizes (groups + 1,) of the kernels of a layer with 0, 1, ... remaining groups.

    Args:
        found: The prunable layers.
        name: The layer.
        groups: "half_ring", "ring" or "kernel".
    """
    layer = found.layers[name]
    own = nested_groups.sizes(plain_shape(layer)[:-2], groups_of(layer, groups))
    return np.array([0, *own])


@dataclass(frozen=True)
class KernelReader:
    """Reads and writes the kernels of prunable layers and the gammas of their normalisations.

    Attributes:
        found: The prunable layers of the model.

    Examples:
        >>> stack = [keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3, name="conv")]
        >>> reader = KernelReader(PrunableLayers.of(keras.Sequential(stack)))
        >>> reader.sizes(reader.state(), tau=0.0)
        {'conv': array([3, 3])}
        >>> reader.sizes(reader.state(), tau=1e3)
        {'conv': array([0, 0])}
    """

    found: PrunableLayers

    @property
    def layers(self) -> Mapping[str, keras.Layer]:
        """The layers by name, in topological order."""
        return self.found.layers

    @property
    def norms(self) -> Mapping[str, keras.Layer]:
        """The paired batch normalisations that have a gamma, by name of the layer."""
        return self.found.scaled_norms

    def state(self) -> KernelState:
        """Copies of all kernels and gammas."""
        return {name: self.layer_state(name) for name in self.layers}

    def layer_state(self, name: str) -> tuple[Array, Array | None]:
        """Copies of the kernel and the gamma of one layer."""
        gamma = _copy(self.norms[name].gamma) if name in self.norms else None
        return np.array(plain_kernel(self.layers[name])), gamma

    def assign(self, state: KernelState) -> None:
        """Write kernels and gammas to the model.

        Args:
            state: What :meth:`state` returned, or a part of it.
        """
        for name, (kernel, gamma) in state.items():
            layer = self.layers[name]
            kernel_of(layer).assign(stored(layer, kernel))
            if gamma is not None:
                self.norms[name].gamma.assign(gamma)

    def reached(self, name: str, groups: str) -> Array:
        """The sizes (groups + 1,) of kernels of a layer with 0, 1, ... nonzero groups."""
        return reached_sizes(self.found, name, groups)

    def sizes(self, state: KernelState, tau: float, groups: str = "half_ring") -> dict[str, Array]:
        """The sizes of all kernels at a threshold, as in :func:`keras_structsparse.plan`.

        Args:
            state: What :meth:`state` returned.
            tau: The threshold.
            groups: "half_ring" or "ring".

        Returns:
            By layer the sizes (kernels,).
        """
        counts = {
            name: (threshold_norms(*own, groups_of(self.layers[name], groups)) > tau).sum(axis=0)
            for name, own in state.items()
        }
        return {name: self.reached(name, groups)[count] for name, count in counts.items()}

    def correlations(self, state: KernelState, sizes: Mapping[str, Array]) -> dict[str, float]:
        """The mean correlation of the kernels of size 1 and above in each layer.

        Args:
            state: What :meth:`state` returned.
            sizes: What :meth:`sizes` returned.

        Returns:
            By layer the result of :func:`mean_correlation`.
        """
        return {n: mean_correlation(kernel[..., sizes[n] > 0]) for n, (kernel, _) in state.items()}


def _copy(variable: keras.Variable) -> Array:
    # A copy: the result of convert_to_numpy may share its memory with the variable.
    return np.array(keras.ops.convert_to_numpy(variable))
