"""Everything about a penalty but its weight alpha, as plain values.

Importing this module does not import Keras: options of the command line are read off
`PenaltyConfig`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keras_structsparse._validation import (
    NORMS,
    STEPS,
    WEIGHTS,
    boolean,
    nonnegative,
    one_of,
    set_checked,
)

if TYPE_CHECKING:
    from keras_structsparse.regularizers import GroupSparsityRegularizer


def _kernel_size(alpha: float, form: PenaltyConfig) -> GroupSparsityRegularizer:
    from keras_structsparse.regularizers import KernelSize

    return KernelSize(alpha, form.norm, form.groups, reweight=form.reweight)


def _kernel_count(alpha: float, form: PenaltyConfig) -> GroupSparsityRegularizer:
    from keras_structsparse.regularizers import KernelCount

    return KernelCount(alpha, form.norm, reweight=form.reweight)


def _multiply_adds(alpha: float, form: PenaltyConfig) -> GroupSparsityRegularizer:
    from keras_structsparse.regularizers import MultiplyAdds

    return MultiplyAdds(alpha, form.norm, form.groups, reweight=form.reweight)


MAKE: Mapping[str, Callable[[float, PenaltyConfig], GroupSparsityRegularizer | None]] = {
    "kernel-size": _kernel_size,
    "kernel-count": _kernel_count,
    "multiply-adds": _multiply_adds,
    "none": lambda alpha, form: None,
}
"""The kinds of penalties."""

ALPHAS: Mapping[str, float] = {"multiply-adds": 1e-9}
"""Usual weights of kinds whose values are of another size than those of the others."""

ALPHA = 1e-3


@dataclass(frozen=True)
class PenaltyConfig:
    """The kind of a penalty, and how its weight alpha is shared among the layers.

    Attributes:
        kind: What to penalise: "kernel-size", "kernel-count", "multiply-adds" or "none".
        norm: Norm of a group.
        groups: Groups of kernel-size and multiply-adds: half_ring for every kernel size, ring for
            every second one.
        reweight: Penalise large kernels less: 0.1 keeps most accuracy, 0 is the convex penalty of
            the paper.
        weights: How alpha is shared among the layers: equally, by their multiply-adds or by their
            parameters.
        coupled: Penalise the kernels that write one channel of a residual stream as one group, so
            that whole channels can be removed.

    Raises:
        ValueError: An argument is not one of its values, or ``reweight`` is given without a
            penalty.

    Examples:
        >>> type(PenaltyConfig("kernel-count", reweight=0.1).regularizer(1e-3)).__name__
        'KernelCount'
    """

    kind: str = field(
        default="kernel-size", metadata={"option": "--regularizer", "choices": tuple(MAKE)}
    )
    norm: str = field(default="l2", metadata={"choices": NORMS})
    groups: str = field(default="half_ring", metadata={"choices": STEPS})
    reweight: float = 0.0
    weights: str = field(default="uniform", metadata={"choices": WEIGHTS})
    coupled: bool = False

    def __post_init__(self) -> None:
        set_checked(
            self,
            kind=one_of("kind", self.kind, tuple(MAKE)),
            norm=one_of("norm", self.norm, NORMS),
            groups=one_of("groups", self.groups, STEPS),
            weights=one_of("weights", self.weights, WEIGHTS),
            coupled=boolean("coupled", self.coupled),
            reweight=nonnegative("reweight", self.reweight),
        )
        if self.reweight and self.kind == "none":
            raise ValueError(
                f"reweight: expected 0 without a penalty to reweight. Received: {self.reweight!r} "
                f"with {self.kind!r}"
            )

    def regularizer(self, alpha: float | None = None) -> GroupSparsityRegularizer | None:
        """The regularizer, or None for "none".

        Args:
            alpha: Its weight; None for the usual one of its kind, 1e-9 for "multiply-adds" and 1e-3
                for the others.
        """
        return MAKE[self.kind](ALPHAS.get(self.kind, ALPHA) if alpha is None else alpha, self)
