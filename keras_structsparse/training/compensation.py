"""What removed entries computed, kept in the outputs as far as that can be done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.training.grouped_kernels import GroupedKernel
from keras_structsparse.training.mean_shifts import MeanShifts
from keras_structsparse.training.reconstruction import Reconstruction


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

        Args:
            batches: Batches of inputs and more.
        """
        drawn = list(batches)
        self.shifts.measure(drawn)
        self.reconstruction.measure(drawn)
