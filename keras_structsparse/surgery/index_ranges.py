"""Lists of indices as ranges, each list written once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Indices = tuple[int, ...]

LARGEST = 2**24
"""Indices in one list at most, more than any axis of a weight has: damaged text may name more."""


def to_ranges(indices: Sequence[int]) -> list[int]:
    """Write indices as runs of neighbours.

    Args:
        indices: Whole numbers in any order.

    Returns:
        First index and length of each run, one after the other.

    Examples:
        >>> to_ranges([0, 1, 2, 7, 5, 6])
        [0, 3, 7, 1, 5, 2]
    """
    array = np.asarray(indices, dtype=int)
    if not array.size:
        return []
    starts = np.flatnonzero(np.diff(array, prepend=array[0] - 2) != 1)
    lengths = np.diff(starts, append=array.size)
    return [int(number) for number in np.stack([array[starts], lengths], axis=1).ravel()]


def from_ranges(ranges: Sequence[int]) -> Indices:
    """Read what :func:`to_ranges` wrote.

    Examples:
        >>> from_ranges([0, 3, 7, 1, 5, 2])
        (0, 1, 2, 7, 5, 6)
    """
    if sum(ranges[1::2]) > LARGEST:
        raise ValueError(f"ranges: expected at most {LARGEST} indices")
    runs = zip(ranges[::2], ranges[1::2], strict=True)
    return tuple(i for start, length in runs for i in range(start, start + length))


class IndexTable:
    """Different lists of indices, numbered; most weights of a network share theirs with others.

    Args:
        ranges: Lists that are there already, each as :func:`to_ranges` writes it.

    Examples:
        >>> table = IndexTable()
        >>> table.add((0, 1, 5)), table.add((2,)), table.add((0, 1, 5)), table.ranges
        (0, 1, 0, [[0, 2, 5, 1], [2, 1]])
        >>> IndexTable(table.ranges)[0]
        (0, 1, 5)
    """

    def __init__(self, ranges: Sequence[Sequence[int]] = ()) -> None:
        self._lists = [from_ranges(each) for each in ranges]
        self._numbers = {each: number for number, each in enumerate(self._lists)}

    def add(self, indices: Indices) -> int:
        """The number of a list, which is added if it is not there."""
        number = self._numbers.setdefault(indices, len(self._lists))
        if number == len(self._lists):
            self._lists.append(indices)
        return number

    def __getitem__(self, number: int) -> Indices:
        return self._lists[number]

    @property
    def ranges(self) -> list[list[int]]:
        """All lists as ranges."""
        return [to_ranges(each) for each in self._lists]
