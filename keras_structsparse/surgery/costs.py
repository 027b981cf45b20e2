"""What a network costs beside its multiply-adds, and how to cut a layer by that.

Everything is counted in multiply-adds: one element written to memory, or one operation started,
takes as long as so many of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """The price of operations.

    Attributes:
        move: Multiply-adds that take as long as one element written to memory.
        start: Multiply-adds that take as long as starting one more operation.
    """

    move: float = 32.0
    start: float = 1e6


FREE = Costs(move=0.0, start=0.0)

Price = Callable[[int, int], float]
Segments = list[tuple[int, int]]


def cut(keys: Sequence[int], price: Price) -> Segments:
    """Cut a sequence into segments of least total price.

    Args:
        keys: The sequence; cuts are made only where neighbours differ.
        price: From the largest key and the length of a segment to its price; it must not fall
            with either.

    Returns:
        The segments (start, stop), in order.

    Example:
        >>> cut([1, 1, 1, 5], lambda key, length: length * key**2 + 4)
        [(0, 3), (3, 4)]
        >>> cut([1, 1, 1, 5], lambda key, length: length * key**2 + 100)
        [(0, 4)]
    """
    edges = [i for i in range(len(keys) + 1) if i in (0, len(keys)) or keys[i - 1] != keys[i]]
    best: list[tuple[float, int]] = [(0.0, 0)]
    for stop in range(1, len(edges)):
        choices = []
        largest = 0
        for start in range(stop - 1, -1, -1):
            largest = max(largest, keys[edges[start]])
            segment = price(largest, edges[stop] - edges[start])
            choices.append((best[start][0] + segment, start))
        best.append(min(choices))
    segments = []
    stop = len(edges) - 1
    while stop > 0:
        start = best[stop][1]
        segments.append((edges[start], edges[stop]))
        stop = start
    return segments[::-1]


def whole(keys: Sequence[int], price: Price) -> Segments:
    """One segment, whatever it costs; none of an empty sequence."""
    return [(0, len(keys))] if keys else []


@dataclass(frozen=True)
class Realization:
    """How kernels of several sizes become convolutions.

    Attributes:
        costs: What operations cost beside their multiply-adds.
        cut: From the sizes of the kernels and the price of a convolution to the convolutions.
        crops: Whether a convolution may become smaller than the original.
    """

    costs: Costs
    cut: Callable[[Sequence[int], Price], Segments]
    crops: bool = True


REALIZE = {
    "auto": Realization(Costs(), cut),
    "crop": Realization(FREE, whole),
    "split": Realization(FREE, cut),
    "none": Realization(Costs(), whole, crops=False),
}
