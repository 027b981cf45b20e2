"""One network of a sweep: where it came from, what it costs, what it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras

from keras_structsparse.graph.functional_graph import read
from keras_structsparse.graph.prunable_layers import kernel_layers


@dataclass(frozen=True)
class Point:
    """One network of a frontier.

    Attributes:
        alpha: Weight of the penalty it was trained with.
        tau: The threshold on group norms.
        multiply_adds: Of the pruned network, for one image.
        multiply_adds_fraction: The same over the dense network's.
        params: Weights of the pruned network.
        validation_at_surgery: Accuracy on the validation split before fine-tuning.
        validation_finetuned: And after it; what choices are made by.
        accuracy_at_surgery: Accuracy on the test split before fine-tuning.
        accuracy_finetuned: And after it.
        sizes: Kernel sizes by layer of the base architecture, 0 where the pruned network has none.
    """

    alpha: float
    tau: float
    multiply_adds: int
    multiply_adds_fraction: float
    params: int
    validation_at_surgery: float
    validation_finetuned: float
    accuracy_at_surgery: float
    accuracy_finetuned: float
    sizes: Mapping[str, Sequence[int]]


def widths_and_sizes(model: keras.Model) -> dict[str, tuple[int, int]]:
    """The kernels of each layer of a network, and the longest side of one.

    Args:
        model: The network.
    """
    return {
        name: (layer.kernel.shape[-1], max(layer.kernel.shape[:-2], default=1))
        for name, layer in kernel_layers(read(model)).items()
    }
