"""How a layer whose kernels have several sizes is split: into the convolutions of least cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from keras_structsparse._validation import one_of
from keras_structsparse.graph.channels.costs import FREE, Costs

SegmentCost = Callable[[int, int], float]
"""From the largest key of a segment and its length to its cost."""

Segments = list[tuple[int, int]]
"""Half-open ranges (start, stop) of a sequence, in order."""

Segmentation = Callable[[Sequence[int], SegmentCost], Segments]
"""From the keys of a sequence and the cost of a segment to the segments."""


def cheapest_segments(keys: Sequence[int], cost: SegmentCost, step: int = 1) -> Segments:
    """Split a sequence into segments of least total cost, by dynamic programming.

    Args:
        keys: The sequence. It is split only where neighbours differ, or at the last multiple of
            ``step`` before such a place.
        cost: From the largest key and the length of a segment to its cost; it must not decrease
            in either.
        step: The lengths of all segments but the last are multiples of this number.

    Returns:
        The segments (start, stop), in order.

    Examples:
        >>> cheapest_segments([1, 1, 1, 5], lambda key, length: length * key**2 + 4)
        [(0, 3), (3, 4)]
        >>> cheapest_segments([1, 1, 1, 5], lambda key, length: length * key**2 + 100)
        [(0, 4)]
        >>> cheapest_segments([1, 1, 1, 5], lambda key, length: length * key**2, step=2)
        [(0, 2), (2, 4)]
    """
    import numpy as np  # not above: options of the command line are read off this module

    changes = (i for i in range(1, len(keys)) if keys[i - 1] != keys[i])
    edges = np.array(sorted({0, len(keys), *(i - i % step for i in changes)}))
    distinct, ranks = np.unique(np.asarray(keys, int), return_inverse=True)
    peaks = np.maximum.reduceat(ranks, edges[:-1]) if len(keys) else ranks
    # Costs by rank and length: many segments share them, and a cost is a call of Python.
    known = np.full((len(distinct), len(keys) + 1), np.nan)
    totals, starts = np.zeros(len(edges)), np.zeros(len(edges), int)
    for stop in range(1, len(edges)):
        largest = np.maximum.accumulate(peaks[:stop][::-1])[::-1]
        lengths = edges[stop] - edges[:stop]
        new = np.isnan(known[largest, lengths])
        for rank, length in {*zip(largest[new].tolist(), lengths[new].tolist(), strict=True)}:
            known[rank, length] = cost(int(distinct[rank]), length)
        choices = totals[:stop] + known[largest, lengths]
        starts[stop] = choices.argmin()
        totals[stop] = choices[starts[stop]]
    segments = []
    stop = len(edges) - 1
    while stop > 0:
        start = int(starts[stop])
        segments.append((int(edges[start]), int(edges[stop])))
        stop = start
    return segments[::-1]


def one_segment(keys: Sequence[int], cost: SegmentCost) -> Segments:
    """The whole sequence as one segment, whatever it costs; no segment for an empty sequence."""
    return [(0, len(keys))] if keys else []


@dataclass(frozen=True)
class Realization:
    """How a layer with kernels of several sizes is realized as convolutions.

    Attributes:
        costs: The cost model.
        segments: From the sorted sizes of the kernels and the cost of a convolution to the
            segments that become one convolution each.
        crops: Whether kernels may be cropped below their original size.
    """

    costs: Costs
    segments: Segmentation
    crops: bool = True


def realizations(costs: Costs, round_to: int = 1) -> Mapping[str, Realization]:
    """The realization for each value of ``realize`` that :func:`keras_structsparse.prune` takes.

    Args:
        costs: The cost model; "crop" and "split" ignore it.
        round_to: Widths are multiples of this number, those of the parts of a split too.

    Returns:
        The realizations by name.
    """
    return {
        "auto": Realization(costs, partial(cheapest_segments, step=round_to)),
        "crop": Realization(FREE, one_segment),
        "split": Realization(FREE, partial(cheapest_segments, step=round_to)),
        "none": Realization(costs, one_segment, crops=False),
    }


REALIZE = realizations(Costs())


def check_realize(value: str) -> str:
    """Return ``value`` if it is a key of :data:`REALIZE`.

    Raises:
        ValueError: It is not.
    """
    return one_of("realize", value, tuple(REALIZE))
