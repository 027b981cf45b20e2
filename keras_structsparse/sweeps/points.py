"""One network of a sweep: its origin, its costs and its accuracies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keras_structsparse._validation import (
    nonnegative,
    nonnegative_int,
    set_checked,
    several,
    share,
)
from keras_structsparse.graph.kernel_axes import base_size, plain_shape
from keras_structsparse.graph.prunable_layers import ModelLike, PrunableLayers


@dataclass(frozen=True)
class Point:
    """One network of a sweep.

    Attributes:
        alpha: Weight of the penalty it was trained with.
        tau: The threshold on group norms.
        multiply_adds: Of the pruned network, for one image.
        multiply_adds_fraction: The same over the dense network's.
        params: Weights of the pruned network.
        validation_at_surgery: Accuracy on the validation split before fine-tuning.
        validation_finetuned: The same after it; choices are made by it.
        accuracy_at_surgery: Accuracy on the test split before fine-tuning.
        accuracy_finetuned: The same after it.
        sizes: Kernel sizes by layer of the base architecture, 0 for removed kernels.

    Raises:
        ValueError: A number is negative or not finite, or an accuracy is above 1.
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

    def __post_init__(self) -> None:
        for name in COSTS:
            set_checked(self, **{name: COSTS[name](name, getattr(self, name))})
        for name in ACCURACIES:
            set_checked(self, **{name: share(name, getattr(self, name))})
        sizes = {name: several(name, own, nonnegative_int) for name, own in self.sizes.items()}
        set_checked(self, sizes=sizes)


COSTS: Mapping[str, Callable[[str, Any], float]] = {
    "alpha": nonnegative,
    "tau": nonnegative,
    "multiply_adds": nonnegative_int,
    "multiply_adds_fraction": nonnegative,
    "params": nonnegative_int,
}
ACCURACIES = (
    "validation_at_surgery",
    "validation_finetuned",
    "accuracy_at_surgery",
    "accuracy_finetuned",
)


def widths_and_sizes(model: ModelLike) -> dict[str, tuple[int, int]]:
    """The kernels of each layer of a network, and the longest side of one.

    Args:
        model: The network, or its prunable layers.
    """
    return {
        name: (plain_shape(layer)[-1], base_size(layer))
        for name, layer in PrunableLayers.of(model).layers.items()
    }


def score(points: Sequence[Point], budget: float) -> float:
    """The value of a trial to a search: its best validation accuracy within a budget.

    Args:
        points: The points of one trial.
        budget: Share of the dense network's multiply-adds.

    Returns:
        The accuracy, between 0 and 1; 0 without any points, of a dead network; below 0 where all
        points cost too much, by how much the cheapest does.
    """
    if not points:
        return 0.0
    within = [p.validation_finetuned for p in points if p.multiply_adds_fraction <= budget]
    return max(within) if within else budget - min(p.multiply_adds_fraction for p in points)
