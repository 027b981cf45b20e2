"""Decide which channels stay."""

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

# A carrier much smaller than the constants it stands for would magnify rounding errors.
WEAKEST_CARRIER = 1e-3


@dataclass(frozen=True)
class ChannelSelection:
    """Which channels stay, and in which order.

    Attributes:
        keep: For every channel number, whether it stays.
        rank: For every channel number a key; the channels of a tensor are sorted by it.
        filling: For every channel number, whether it stays only to fill a block.
        roots: For every channel number one that stands for all that share its fate.
    """

    keep: Array
    rank: Array
    filling: Array
    roots: Array

    def wanted(self, channels: Channels) -> Array:
        """The original channels of a tensor that stay, in the order they would best have."""
        kept = np.flatnonzero(self.keep[channels.ids])
        return kept[np.argsort(self.rank[channels.ids[kept]], kind="stable")]


def select_channels(network: Graph, walk: Walk, round_to: int = 1) -> ChannelSelection:
    """The smallest choice of channels that is exact, and the order that suits convolutions best.

    A channel stays if an output of the model needs it: if it depends on the input there, and
    something that stays reads it with a weight other than zero. So do all channels that a layer
    without a rule reads or makes, the model's inputs and outputs, and a carrier wherever constants
    cannot go into a bias. Then channels that could go stay where they fill a block.

    Args:
        network: The graph.
        walk: What the rules said.
        round_to: What the widths of layers are to be multiples of.

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
    """Keep more until no adder finds anything missing; each waits for those before it."""
    while any(add(walk, roots, keep) for add in adders):
        pass


def _add_needed(walk: Walk, roots: Array, keep: Array) -> bool:
    """Backwards from what stays, all that it is computed from."""
    before = keep.sum()
    for step in reversed(walk.steps):
        needed = keep[roots[step.flow.output.ids]]
        for ids in step.flow.needs(needed) if needed.any() else ():
            keep[roots[ids]] = True
    return bool(keep.sum() > before)


def _ranks(walk: Walk, roots: Array, fixed: Array) -> Array:
    """Let the convolutions that gain most by it sort their channels; the others follow.

    The channels of groups stay side by side.
    """
    rank = np.zeros(walk.count, int)
    taken = fixed.copy()
    for read in _linear_reads(walk):
        if read.groups > 1:
            taken[roots[read.inputs.ids]] = taken[roots[read.outputs]] = True
    for step in walk.steps:
        if step.shared:  # All calls must find their channels in one order.
            for channels in (*step.site.inputs, *step.outputs):
                taken[roots[channels.ids]] = True
    for step in sorted(walk.steps, key=lambda step: -step.flow.gain):
        mine = roots[step.flow.output.ids]
        if step.flow.gain > 0 and not taken[mine].any():
            rank[mine] = step.flow.sizes
            taken[mine] = True
    return rank


def _joined(walk: Walk) -> Array:
    """For every channel number the representative of those that share its fate."""
    roots = np.arange(walk.count)
    for step in walk.steps:
        for left, right in step.flow.joins:
            while (roots[left] != roots[right]).any():
                # To the smaller one: where two pairs cross, it would else go round for ever.
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
    """In each group the strongest constant stays, unless one as good does."""
    inputs = read.inputs
    kept = read.grouped(keep[roots[inputs.ids]])
    strength = read.grouped(np.where(inputs.offset, np.abs(inputs.value), 0.0))
    lost = np.where(kept, 0.0, strength)
    weak = np.where(kept, strength, 0.0).max(axis=1) < WEAKEST_CARRIER * lost.max(axis=1)
    groups = np.flatnonzero(weak & _stays(read, roots, keep))
    strongest = lost[groups].argmax(axis=1)
    keep[roots[read.grouped(inputs.ids)[groups, strongest]]] = True
    return bool(len(groups))


def _add_readable(walk: Walk, roots: Array, keep: Array) -> bool:
    """A layer that stays must have something to read; its groups read and make equally many."""
    changed = False
    for read in _linear_reads(walk):
        stays = _stays(read, roots, keep)
        for ids, least in ((read.inputs.ids, 1), (read.outputs, 0)):
            changed |= _even(roots[read.grouped(ids)[stays]], keep, least)
    return changed


def _even(ids: Array, keep: Array, least: int) -> bool:
    """Keep as many numbers of each row of ``ids`` as of the fullest, and at least so many."""
    counts = keep[ids].sum(axis=1)
    missing = np.maximum(counts.max(initial=least), least) - counts
    # The kept ones first, so that those next to come are the first of the others.
    first = np.argsort(~keep[ids], axis=1, kind="stable")
    places = np.arange(ids.shape[1])
    added = (places >= counts[:, None]) & (places < (counts + missing)[:, None])
    keep[np.take_along_axis(ids, first, axis=1)[added]] = True
    return bool(missing.any())


def _stays(read: LinearRead, roots: Array, keep: Array) -> Array:
    """Which groups have an output left."""
    return np.asarray(read.grouped(keep[roots[read.outputs]]).any(axis=1))


def _fill_blocks(walk: Walk, roots: Array, keep: Array, block: int) -> bool:
    """The width of a layer becomes a multiple of the block, if the layer has so many kernels.

    Constants come first: nothing needs to be computed for them.
    """
    changed = False
    for output in (step.flow.output for step in walk.steps if step.flow.blocks):
        ids = roots[output.ids[np.argsort(output.live, kind="stable")]]
        width = filled(int(keep[ids].sum()), block)
        if width <= len(ids):
            changed |= _even(ids[None], keep, width)
    return changed


def _linear_reads(walk: Walk) -> Iterable[LinearRead]:
    return (read for step in walk.steps for read in step.flow.reads)
