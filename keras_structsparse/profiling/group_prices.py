"""What groups of kernel entries cost, and their losses for each unit of that cost.

A group is removed for what it saves: its own work, and with a whole kernel the column of each layer
that reads its channel, and the kernels before it that nothing else reads. Groups that lose little
for each unit that they save are removed first; groups that save nothing are kept.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.channel_groups import Kernel
from keras_structsparse.graph.kernel_axes import plain_shape
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.estimate import LayerWork
from keras_structsparse.profiling.group_selection import LayerGroups, Sizes
from keras_structsparse.profiling.kernel_reader import reached_sizes
from keras_structsparse.profiling.work_share import WorkShare

NOTHING = 1e-12
"""A price that is no more than a rounding error."""

JointKernels = tuple[Kernel, ...]
"""Kernels, each a layer and a number, that write one channel together."""

NONE: Mapping[JointKernels, float] = MappingProxyType({})


@dataclass(frozen=True)
class Blocks:
    """How many kernels of a layer are removed together, so that widths suit a runtime.

    Attributes:
        size: The number of kernels of a block; widths are multiples of it.
        carriers: By name of the layer, the number of constant kernels that surgery keeps beside
            the others as soon as one is removed; they count for the width. 0 for other layers.
    """

    size: int = 1
    carriers: Mapping[str, int] = field(default_factory=dict)


SINGLE = Blocks()
"""Kernels that are removed one by one."""


def group_prices(share: WorkShare, name: str, sizes: Sizes, reached: Array) -> Array:
    """The share of the cost that is saved when groups of a layer are removed, each kernel alone.

    Args:
        share: Counts the cost.
        name: The layer.
        sizes: The present sizes of the kernels of all layers.
        reached: The sizes (groups + 1,) with 0, 1, ... remaining groups.

    Returns:
        Prices (groups, kernels), ``G_1`` first; 0 for groups that are removed already, and for
        kernels that save nothing, for example because surgery removes them anyway.
    """
    shape = plain_shape(share.found.layers[name])[:-2]
    areas = np.array([_entries(shape, int(size)) for size in range(max(reached) + 1)])
    layer = share.counting.layer(name, sizes)
    # The depthwise kernels of one channel have one size, and are removed together.
    own = areas[np.maximum(sizes[name], layer.siblings)]
    together = np.repeat(layer.present.reshape(-1, layer.copies).any(axis=1), layer.copies)
    unit = layer.entries / max(int(own[together].sum()), 1) / share.base
    left = areas[np.maximum(reached[-2::-1, None], layer.siblings)]
    prices = unit * layer.copies * np.maximum(own - left, 0) * layer.present
    prices[-1] += _columns(share, name, sizes, layer, prices[-1])
    return np.maximum.accumulate(np.maximum(prices, 0.0), axis=0)


def _columns(share: WorkShare, name: str, sizes: Sizes, layer: LayerWork, own: Array) -> Array:
    """What other layers save without each kernel; negative where its own work must be kept.

    Its readers lose a column, and the layers before it what nothing else reads.
    """
    found = np.zeros(len(own))
    living = np.flatnonzero(layer.present)
    if len(living) < 2:
        return found
    for each in np.unique(layer.classes[living]):
        members = living[layer.classes[living] == each]
        fewer = np.array(sizes[name])
        fewer[members[0]] = 0
        without: Sizes = {**sizes, name: fewer}
        saved = layer.whole - sum(share.counting.remaining(without).values())
        found[members] = saved / share.base - float(own[members[0]])
    return found


def _entries(shape: tuple[int, ...], size: int) -> int:
    """The entries of a kernel of a size, for one input channel."""
    return math.prod(min(side, size) for side in shape) if size else 0


def priced(
    share: WorkShare,
    losses: Mapping[str, Array],
    sizes: Sizes,
    groups: str,
    joint: Mapping[JointKernels, float] = NONE,
    blocks: Blocks = SINGLE,
) -> dict[str, LayerGroups]:
    """Groups in the order of their losses for each unit of cost.

    Args:
        share: Counts the cost.
        losses: For each layer what the loss would lose without each group (groups, kernels), with
            ``G_1`` first, in units common to all layers.
        sizes: The present sizes of the kernels of all layers.
        groups: "half_ring", "ring" or "kernel".
        joint: What the loss would lose without all kernels that write one channel.
        blocks: Whole kernels are removed in such blocks, as :func:`in_blocks` makes them. If they
            are larger than 1, kernels that write one channel go together or not at all.

    Returns:
        The groups of each layer of ``losses``. The best kernel of a layer that all ways from the
        inputs to the outputs go through is infinitely better than others.
    """
    alone: dict[str, LayerGroups] = {}
    for name, lost in losses.items():
        reached = reached_sizes(share.found, name, groups)
        prices = group_prices(share, name, sizes, reached)
        ratios = np.divide(lost, prices, out=np.zeros_like(lost, np.float64), where=prices > 0)
        ratios[-1, (prices[-1] <= NOTHING) & (sizes[name] > 0)] = np.inf
        # A larger group contains the smaller ones, so it is not removed before them.
        alone[name] = LayerGroups(np.maximum.accumulate(ratios, axis=0), reached, sizes[name])
    if blocks.size > 1:
        alone = _not_alone(alone, joint)
    together = _joint_ratios(share, sizes, joint)
    found = _joined(alone, together)
    bridges: dict[str, Array] = {}
    for name, own in found.items():
        if _is_bridge(share, name, sizes):
            bridges[name] = _best_alone(share, name, {**sizes, **bridges}, own.norms[-1])
    if bridges:
        kept = {(name, j) for name, own in bridges.items() for j in np.flatnonzero(own)}
        found = _joined(alone, {own: x for own, x in together.items() if not kept & set(own)})
        for name, j in kept:
            found[name].norms[-1, j] = np.inf
    return in_blocks(found, blocks) if blocks.size > 1 else found


def _not_alone(
    alone: Mapping[str, LayerGroups], joint: Iterable[JointKernels]
) -> dict[str, LayerGroups]:
    """The groups, where no kernel that writes a channel with others goes without them."""
    found = {name: replace(own, norms=own.norms.copy()) for name, own in alone.items()}
    for name, j in {kernel for kernels in joint for kernel in kernels}:
        found[name].norms[:, j] = np.inf
    return found


def in_blocks(layers: Mapping[str, LayerGroups], blocks: Blocks) -> dict[str, LayerGroups]:
    """Whole kernels in blocks that are removed together, so that widths are multiples.

    Runtimes compute channels in blocks, so a width between two multiples is not faster than the
    larger one, and may be slower. In the order of their norms, the first kernels of a layer are
    those above a multiple; then follow blocks. Each kernel of a block has the mean of their norms.
    Where that is infinite, because the layer must keep a kernel, the whole block is kept.

    Args:
        layers: The groups of each layer; a kernel is one group.
        blocks: The blocks.

    Examples:
        >>> norms, sizes = np.array([[4.0, 1.0, 2.0, 3.0, 9.0]]), np.array([3, 3, 3, 3, 3])
        >>> layers = {"a": LayerGroups(norms, np.array([0, 3]), sizes)}
        >>> in_blocks(layers, Blocks(2))["a"].norms.tolist()
        [[6.5, 1.0, 2.5, 2.5, 6.5]]
        >>> in_blocks(layers, Blocks(2, {"a": 1}))["a"].norms.tolist()
        [[3.5, 1.5, 1.5, 3.5, 9.0]]
    """
    return {
        name: replace(
            own, norms=_blocked(own, blocks.size, blocks.carriers.get(name, 0)), blocks=True
        )
        for name, own in layers.items()
    }


def _blocked(layer: LayerGroups, block: int, carriers: int) -> Array:
    norms = np.array(layer.norms, np.float64)
    assert len(norms) == 1, "whole kernels are single groups"
    living = np.flatnonzero(layer.sizes > 0)
    order = living[np.argsort(norms[0, living], kind="stable")]
    first = (len(order) + carriers) % block or block
    if len(order) == len(layer.sizes) and first <= carriers:
        first += block  # Otherwise the carriers would make up for all that goes.
    edges = [0, *range(first, len(order), block), len(order)]
    for start, stop in itertools.pairwise(edges if len(order) else []):
        members = order[start:stop]
        norms[0, members] = norms[0, members].mean()
    return norms


def joint_kernels(found: PrunableLayers, names: Collection[str]) -> tuple[JointKernels, ...]:
    """The kernels that write one channel together, because their outputs are added.

    Args:
        found: The prunable layers of a network.
        names: The layers whose kernels may be removed. Channels that other layers write as well
            are left out.

    Examples:
        >>> import keras
        >>> inputs = keras.Input((8, 8, 1))
        >>> x, y = (keras.layers.Conv2D(2, 1, name=name)(inputs) for name in "ab")
        >>> outputs = keras.layers.Conv2D(1, 1, name="c")(keras.layers.Add()([x, y]))
        >>> joint_kernels(PrunableLayers.of(keras.Model(inputs, outputs)), ["a", "b"])
        ((('a', 0), ('b', 0)), (('a', 1), ('b', 1)))
    """
    written = found.channels.writers(list(found.layers)).values()
    sets = {own for channels in written for own in channels if own and len(own) > 1}
    joint = (tuple(sorted(own)) for own in sets if all(name in names for name, _ in own))
    return tuple(sorted(joint))


def _joint_ratios(
    share: WorkShare, sizes: Sizes, joint: Mapping[JointKernels, float]
) -> dict[JointKernels, float]:
    """What the loss loses for each unit of cost if all kernels that write a channel go together.

    Only living kernels are named, and only channels with several that save anything.
    """
    names = {name for own in joint for name, _ in own}
    layers = {name: share.counting.layer(name, sizes) for name in names}
    saved: dict[tuple[tuple[str, int, int], ...], float] = {}
    found = {}
    for kernels, lost in joint.items():
        living = tuple((name, j) for name, j in kernels if sizes[name][j] > 0)
        if len(living) < 2:
            continue
        # Channels of one class have the same price.
        key = tuple((n, int(layers[n].classes[j]), int(sizes[n][j])) for n, j in living)
        if key not in saved:
            fewer = {name: np.array(sizes[name]) for name, _ in living}
            for name, j in living:
                fewer[name][j] = 0
            without: Sizes = {**sizes, **fewer}
            left = sum(share.counting.remaining(without).values())
            saved[key] = (layers[living[0][0]].whole - left) / share.base
        if saved[key] > NOTHING:
            found[living] = lost / saved[key]
    return found


def _joined(
    alone: Mapping[str, LayerGroups], together: Mapping[JointKernels, float]
) -> dict[str, LayerGroups]:
    """Groups where kernels that write one channel go together if that loses less for its cost.

    They get one norm, so no threshold removes some of them only.
    """
    found = {name: replace(own, norms=own.norms.copy()) for name, own in alone.items()}
    for kernels, ratio in together.items():
        for name, j in kernels:
            norms = found[name].norms[:, j]
            norms[:] = np.minimum(norms, ratio)
    return found


def _best_alone(share: WorkShare, name: str, sizes: Sizes, ratios: Array) -> Array:
    """The sizes (kernels,) of a layer with its best kernel alone, one that is not without input."""
    present = share.counting.layer(name, sizes).present
    candidates = present if present.any() else sizes[name] > 0
    finite = np.where(np.isfinite(ratios), ratios, 0.0)
    best = np.argmax(np.where(candidates, finite, -1.0))
    return np.where(np.arange(len(present)) == best, sizes[name], 0)


def _is_bridge(share: WorkShare, name: str, sizes: Sizes) -> bool:
    """Whether no output depends on an input without a layer, which must keep a kernel then."""
    return not share.counting.remaining({**sizes, name: np.zeros_like(sizes[name])})
