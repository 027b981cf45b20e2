"""What a network may cost after shrinking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from keras_structsparse._validation import fraction, fraction_below_one, set_checked


@dataclass(frozen=True)
class Budget:
    """What a network may cost after shrinking: exactly one of these.

    Attributes:
        multiply_adds: The share of its multiply-adds, in (0, 1].
        params: The share of its parameters, in (0, 1].
        max_drop: How much worse the validation metric of the smallest network may be, in (0, 1).

    Raises:
        ValueError: None or several are given, or one is out of its range.

    Examples:
        >>> Budget(multiply_adds=0.4).unit
        'multiply_adds'
    """

    multiply_adds: float | None = None
    params: float | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            raise ValueError(
                f"budget: expected one of {', '.join(vars(self))}. Received: {given or 'none'}"
            )
        for name, value in given.items():
            check = fraction_below_one if name == "max_drop" else fraction
            set_checked(self, **{name: check(name, value)})

    @property
    def unit(self) -> str:
        """What is counted: "multiply_adds" or "params"."""
        return "params" if self.params is not None else "multiply_adds"

    @property
    def share(self) -> float | None:
        """The share that may be left; None where it depends on the validation metric."""
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
        if self.max_drop is not None:
            return f"the smallest network within {self.max_drop:.1%} of the metric"
        return f"{self.share:.1%} of the {self.unit.replace('_', '-')}"
