"""Select the channels that surgery keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.costs import filled
from keras_structsparse.graph.channels.propagation import Walk
from keras_structsparse.graph.channels.rule import Channels, LinearRead
from keras_structsparse.graph.functional_graph import Graph

Adder = Callable[[Walk, Array, Array], bool]
"""Adds channels to the mask of kept ones, in place; returns whether it added any."""

WEAKEST_CARRIER = 1e-3
"""A carrier smaller than this, relative to the constants it carries, would amplify rounding."""


@dataclass(frozen=True)
class ChannelSelection:
    """The kept channels and their order. All arrays have one entry per channel number.

    Attributes:
        keep: Whether the channel is kept.
        rank: A key; the kept channels of a tensor are sorted by it.
        filling: Whether the channel is kept only to fill a block.
        roots: The number that represents all channels joined to this one.
    """

    keep: Array
    rank: Array
    filling: Array
    roots: Array

    def wanted(self, channels: Channels) -> Array:
        """The indices of the kept channels of a tensor, in the preferred order."""
        kept = np.flatnonzero(self.keep[channels.ids])
        return kept[np.argsort(self.rank[channels.ids[kept]], kind="stable")]


def select_channels(network: Graph, walk: Walk, round_to: int = 1) -> ChannelSelection:
    """Select the fewest channels with which surgery is exact, in the best order for convolutions.

    This is dead-channel elimination, backwards from the outputs. A channel is kept if it depends on
    the input of the model and a kept layer reads it with a nonzero weight. Also kept are the
    channels that layers without a rule read or compute, the inputs and outputs of the model, and a
    carrier wherever constants cannot be moved into a bias. Then further channels are kept to fill
    blocks.

    Args:
        network: The graph.
        walk: The calls of the graph and their channels.
        round_to: The widths of layers are rounded up to multiples of this number.

    Returns:
        The selection.
    """
    roots = _joined(walk)
    fixed = np.zeros(walk.count, bool)
    for step in walk.steps:
        for ids in step.flow.keeps:
            fixed[roots[ids]] = True
    for tensor in (*network.inputs, *network.outputs):
        fixed[roots[walk.channels[tensor].ids]] = True
    keep = fixed.copy()
    exact: tuple[Adder, ...] = (_add_needed, _add_carriers, _add_readable)
    _grow(walk, roots, keep, exact)
    least = keep.copy()
    _grow(walk, roots, keep, (*exact, partial(_fill_blocks, block=round_to)))
    return ChannelSelection(
        keep[roots], _ranks(walk, roots, fixed)[roots], (keep & ~least)[roots], roots
    )


def _grow(walk: Walk, roots: Array, keep: Array, adders: Sequence[Adder]) -> None:
    """Run the adders to their fixpoint; an adder runs only if those before it added nothing."""
    while any(add(walk, roots, keep) for add in adders):
        pass


def _add_needed(walk: Walk, roots: Array, keep: Array) -> bool:
    """Keep all channels that kept channels are computed from."""
    before = keep.sum()
    for step in reversed(walk.steps):
        needed = keep[roots[step.flow.output.ids]]
        for ids in step.flow.needs(needed) if needed.any() else ():
            keep[roots[ids]] = True
    return bool(keep.sum() > before)


def _ranks(walk: Walk, roots: Array, fixed: Array) -> Array:
    """The sort keys: convolutions sort their channels by size, those that gain most first.

    Channels of grouped and shared layers keep their order. The inputs and outputs of a depthwise
    convolution get one order.
    """
    rank = np.zeros(walk.count, int)
    taken, ordered = fixed.copy(), np.zeros(walk.count, bool)
    for read in _linear_reads(walk):
        if read.groups > 1 and not read.singles:
            taken[roots[read.inputs.ids]] = True
            taken[roots[read.outputs]] = True
    for step in walk.steps:
        # The inputs of all calls of a shared layer must have the same order.
        if step.shared or step.flow.ordered:
            for channels in (*step.site.inputs, *step.outputs):
                taken[roots[channels.ids]] = True
    pairs = [_pair(read, roots) for read in _linear_reads(walk) if read.singles]
    for step in sorted(walk.steps, key=lambda step: -step.flow.gain):
        own = roots[step.flow.output.ids]
        if step.flow.gain > 0 and not taken[own].any():
            rank[own] = step.flow.sizes
            taken[own] = ordered[own] = True
            while any(_follow(*pair, rank, taken, ordered) for pair in pairs):
                pass
    return rank


def _pair(read: LinearRead, roots: Array) -> tuple[Array, Array]:
    """The input channel of each output channel, and the output channels."""
    copies = len(read.outputs) // read.groups
    return roots[np.repeat(read.inputs.ids, copies)], roots[read.outputs]


def _follow(left: Array, right: Array, rank: Array, taken: Array, ordered: Array) -> bool:
    """Give one side of a pair the sort keys of the other side; returns whether it did."""
    for source, target in ((left, right), (right, left)):
        if ordered[source].all() and not taken[target].any():
            rank[target] = rank[source]
            taken[target] = ordered[target] = True
            return True
    return False


def _joined(walk: Walk) -> Array:
    """For every channel number the representative of all channels joined to it."""
    roots = np.arange(walk.count)
    for step in walk.steps:
        for left, right in step.flow.joins:
            while (roots[left] != roots[right]).any():
                # Always map to the smaller number: pairs that cross would otherwise loop forever.
                pairs = np.sort([roots[left], roots[right]], axis=0)
                mapping = np.arange(walk.count)
                np.minimum.at(mapping, pairs[1], pairs[0])
                roots = mapping[roots]
    return roots


def _add_carriers(walk: Walk, roots: Array, keep: Array) -> bool:
    changed = False
    for read in _linear_reads(walk):
        if read.carries:
            changed |= _carry(read, roots, keep)
    return changed


def _carry(read: LinearRead, roots: Array, keep: Array) -> bool:
    """Keep the largest constant of each group, unless a kept constant is large enough."""
    inputs = read.inputs
    kept = read.grouped(keep[roots[inputs.ids]])
    strength = read.grouped(np.where(inputs.offset, np.abs(inputs.value), 0.0))
    lost = np.where(kept, 0.0, strength)
    weak = np.where(kept, strength, 0.0).max(axis=1) < WEAKEST_CARRIER * lost.max(axis=1)
    groups = np.flatnonzero(weak & _kept_groups(read, roots, keep))
    strongest = lost[groups].argmax(axis=1)
    keep[roots[read.grouped(inputs.ids)[groups, strongest]]] = True
    return bool(len(groups))


def _add_readable(walk: Walk, roots: Array, keep: Array) -> bool:
    """Give each kept layer at least one input, and its groups equally many inputs and outputs."""
    changed = False
    for read in _linear_reads(walk):
        kept = _kept_groups(read, roots, keep)
        changed |= _even(roots[read.grouped(read.outputs)[kept]], keep, 0)
        inputs = read.grouped(read.inputs.ids)[kept]
        if read.singles:  # A depthwise kernel of zeros can read any channel.
            inputs = read.inputs.ids[None][: int(kept.any())]
        changed |= _even(roots[inputs], keep, 1)
    return changed


def _even(ids: Array, keep: Array, least: int) -> bool:
    """Keep equally many numbers in each row of ``ids``: the most of any row, or ``least``."""
    counts = keep[ids].sum(axis=1)
    missing = np.maximum(counts.max(initial=least), least) - counts
    # The kept ones first; the next ones are the first of the others.
    first = np.argsort(~keep[ids], axis=1, kind="stable")
    places = np.arange(ids.shape[1])
    added = (places >= counts[:, None]) & (places < (counts + missing)[:, None])
    keep[np.take_along_axis(ids, first, axis=1)[added]] = True
    return bool(missing.any())


def _kept_groups(read: LinearRead, roots: Array, keep: Array) -> Array:
    """Which groups have a kept output (groups,)."""
    return np.asarray(read.grouped(keep[roots[read.outputs]]).any(axis=1))


def _fill_blocks(walk: Walk, roots: Array, keep: Array, block: int) -> bool:
    """Round the width of each layer up to a multiple of the block, if it has enough kernels.

    And up to the least width that the layer may have.

    Constant channels are used first, as they need no computation.
    """
    changed = False
    for flow in (step.flow for step in walk.steps if step.flow.blocks):
        # An output of a depthwise convolution needs its input, so those that are kept are first.
        unread = np.zeros(len(flow.output), int)
        for read in (read for read in flow.reads if read.singles):
            unread = ~keep[_pair(read, roots)[0]] * 2
        ids = roots[flow.output.ids[np.argsort(flow.output.live + unread, kind="stable")]]
        kept = int(keep[ids].sum())
        width = max(filled(kept, block), flow.least_width if kept else 0)
        if width <= len(ids):
            changed |= _even(ids[None], keep, width)
    return changed


def _linear_reads(walk: Walk) -> Iterable[LinearRead]:
    return (read for step in walk.steps for read in step.flow.reads)
