"""Points of a sweep, for tests of curves and their figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Swept:
    alpha: float
    tau: float
    multiply_adds_fraction: float
    validation_finetuned: float
    accuracy_finetuned: float


SWEEP = [
    Swept(1e-2, 0.1, 0.10, 0.80, 0.79),
    Swept(1e-3, 0.1, 0.30, 0.90, 0.88),
    Swept(1e-3, 0.0, 0.40, 0.89, 0.91),
    Swept(1e-4, 0.0, 0.90, 0.92, 0.87),
]


def swept(taus: Sequence[float]) -> list[Swept]:
    return [Swept(1e-3, tau, 0.5, 0.9, 0.9) for tau in taus]
