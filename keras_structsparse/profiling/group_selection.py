"""Select the groups of kernel entries to remove, smallest norms first, to meet a cost target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from keras_structsparse._typing import Array

Sizes = Mapping[str, Array]

MOST_TRIALS = 100
"""Groups that are tried one by one, after all groups up to a threshold have been removed."""


@dataclass(frozen=True)
class LayerGroups:
    """The nested groups of one layer's kernels.

    Attributes:
        norms: (groups, kernels), ascending along the groups, in units common to all layers.
        reached: (groups + 1,), the size of a kernel with 0, 1, ... remaining groups.
        sizes: (kernels,), the current sizes.
        blocks: Whether kernels with equal norms are a block: kept together, or removed together.
    """

    norms: Array
    reached: Array
    sizes: Array
    blocks: bool = False

    def above(self, threshold: float) -> Array:
        """Sizes (kernels,) of the kernels without the groups whose norms are <= a threshold."""
        return np.minimum(self.sizes, self.reached[(self.norms > threshold).sum(axis=0)])


@dataclass(frozen=True)
class GroupSelection:
    """Kernel sizes after the removal of some groups.

    Attributes:
        sizes: The remaining kernel sizes (kernels,), by name of the layer.
        threshold: The largest norm of a removed group.
    """

    sizes: Sizes
    threshold: float


def select_groups(
    layers: Mapping[str, LayerGroups],
    cost: Callable[[Sizes], float],
    target: float,
    slack: float,
) -> GroupSelection:
    """Remove groups in the order of their norms until the cost is within ``target ± slack``.

    First, all groups up to one threshold are removed: the largest threshold that leaves a cost of
    at least ``target - slack``. Removing the next group would reduce the cost too much, for example
    because it is the last one of its size in a layer. It is kept, and the groups after it are tried
    one by one.

    Args:
        layers: The groups of each layer.
        cost: Cost of kernel sizes; it must not rise when groups are removed.
        target: The cost to reach.
        slack: Largest distance of the final cost from the target.

    Returns:
        The selection. Its cost is above ``target + slack`` if no more group can be removed, and
        below ``target - slack`` only if it was so at the start.

    Examples:
        >>> norms, sizes = np.array([[0.1, 0.5, 0.3]]), np.array([1, 1, 1])
        >>> layers = {"a": LayerGroups(norms, np.array([0, 1]), sizes)}
        >>> select_groups(layers, lambda left: float(left["a"].sum()), 1.0, 0.1).sizes["a"].tolist()
        [0, 1, 0]
    """
    order = thresholds(layers)
    low, high = 0, len(order)
    while high - low > 1:  # At order[low] the cost is large enough, at order[high] too small.
        middle = (low + high) // 2
        fits = cost(above(layers, order[middle])) >= target - slack
        low, high = (middle, high) if fits else (low, middle)
    return _one_by_one(layers, cost, target, slack, float(order[low]))


def select_down_to(
    layers: Mapping[str, LayerGroups], cost: Callable[[Sizes], float], target: float
) -> GroupSelection:
    """Remove groups in the order of their norms until the cost is at most a target.

    The last removed group may save more than was needed; none is removed out of order instead.
    Where the next groups would leave a network whose output depends on no input, the strongest
    kernel of each layer that they would empty is kept.

    Args:
        layers: The groups of each layer.
        cost: Cost of kernel sizes; it must not rise when groups are removed, and is 0 for a network
            whose output depends on no input.
        target: The cost to reach.

    Returns:
        The selection. Its cost is above the target if no more group can be removed.

    Examples:
        >>> norms, sizes = np.array([[0.1, 0.5, 0.3]]), np.array([1, 1, 1])
        >>> layers = {"a": LayerGroups(norms, np.array([0, 1]), sizes)}
        >>> select_down_to(layers, lambda left: float(left["a"].sum()), 1.5).sizes["a"].tolist()
        [0, 1, 0]
    """
    layers = kept_alive(layers, cost, target)
    threshold = _first_within(layers, cost, target)
    if threshold > -1.0 and cost(above(layers, threshold)) <= 0:  # no kernel helps
        order = thresholds(layers)
        threshold = float(order[np.searchsorted(order, threshold) - 1])
    return GroupSelection(above(layers, threshold), max(threshold, 0.0))


def kept_alive(
    layers: Mapping[str, LayerGroups], cost: Callable[[Sizes], float], target: float
) -> Mapping[str, LayerGroups]:
    """The groups, where removing them down to a target never leaves a dead network.

    Args:
        layers: As for :func:`select_down_to`.
        cost: Likewise.
        target: Likewise.

    Returns:
        The groups. The strongest kernel of a layer, or its block, has an infinite norm where the
        groups up to the threshold that is needed would empty the layer and leave a dead network.
    """
    threshold = _first_within(layers, cost, target)
    if threshold > -1.0 and cost(above(layers, threshold)) <= 0:
        order = thresholds(layers)
        before = float(order[np.searchsorted(order, threshold) - 1])
        if saved := _without_dying(layers, before, threshold):
            return kept_alive({**layers, **saved}, cost, target)
    return layers


def _first_within(
    layers: Mapping[str, LayerGroups], cost: Callable[[Sizes], float], target: float
) -> float:
    """The first threshold in order at which the cost is at most a target, or the last of all."""
    order = thresholds(layers)
    low, high = -1, len(order) - 1
    while high - low > 1:  # At order[high] the cost is small enough, at order[low] too large.
        middle = (low + high) // 2
        fits = cost(above(layers, order[middle])) <= target
        low, high = (low, middle) if fits else (middle, high)
    return float(order[high])


def _without_dying(
    layers: Mapping[str, LayerGroups], threshold: float, deadly: float
) -> dict[str, LayerGroups]:
    """The layers that are emptied between thresholds, each with its strongest kernel kept."""
    found = {}
    for name, layer in layers.items():
        if layer.above(threshold).any() and not layer.above(deadly).any():
            norms = np.array(layer.norms, np.float64)
            living = np.where(layer.sizes > 0, norms[-1], -1.0)
            best = living == living.max() if layer.blocks else np.argmax(living)
            norms[-1, best] = np.inf
            found[name] = replace(layer, norms=norms)
    return found


def thresholds(layers: Mapping[str, LayerGroups]) -> Array:
    """All finite norms in order, after a number with which no group is removed."""
    norms = np.unique(np.concatenate([layer.norms.ravel() for layer in layers.values()]))
    return np.concatenate([[-1.0], norms[np.isfinite(norms)]])


def above(layers: Mapping[str, LayerGroups], threshold: float) -> dict[str, Array]:
    """The sizes of the kernels of each layer without the groups up to a threshold."""
    return {name: layer.above(threshold) for name, layer in layers.items()}


def _one_by_one(
    layers: Mapping[str, LayerGroups],
    cost: Callable[[Sizes], float],
    target: float,
    slack: float,
    threshold: float,
) -> GroupSelection:
    sizes, reached = above(layers, threshold), threshold
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
    return GroupSelection(sizes, max(reached, 0.0))


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
