"""What the loss would lose without a channel whose readers take over what they can predict of it.

A layer reads windows ``p`` with the covariance ``C``, and computes ``W^T p`` plus a constant. Let
``J`` be the entries of one channel, ``K`` all others, ``G`` the gradient of the loss with respect
to ``W``, less the mean of ``p`` times that with respect to the constant. Without the channel, and
with its ridge regression on the others in its place, the loss changes to first order by

    -sum(W_J * (G_J - B^T G_K)),  B = (C_KK + a I)^-1 C_KJ

With ``P = (C + a I)^-1`` of all entries, ``B = -P_KJ P_JJ^-1``. So for all channels at once

    G_J - B^T G_K = P_JJ^-1 (P G)_J
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

import keras
import numpy as np
from keras import ops

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph.channels.channel_groups import Writers
from keras_structsparse.graph.kernel_axes import KERNELS, plain_shape
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.training.reconstruction import RIDGE, Moments


@dataclass(frozen=True, eq=False)
class ChannelRegression:
    """How the channels that a layer reads predict each other; arrays or variables.

    Attributes:
        mean: The mean (entries,) of the windows.
        precision: ``P`` (entries, entries).
        blocks: ``P_JJ^-1`` (channels, positions, positions) of every channel.
    """

    mean: Tensor
    precision: Tensor
    blocks: Tensor

    @classmethod
    def of(cls, moments: Moments, channels: int) -> Self:
        """That of the windows of a layer.

        Args:
            moments: Those of the windows.
            channels: The number of channels.
        """
        covariance = moments.covariance.astype(float)
        variances = np.diag(covariance)
        ridge = RIDGE * variances.sum() / max(np.count_nonzero(variances > 0), 1)
        precision = np.linalg.inv(covariance + (ridge or 1.0) * np.eye(len(covariance)))
        own = entries_of(channels, len(covariance))
        blocks = np.linalg.inv(precision[own[:, :, None], own[:, None, :]])
        return cls(moments.mean, precision, blocks)

    def changes(self, kernel: Tensor, gradient: Tensor, constant: Tensor) -> Tensor:
        """By how much the loss falls to first order if each channel is removed and replaced.

        Args:
            kernel: The kernel as ``W`` (entries, kernels). Its zeros are entries that were
                removed: they take nothing over.
            gradient: The gradient with respect to it.
            constant: The gradient (kernels,) with respect to a constant that is added.

        Returns:
            Tensor (channels,).

        Examples:
            >>> together = Moments(np.zeros(2), np.ones((2, 2)))  # two inputs that are equal
            >>> found = ChannelRegression.of(together, 2)
            >>> one, none = np.ones((2, 1)), np.zeros(1)
            >>> ops.convert_to_numpy(found.changes(one, one, none)).round(2).tolist()
            [0.33, 0.33]
        """
        centred = gradient - ops.expand_dims(self.mean, 1) * ops.expand_dims(constant, 0)
        centred = ops.where(ops.equal(kernel, 0), ops.zeros_like(centred), centred)
        channels, positions = self.blocks.shape[:2]
        order = entries_of(channels, channels * positions).ravel()
        shape = channels, positions, kernel.shape[-1]
        spread = ops.reshape(ops.take(ops.matmul(self.precision, centred), order, axis=0), shape)
        own = ops.reshape(ops.take(kernel, order, axis=0), shape)
        return ops.sum(own * ops.matmul(self.blocks, spread), axis=(1, 2))


def entries_of(channels: int, entries: int) -> Array:
    """The entries (channels, positions) of each channel in a kernel (*spatial, in, out).

    Examples:
        >>> entries_of(2, 6).tolist()
        [[0, 2, 4], [1, 3, 5]]
    """
    return np.arange(entries).reshape(-1, channels).T


def places_of_kernels(
    found: PrunableLayers, written: Mapping[str, tuple[Writers, ...]], names: Collection[str]
) -> dict[str, dict[str, Array]]:
    """Where the channels of layers are read, if nothing else writes them.

    Args:
        found: The prunable layers of the network.
        written: The kernels that write each channel that a layer reads, by name of the layer.
        names: The layers whose channels are looked for.

    Returns:
        By name of the layer and of a reader a map (channels, kernels) of 0 and 1. Kernels with
        another writer beside them, or another kind of reader with kernels, are in none.
    """
    widths = {name: plain_shape(found.layers[name])[-1] for name in names}
    places: dict[str, dict[str, Array]] = {name: {} for name in names}
    for reader, channels in written.items():
        for channel, kernels in enumerate(channels):
            if kernels and len(kernels) == 1:
                ((name, number),) = kernels
                if name in widths:
                    empty = np.zeros((len(channels), widths[name]), "float32")
                    places[name].setdefault(reader, empty)[channel, number] = 1.0
    for name, number in _read_elsewhere(found, written):
        for own in places.get(name, {}).values():
            own[:, number] = 0.0
    return places


def _read_elsewhere(
    found: PrunableLayers, written: Mapping[str, tuple[Writers, ...]]
) -> set[tuple[str, int]]:
    """The kernels whose channels are read by other layers with kernels too."""
    writers = found.channels.writers(list(found.layers))
    others = [
        call
        for call in found.graph.calls
        if isinstance(call.operation, keras.Layer)
        and isinstance(call.operation, tuple(KERNELS))
        and call.name not in written
    ]
    sets = (own for call in others for tensor in call.inputs for own in writers.get(tensor, ()))
    return {kernel for own in sets for kernel in own or ()}
