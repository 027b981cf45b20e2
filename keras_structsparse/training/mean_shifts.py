"""The mean of what removed entries compute, which is moved into the bias of their channel.

The entries ``w`` of a kernel add ``sum(w x)`` to its output. Its mean over the data and the
positions, ``sum(w E[x])``, is a constant. So only the rest is lost with the entries if that
constant is added to the bias, or taken off the moving mean of the normalisation behind. Zero
padding is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph.functional_graph import Call
from keras_structsparse.graph.kernel_axes import axes_of
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.training.grouped_kernels import GroupedKernel
from keras_structsparse.training.measured_inputs import input_means


@dataclass(frozen=True, eq=False)
class Offset:
    """Where a constant is added to the outputs of the kernels of a layer.

    Attributes:
        bias: The bias of the layer; None without one.
        norm: Otherwise the normalisation that reads the layer directly.
    """

    bias: keras.Variable | None
    norm: keras.layers.BatchNormalization | None = None

    def gradient(self, gradients: Mapping[int, Tensor]) -> Tensor | None:
        """The gradient with respect to the constants (kernels,), in inference.

        Args:
            gradients: By ``id`` of the variable.

        Returns:
            None if the bias, or the beta of the normalisation, has no gradient.
        """
        if self.norm is None:
            return gradients.get(id(self.bias))
        found = gradients.get(id(self.norm.beta))
        if found is None:
            return None
        variance = ops.cast(ops.convert_to_tensor(self.norm.moving_variance), "float32")
        scale = ops.rsqrt(variance + self.norm.epsilon)
        if self.norm.scale:
            scale = scale * ops.cast(ops.convert_to_tensor(self.norm.gamma), "float32")
        return ops.cast(found, "float32") * scale

    def add(self, shift: Array) -> None:
        """Add constants (kernels,)."""
        if self.norm is not None:
            self.norm.moving_mean.assign(ops.convert_to_numpy(self.norm.moving_mean) - shift)
        elif self.bias is not None:
            self.bias.assign(ops.convert_to_numpy(self.bias) + shift)


def offset_of(found: PrunableLayers, call: Call) -> Offset | None:
    """Where constants are added to the outputs of a layer.

    Args:
        found: The prunable layers of a model.
        call: The call of one of them.

    Returns:
        None if there is no such place, if it is frozen, if a normalisation behind an activation
        divides by what the constant changes, or if the mean of what the kernels read is not known:
        for shared, transposed and separable layers.
    """
    layer = call.operation
    axes = axes_of(layer)
    if found.graph.is_shared(call) or axes.transposed or axes.weight != "kernel":
        return None
    norm, (output,) = found.batch_norms.get(call.name), call.outputs
    reads = [reader.operation for reader in found.graph.readers.get(output, ())]
    direct = reads == [norm] and layer.activation is keras.activations.linear
    if norm is not None and not direct:
        return None
    if getattr(layer, "bias", None) is not None:
        return Offset(layer.bias) if layer.bias.trainable else None
    if norm is None or not norm.center:
        return None
    return Offset(None, norm) if norm.beta.trainable else None


class MeanShifts:
    """Measures the mean of what entries of kernels compute, and moves it.

    Args:
        found: The prunable layers of the network.
        kernels: The kernels with their groups, by name of the layer.
    """

    def __init__(self, found: PrunableLayers, kernels: Mapping[str, GroupedKernel]) -> None:
        calls = [call for call in found.graph.layers() if call.name in kernels]
        offsets = {call.name: offset_of(found, call) for call in calls}
        self.offsets = {name: own for name, own in offsets.items() if own is not None}
        self._layers = {name: found.layers[name] for name in self.offsets}
        self._network = input_means(found, self.offsets)
        self._means: dict[str, Array] = {}

    def measure(self, batches: Iterable[tuple[Any, ...]]) -> None:
        """Measure the mean inputs.

        Args:
            batches: Batches of inputs and more.
        """
        if not self.offsets:
            return
        measured = [self._network.predict_on_batch(batch[0]) for batch in batches]
        self._means = {
            name: np.mean([each[name] for each in measured], axis=0) for name in self.offsets
        }

    def of_groups(self, name: str, own: GroupedKernel) -> Array:
        """The mean of what each group of a layer computes (groups, kernels)."""
        means = np.broadcast_to(self._means[name][:, None], own.kernel.shape)
        return np.asarray(ops.convert_to_numpy(own.change(means)))

    def move(self, name: str, removed: Array) -> None:
        """Move the mean of what removed entries computed, if it is known.

        Args:
            name: The layer.
            removed: Its kernels (*spatial, in, out) with zeros for the entries that are kept.
        """
        if name not in self._means:
            return
        layer = self._layers[name]
        means = np.broadcast_to(self._means[name][:, None], tuple(layer.kernel.shape))
        products = removed * axes_of(layer).plain(means)
        self.offsets[name].add(products.sum(axis=tuple(range(removed.ndim - 1))))
