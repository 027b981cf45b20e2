"""What removed entries computed, kept in the outputs as far as that can be done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import keras

from keras_structsparse.graph.batch_norm_statistics import reestimate_batch_norm
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.training.grouped_kernels import GroupedKernel
from keras_structsparse.training.mean_shifts import MeanShifts
from keras_structsparse.training.reconstruction import Reconstruction
from keras_structsparse.training.training_data import joined_inputs


@dataclass(frozen=True, eq=False)
class Compensation:
    """What makes up for the entries that are removed from a network.

    Attributes:
        shifts: Moves the mean of what they computed into the biases.
        reconstruction: Lets the kept entries take over what they can predict of the rest.
    """

    shifts: MeanShifts
    reconstruction: Reconstruction

    @classmethod
    def of(cls, found: PrunableLayers, kernels: Mapping[str, GroupedKernel]) -> Self:
        """That of a network.

        Args:
            found: The prunable layers of the network.
            kernels: The kernels with groups that may be removed, by name of the layer.
        """
        return cls(MeanShifts(found, kernels), Reconstruction(found))

    def measure(self, batches: Iterable[tuple[Any, ...]]) -> None:
        """Measure what the layers read.

        First the statistics of batch normalizations are estimated from the same inputs: while
        groups are removed they lag behind, and the measurements are made in inference.

        Args:
            batches: Batches of inputs and more.
        """
        drawn = list(batches)
        graph = self.reconstruction.found.graph
        if any(isinstance(c.operation, keras.layers.BatchNormalization) for c in graph.calls):
            reestimate_batch_norm(graph.model, joined_inputs(drawn))
        self.shifts.measure(drawn)
        self.reconstruction.measure(drawn)
