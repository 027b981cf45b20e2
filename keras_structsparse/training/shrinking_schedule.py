"""When shrinking pays: times of steps and compilation, and savings of a smaller network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

COMPILATION_FACTOR = 10.0
"""A step that takes this many times the usual time is taken to include compilation."""

TRUST = 0.1
"""Prior of `_realized_share`: as if a tenth of the multiply-adds had been removed and saved."""


@dataclass
class TrainingSection:
    """The epochs between two shrinkings: the training of one network.

    Attributes:
        multiply_adds: Multiply-adds of the network, for one example.
        epoch: Index of its first epoch.
        surgery: Seconds that the surgery before it took; 0 for the first section.
        steps: Seconds of every step; the first one includes tracing and compilation.
    """

    multiply_adds: int
    epoch: int = 0
    surgery: float = 0.0
    steps: list[float] = field(default_factory=list)

    @property
    def step(self) -> float:
        """Seconds of a usual step: the median without the first step."""
        return median(self.steps[1:] or self.steps or [0.0])

    @property
    def cost(self) -> float:
        """Seconds beyond the usual steps: surgery, tracing and compilation.

        JAX compiles a step of its own for a smaller last batch, which is a long step as well.
        """
        usual, first, later = self.step, self.steps[:1], self.steps[1:]
        long = [*first, *(step for step in later if step > COMPILATION_FACTOR * usual)]
        return self.surgery + sum(max(step - usual, 0.0) for step in long)


def saving(sections: Sequence[TrainingSection], multiply_adds: int, steps: float) -> float:
    """Seconds that a smaller network is expected to save, minus those of one more compilation.

    The compilation is expected to take as long as the last one; at first, as long as that of the
    first step of the training. The time of a step is expected to fall in proportion to the removed
    multiply-adds, times the share of such savings that earlier shrinkings have realized.

    Args:
        sections: The training so far.
        multiply_adds: Multiply-adds of the smaller network, for one example.
        steps: Number of remaining steps.

    Returns:
        Seconds; shrinking pays if this is positive.

    Examples:
        >>> round(saving([TrainingSection(100, steps=[3.0, 0.5, 0.5])], 40, 100), 1)
        27.5
    """
    first, now = sections[0], sections[-1]
    less = now.multiply_adds - multiply_adds
    promised = first.step * less / first.multiply_adds
    at_most = now.step * less / now.multiply_adds
    return steps * min(promised * _realized_share(first, now), at_most) - now.cost


def _realized_share(first: TrainingSection, now: TrainingSection) -> float:
    """Share of the promised savings that were realized between the first network and this one.

    The part of a step that does not depend on multiply-adds is not saved. After a small change,
    whose saving is lost in the noise, the share is nearly 1: a step that got slightly longer by
    chance must not prevent all later shrinkings.
    """
    promised = 1.0 - now.multiply_adds / first.multiply_adds
    saved = 1.0 - now.step / first.step if first.step else promised
    return min(max((saved + TRUST) / (promised + TRUST), 0.0), 1.0)
