"""What a network may cost after shrinking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from keras_structsparse._validation import fraction, fraction_below_one, set_checked
from keras_structsparse.training.shrink.latency import Latency
from keras_structsparse.training.shrink.method import ShrinkMethod


@dataclass(frozen=True)
class Budget:
    """What a network may cost after shrinking: exactly one of these.

    Attributes:
        multiply_adds: The share of its multiply-adds, in (0, 1].
        params: The share of its parameters, in (0, 1].
        latency: The time of one run of the exported network: milliseconds, such as 4ms, or a share
            of the time before, such as 50%.
        max_drop: How much worse the validation metric of the smallest network may be, in (0, 1).

    Raises:
        ValueError: None or several are given, or one is out of its range.

    Examples:
        >>> Budget(multiply_adds=0.4).unit
        'multiply_adds'
    """

    multiply_adds: float | None = None
    params: float | None = None
    latency: Latency | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            raise ValueError(
                f"budget: expected one of {', '.join(vars(self))}. Received: {given or 'none'}"
            )
        for name, value in given.items():
            set_checked(self, **{name: _CHECKS[name](name, value)})

    @property
    def unit(self) -> str:
        """What is counted: "multiply_adds" or "params"."""
        return "params" if self.params is not None else "multiply_adds"

    @property
    def share(self) -> float | None:
        """The share of the unit that may be left; None where another thing is limited."""
        return self.params if self.params is not None else self.multiply_adds

    @property
    def largest(self) -> float:
        """The largest drop; NaN where the budget is a share."""
        return float("nan") if self.max_drop is None else self.max_drop

    def at(self, share: float) -> Self:
        """The budget of one attempt to find the smallest network.

        Args:
            share: A share of the multiply-adds.
        """
        return type(self)(multiply_adds=share)

    def __str__(self) -> str:
        if self.latency is not None:
            return str(self.latency)
        if self.max_drop is not None:
            return f"the smallest network within {self.max_drop:.1%} of the metric"
        return f"{self.share:.1%} of the {self.unit.replace('_', '-')}"


def _latency(name: str, value: Latency) -> Latency:
    if not isinstance(value, Latency):
        raise ValueError(f"{name}: expected a keras_structsparse.Latency. Received: {value!r}")
    return value


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "multiply_adds": fraction,
    "params": fraction,
    "latency": _latency,
    "max_drop": fraction_below_one,
}


def check_budget(budget: Budget, method: ShrinkMethod) -> None:
    """Fail unless a budget can be met here, and by a method.

    Args:
        budget: The budget.
        method: The method.

    Raises:
        RuntimeError: The runtime of a latency is not installed.
        ValueError: The budget is a latency, and the method does not remove whole kernels.
    """
    if budget.latency is None:
        return
    if method.groups not in (None, "kernel"):
        raise ValueError(
            "groups: expected 'kernel' with a latency, since several sizes of kernels make a layer "
            f"slower. Received: {method.groups!r}"
        )
    budget.latency.place.check_installed()
