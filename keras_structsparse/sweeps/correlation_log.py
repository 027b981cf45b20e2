"""The correlation of the kernels of every layer in training, by layers of the base network."""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.kernel_reader import KernelReader
from keras_structsparse.surgery.kernel_provenance import Ancestry


class CorrelationLog(keras.callbacks.Callback):
    """The mean correlation of the kept kernels of each layer after every epoch.

    Attributes:
        values: By layer of the base network, a number for each epoch; nan where fewer than two
            kernels are kept.

    Args:
        ancestry: That of the network that is trained.
        tau: The threshold on group norms.
    """

    def __init__(self, ancestry: Ancestry, tau: float) -> None:
        super().__init__()
        self._start = self._left = ancestry
        self._tau = tau
        self.values: dict[str, list[float]] = {name: [] for name in ancestry.widths}

    def on_train_begin(self, logs: Any = None) -> None:
        """Read the network."""
        self._reader = KernelReader(PrunableLayers.of(self.model))

    def on_shrink(self, model: keras.Model, ancestry: Ancestry) -> None:
        """Read the pruned network from now on."""
        self._reader = KernelReader(PrunableLayers.of(model))
        self._left = self._start.followed_by(ancestry)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note the correlations."""
        state = self._reader.state()
        found = self._reader.correlations(state, self._reader.sizes(state, self._tau))
        layers = self._left.layers
        named = {layers[name][0]: value for name, value in found.items() if name in layers}
        for name, values in self.values.items():
            values.append(named.get(name, math.nan))
