"""What a network costs beside its multiply-adds, and how to cut a layer by that.

Everything is counted in multiply-adds: one element written to memory, or one operation started,
takes as long as so many of them. Runtimes compute kernels in blocks: a convolution takes as long
as one whose kernels fill their blocks.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from keras_structsparse.errors import CostsError

FORMAT = "keras_structsparse.costs/1"


def filled(width: int, block: int) -> int:
    """The least multiple of a block that is not below a width.

    Examples:
        >>> filled(9, 8), filled(8, 8), filled(9, 1)
        (16, 8, 9)
    """
    return -(-width // block) * block


@dataclass(frozen=True)
class Costs:
    """The price of operations, for one example.

    An operation is started once for a whole batch: so ``start`` is its price divided by the batch
    size, and costs suit one batch size on one machine
    (:func:`keras_structsparse.profiling.calibration.calibrate` measures them).

    Attributes:
        move: Multiply-adds that take as long as one element written to memory.
        start: Multiply-adds that take as long as starting one more operation.
        block: Kernels that are computed at once: fewer take as long. Two registers of eight
            numbers are usual.

    Raises:
        CostsError: A price is negative or not finite, or ``block`` is no whole number above 0.

    Examples:
        >>> Costs.from_json(Costs(move=20.0, start=3e5).to_json())
        Costs(move=20.0, start=300000.0, block=16)
    """

    move: float = 32.0
    start: float = 1e6
    block: int = 16

    def __post_init__(self) -> None:
        for name, value in (("move", self.move), ("start", self.start)):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise CostsError(f"{name}: expected a finite number >= 0. Received: {value!r}")
        if type(self.block) is not int or self.block < 1:
            raise CostsError(f"block: expected a whole number >= 1. Received: {self.block!r}")

    def convolution(self, places: int, area: int, inputs: int, kernels: int) -> float:
        """The price of a convolution.

        Args:
            places: Positions of its output map.
            area: Entries of a kernel at one input channel.
            inputs: Input channels.
            kernels: Output channels.

        Examples:
            >>> costs = Costs(move=1.0, start=5.0, block=8)
            >>> costs.convolution(10, 9, 3, 12) == 10 * (9 * 3 * 16 + 12) + 5
            True
        """
        work = area * inputs * filled(kernels, self.block)
        return places * (work + kernels * self.move) + self.start

    def to_json(self, **notes: Any) -> str:
        """The costs as JSON text, which :meth:`from_json` reads.

        Args:
            **notes: What else to write, such as where the costs were measured.
        """
        return json.dumps({"format": FORMAT, **asdict(self), **notes}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Costs:
        """Read costs from JSON text.

        Args:
            text: What :meth:`to_json` wrote; notes are passed over.

        Returns:
            The costs.

        Raises:
            CostsError: The text is no JSON, or no costs of this format.
        """
        try:
            content = json.loads(text)
        except (TypeError, ValueError) as error:
            raise CostsError(f"costs: expected JSON. Received text that is none: {error}") from (
                error
            )
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        if found != FORMAT:
            raise CostsError(f'costs: expected "format": "{FORMAT}". Received: {found!r}')
        return cls(content.get("move"), content.get("start"), content.get("block", cls.block))


FREE = Costs(move=0.0, start=0.0, block=1)

Price = Callable[[int, int], float]
Segments = list[tuple[int, int]]
Cut = Callable[[Sequence[int], Price], Segments]


def cut(keys: Sequence[int], price: Price, step: int = 1) -> Segments:
    """Cut a sequence into segments of least total price.

    Args:
        keys: The sequence; cuts are made only where neighbours differ, or at the last multiple
            of the step before.
        price: From the largest key and the length of a segment to its price; it must not fall
            with either.
        step: What all segments but the last are to be multiples of.

    Returns:
        The segments (start, stop), in order.

    Examples:
        >>> cut([1, 1, 1, 5], lambda key, length: length * key**2 + 4)
        [(0, 3), (3, 4)]
        >>> cut([1, 1, 1, 5], lambda key, length: length * key**2 + 100)
        [(0, 4)]
        >>> cut([1, 1, 1, 5], lambda key, length: length * key**2, step=2)
        [(0, 2), (2, 4)]
    """
    changes = (i for i in range(1, len(keys)) if keys[i - 1] != keys[i])
    edges = sorted({0, len(keys), *(i - i % step for i in changes)})
    peaks = [max(keys[i:j]) for i, j in itertools.pairwise(edges)]
    best: list[tuple[float, int]] = [(0.0, 0)]
    for stop in range(1, len(edges)):
        choices = []
        largest = 0
        for start in range(stop - 1, -1, -1):
            largest = max(largest, peaks[start])
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
    cut: Cut
    crops: bool = True


def realizations(costs: Costs, round_to: int = 1) -> Mapping[str, Realization]:
    """The values of ``realize`` that :func:`keras_structsparse.prune` takes.

    Args:
        costs: What operations cost beside their multiply-adds; "crop" and "split" do not ask.
        round_to: What widths are to be multiples of: the parts of "split" as well.

    Returns:
        The realizations by name.
    """
    return {
        "auto": Realization(costs, partial(cut, step=round_to)),
        "crop": Realization(FREE, whole),
        "split": Realization(FREE, partial(cut, step=round_to)),
        "none": Realization(costs, whole, crops=False),
    }


REALIZE = realizations(Costs())


def check_realize(value: str) -> str:
    """The value, if it is a key of :data:`REALIZE`.

    Raises:
        ValueError: It is none.
    """
    if value not in REALIZE:
        raise ValueError(f"realize: expected one of {tuple(REALIZE)}. Received: {value!r}")
    return value
