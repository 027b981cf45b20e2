"""The cost model of surgery: what operations cost beside their multiply-adds.

The unit is one multiply-add: writing one element to memory, or starting one operation, takes as
long as a given number of multiply-adds. Runtimes compute kernels in blocks, so a convolution takes
as long as one whose number of kernels is rounded up to a multiple of the block.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from keras_structsparse._records import check_format, parse_json, read_record
from keras_structsparse._validation import nonnegative, positive_int, set_checked
from keras_structsparse.errors import CostsError

FORMAT = "keras_structsparse.costs/1"


def filled(width: int, block: int) -> int:
    """Round a width up to a multiple of a block.

    Args:
        width: Number of kernels.
        block: Number of kernels that a runtime computes at once.

    Returns:
        The smallest multiple of ``block`` that is at least ``width``.

    Examples:
        >>> filled(9, 8), filled(8, 8), filled(9, 1)
        (16, 8, 9)
    """
    return -(-width // block) * block


@dataclass(frozen=True)
class Costs:
    """What operations cost for one example, in multiply-adds.

    An operation is started once per batch, so ``start`` is that cost divided by the batch size.
    The numbers hold for one batch size on one machine;
    :func:`keras_structsparse.profiling.calibration.calibrate` measures them.

    Attributes:
        move: Multiply-adds that take as long as writing one element to memory.
        start: Multiply-adds that take as long as starting one operation.
        block: Number of kernels that the runtime computes at once; a smaller number takes as long.
            Typical: 16, two registers of eight float32 numbers.

    Raises:
        CostsError: ``move`` or ``start`` is negative or not finite, or ``block`` is not a whole
            number >= 1.

    Examples:
        >>> Costs.from_json(Costs(move=20.0, start=3e5).to_json())
        Costs(move=20.0, start=300000.0, block=16)
    """

    move: float = 32.0
    start: float = 1e6
    block: int = 16

    def __post_init__(self) -> None:
        set_checked(
            self,
            move=nonnegative("move", self.move, CostsError),
            start=nonnegative("start", self.start, CostsError),
            block=positive_int("block", self.block, CostsError),
        )

    def convolution(self, places: int, area: int, inputs: int, kernels: int) -> float:
        """The cost of one convolution.

        Args:
            places: Number of positions of its output map.
            area: Number of positions of a kernel (9 for 3x3).
            inputs: Number of input channels.
            kernels: Number of kernels: its output channels.

        Returns:
            The cost for one example, in multiply-adds.

        Examples:
            >>> costs = Costs(move=1.0, start=5.0, block=8)
            >>> costs.convolution(10, 9, 3, 12) == 10 * (9 * 3 * 16 + 12) + 5
            True
        """
        work = area * inputs * filled(kernels, self.block)
        return places * (work + kernels * self.move) + self.start

    def to_json(self, **notes: Any) -> str:
        """Write the costs as JSON text, which :meth:`from_json` reads.

        Args:
            **notes: More entries to write, such as where the costs were measured.

        Returns:
            The text.
        """
        return json.dumps({"format": FORMAT, **asdict(self), **notes}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Costs:
        """Read costs from JSON text.

        Args:
            text: What :meth:`to_json` wrote; its notes are ignored.

        Returns:
            The costs.

        Raises:
            CostsError: The text is not JSON, or has another format.
        """
        try:
            content = parse_json(text)
        except (TypeError, ValueError) as error:
            raise CostsError(f"costs: expected JSON. Received invalid JSON: {error}") from error
        check_format(content, FORMAT, "costs", CostsError)
        known = {name: content[name] for name in ("move", "start", "block") if name in content}
        return read_record(cls, known, "costs", CostsError)


FREE = Costs(move=0.0, start=0.0, block=1)
