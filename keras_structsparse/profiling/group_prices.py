"""What groups of kernel entries cost, and their losses for each unit of that cost.

A group is removed for what it saves: its own work, and with a whole kernel the column of each layer
that reads its channel. Groups that lose little for each unit that they save are removed first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.kernel_axes import plain_shape
from keras_structsparse.profiling.group_selection import LayerGroups, Sizes
from keras_structsparse.profiling.kernel_reader import reached_sizes
from keras_structsparse.profiling.work_share import WorkShare


def group_prices(share: WorkShare, name: str, sizes: Sizes, reached: Array) -> Array:
    """The share of the cost that is saved when groups of a layer are removed, each kernel alone.

    Args:
        share: Counts the cost.
        name: The layer.
        sizes: The present sizes of the kernels of all layers.
        reached: The sizes (groups + 1,) with 0, 1, ... remaining groups.

    Returns:
        Prices (groups, kernels), ``G_1`` first; 0 for groups that are removed already.
    """
    shape = plain_shape(share.found.layers[name])[:-2]
    areas = np.array([_entries(shape, int(size)) for size in range(max(reached) + 1)])
    own = areas[sizes[name]]
    whole = share.counting.remaining(sizes)
    entries = share.counting.entries(name, sizes)
    unit = entries / max(int(own.sum()), 1) / share.base
    left = areas[reached[-2::-1]]
    prices = unit * np.maximum(own - left[:, None], 0)
    prices[-1] += np.where(own > 0, _column(share, name, sizes, whole, unit * own), 0.0)
    return np.maximum.accumulate(np.maximum(prices, 0.0), axis=0)


def _column(
    share: WorkShare, name: str, sizes: Sizes, whole: Mapping[str, int], own: Array
) -> float:
    """What the readers of a channel save without it; negative where a sum keeps the channel."""
    living = np.flatnonzero(sizes[name])
    if len(living) < 2:
        return 0.0
    fewer = np.array(sizes[name])
    fewer[living[0]] = 0
    without: Sizes = {**sizes, name: fewer}
    saved = sum(whole.values()) - sum(share.counting.remaining(without).values())
    return saved / share.base - float(own[living[0]])


def _entries(shape: tuple[int, ...], size: int) -> int:
    """The entries of a kernel of a size, for one input channel."""
    return math.prod(min(side, size) for side in shape) if size else 0


def priced(
    share: WorkShare, losses: Mapping[str, Array], sizes: Sizes, groups: str
) -> dict[str, LayerGroups]:
    """Groups in the order of their losses for each unit of cost.

    Args:
        share: Counts the cost.
        losses: For each layer what the loss would lose without each group (groups, kernels), with
            ``G_1`` first, in units common to all layers.
        sizes: The present sizes of the kernels of all layers.
        groups: "half_ring", "ring" or "kernel".

    Returns:
        The groups of each layer of ``losses``. The best kernel of a layer that all ways from the
        inputs to the outputs go through is infinitely better than others.
    """
    found = {}
    for name, lost in losses.items():
        reached = reached_sizes(share.found, name, groups)
        prices = group_prices(share, name, sizes, reached)
        ratios = np.divide(lost, prices, out=np.zeros_like(lost, np.float64), where=prices > 0)
        # A larger group contains the smaller ones, so it is not removed before them.
        norms = np.maximum.accumulate(ratios, axis=0)
        if _is_bridge(share, name, sizes):
            norms[-1, np.argmax(np.where(sizes[name] > 0, norms[-1], -1.0))] = np.inf
        found[name] = LayerGroups(norms, reached, sizes[name])
    return found


def _is_bridge(share: WorkShare, name: str, sizes: Sizes) -> bool:
    """Whether no output depends on an input without a layer, which must keep a kernel then."""
    return not share.counting.remaining({**sizes, name: np.zeros_like(sizes[name])})
