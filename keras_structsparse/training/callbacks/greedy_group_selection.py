"""Choose by their norms which groups of kernel entries go, so that what is left meets a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from keras_structsparse._typing import Array

Sizes = Mapping[str, Array]

MOST_TRIALS = 100
"""Groups that are looked at one by one, after all those below a threshold."""


@dataclass(frozen=True)
class LayerGroups:
    """The nested groups of one layer's kernels.

    Attributes:
        norms: (groups, kernels), ascending along the groups, in units common to all layers.
        reached: (groups + 1,), the size of a kernel with 0, 1, ... groups left.
        sizes: (kernels,), the sizes now.
    """

    norms: Array
    reached: Array
    sizes: Array

    def above(self, threshold: float) -> Array:
        """The sizes of the kernels, without the groups up to a threshold."""
        return np.minimum(self.sizes, self.reached[(self.norms > threshold).sum(axis=0)])


@dataclass(frozen=True)
class Cut:
    """What was chosen.

    Attributes:
        sizes: The sizes that are left.
        threshold: The norm up to which groups were removed.
    """

    sizes: Sizes
    threshold: float


def cut(
    layers: Mapping[str, LayerGroups],
    cost: Callable[[Sizes], float],
    target: float,
    slack: float,
) -> Cut:
    """Remove groups in the order of their norms until the cost is within ``target ± slack``.

    First all groups up to one threshold, the largest that leaves at least ``target - slack``. The
    next group in order is one that costs too much, the last of its size in a layer, say. It stays,
    and those behind it are tried one by one.

    Args:
        layers: The groups of each layer.
        cost: From sizes to a cost, which does not rise when groups go.
        target: The cost to reach.
        slack: How far from it the cost may end.

    Returns:
        The sizes; their cost is above ``target + slack`` where no group fits, and below
        ``target - slack`` only where it was so before.

    Examples:
        >>> norms, sizes = np.array([[0.1, 0.5, 0.3]]), np.array([1, 1, 1])
        >>> layers = {"a": LayerGroups(norms, np.array([0, 1]), sizes)}
        >>> cut(layers, lambda left: float(left["a"].sum()), 1.0, 0.1).sizes["a"].tolist()
        [0, 1, 0]
    """
    order = np.unique(np.concatenate([layer.norms.ravel() for layer in layers.values()]))
    order = np.concatenate([[-1.0], order])
    low, high = 0, len(order)
    while high - low > 1:  # At order[low] the cost is large enough, at order[high] too small.
        middle = (low + high) // 2
        fits = cost(_above(layers, order[middle])) >= target - slack
        low, high = (middle, high) if fits else (low, middle)
    return _one_by_one(layers, cost, target, slack, float(order[low]))


def _above(layers: Mapping[str, LayerGroups], threshold: float) -> dict[str, Array]:
    return {name: layer.above(threshold) for name, layer in layers.items()}


def _one_by_one(
    layers: Mapping[str, LayerGroups],
    cost: Callable[[Sizes], float],
    target: float,
    slack: float,
    threshold: float,
) -> Cut:
    sizes, reached = _above(layers, threshold), threshold
    now = cost(sizes)
    for norm, name, group, kernel in _next_groups(layers, threshold):
        if now <= target + slack:
            break
        left = layers[name].reached[len(layers[name].norms) - 1 - group]
        trial = {**sizes, name: sizes[name].copy()}
        trial[name][kernel] = min(trial[name][kernel], left)
        then = cost(trial)
        if then >= target - slack:
            sizes, now, reached = trial, then, norm
    return Cut(sizes, max(reached, 0.0))


def _next_groups(
    layers: Mapping[str, LayerGroups], threshold: float
) -> list[tuple[float, str, int, int]]:
    """(norm, layer, group, kernel) of the next groups above a threshold, in order."""
    found = [
        (float(layer.norms[group, kernel]), name, int(group), int(kernel))
        for name, layer in layers.items()
        for group, kernel in zip(*np.nonzero(layer.norms > threshold), strict=True)
    ]
    return sorted(found)[:MOST_TRIALS]
