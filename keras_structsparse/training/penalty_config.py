"""The form of a penalty: everything about it but its weight alpha, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from keras_structsparse.regularizers import (
    GroupSparsityRegularizer,
    KernelCount,
    KernelSize,
    MultiplyAdds,
)


@dataclass(frozen=True)
class Form:
    """What is penalised, and how the weight is spread over a network.

    Attributes:
        kind: "kernel-size", "kernel-count", "multiply-adds" or "none".
        norm: The norm of a group.
        groups: The groups of kernel-size and multiply-adds: "half_ring" or "ring".
        reweight: As for :class:`KernelSize`; 0 is the penalty of the draft.
        weights: The layers' shares of alpha, as for :func:`attach`.
        coupled: Whether the kernels that write one residual stream are one group.

    Raises:
        ValueError: ``kind`` is unknown, or ``reweight`` does not go with it.

    Examples:
        >>> type(Form("kernel-count", reweight=0.1).regularizer(1e-3)).__name__
        'KernelCount'
    """

    kind: str = "kernel-size"
    norm: str = "l2"
    groups: str = "half_ring"
    reweight: float = 0.0
    weights: str = "uniform"
    coupled: bool = False

    def __post_init__(self) -> None:
        if self.kind not in MAKE:
            raise ValueError(f"kind: expected one of {tuple(MAKE)}. Received: {self.kind!r}")
        if self.reweight and self.kind not in REWEIGHTED:
            raise ValueError(
                f"reweight: expected one of {REWEIGHTED} to go with. "
                f"Received: {self.reweight!r} with {self.kind!r}"
            )

    def regularizer(self, alpha: float) -> GroupSparsityRegularizer | None:
        """The regularizer with a weight; None for "none"."""
        return MAKE[self.kind](alpha, self)


MAKE: Mapping[str, Callable[[float, Form], GroupSparsityRegularizer | None]] = {
    "kernel-size": lambda alpha, form: KernelSize(
        alpha, form.norm, form.groups, reweight=form.reweight
    ),
    "kernel-count": lambda alpha, form: KernelCount(alpha, form.norm, reweight=form.reweight),
    "multiply-adds": lambda alpha, form: MultiplyAdds(
        alpha, form.norm, form.groups, reweight=form.reweight
    ),
    "none": lambda alpha, form: None,
}

REWEIGHTED = ("kernel-size", "kernel-count", "multiply-adds")
