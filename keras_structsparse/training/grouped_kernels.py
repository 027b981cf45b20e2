"""The trained kernels of a model with their nested groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
from keras import ops

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph import nested_groups
from keras_structsparse.graph.kernel_axes import axes_of, groups_of, kernel_of, plain_shape
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.regularizers._ops import constant
from keras_structsparse.regularizers.kernel_layouts import LAYOUTS


@dataclass(frozen=True, eq=False)
class GroupedKernel:
    """The kernels of a layer and their nested groups.

    Attributes:
        kernel: The variable.
        gamma: The scale of the normalisation that reads the layer alone; None without one.
        beta: The shift of that normalisation, if it goes with the kernel; else None.
        layout: The order of its axes.
        groups: The positions of each group (groups, positions), ``G_1`` first.
    """

    kernel: keras.Variable
    gamma: keras.Variable | None
    layout: str
    groups: Array
    beta: keras.Variable | None = None

    @property
    def width(self) -> int:
        """The number of kernels."""
        return LAYOUTS[self.layout].width(self.kernel.shape)

    @property
    def variables(self) -> tuple[keras.Variable, ...]:
        """The kernel, and the gamma and the beta if there are any."""
        found = (self.kernel, self.gamma, self.beta)
        return tuple(variable for variable in found if variable is not None)

    def change(self, gradient: Tensor) -> Tensor:
        """The first-order change of the loss if the entries of each group were doubled.

        Args:
            gradient: The gradient of the loss with respect to the kernel.

        Returns:
            Tensor (groups, kernels) in float32.
        """
        products = ops.cast(ops.convert_to_tensor(self.kernel), "float32")
        products = products * ops.cast(gradient, "float32")
        summed = ops.sum(LAYOUTS[self.layout].to_plain(products), axis=-2)
        flat = ops.reshape(summed, (self.groups.shape[1], self.width))
        return ops.matmul(constant(self.groups, like=flat), flat)


def grouped_kernels(
    found: PrunableLayers, names: Sequence[str], groups: str
) -> dict[str, GroupedKernel]:
    """The trained kernels of some layers with their groups.

    Args:
        found: The prunable layers of the model.
        names: Names of layers.
        groups: "half_ring", "ring" or "kernel".

    Returns:
        By name of the layer. Frozen kernels are left out.
    """
    kernels = {}
    for name in names:
        layer, norm = found.layers[name], found.scaled_norms.get(name)
        if not kernel_of(layer).trainable:
            continue
        gamma = norm.gamma if norm is not None and norm.gamma.trainable else None
        masks = nested_groups.masks(plain_shape(layer)[:-2], groups_of(layer, groups))
        gated = found.gated_norms.get(name) if gamma is not None else None
        beta = None if gated is None else gated.beta
        kernels[name] = GroupedKernel(kernel_of(layer), gamma, axes_of(layer).layout, masks, beta)
    return kernels
