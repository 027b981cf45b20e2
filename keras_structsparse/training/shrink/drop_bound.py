"""How large a drop may be, from the answers of two networks on the same examples.

A metric on validation data is an estimate. The smallest of several networks whose estimate is just
within a limit is probably one whose estimate is too good, so `max_drop` asks for an upper
confidence bound: for right and wrong answers the score interval of the difference of paired
proportions (Tango 1998), which tests of non-inferiority use; for other metrics Student's interval
of the mean difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from keras_structsparse._typing import Array

HALVINGS = 60
"""Steps to solve for the bound."""

LIKE_NORMAL, ANGLES = 1000, 20_001
"""Degrees of freedom from which Student's distribution is the normal one; points of an integral."""


@dataclass(frozen=True)
class DropBound:
    """The largest drop that agrees with what was measured.

    Attributes:
        value: The upper bound of the drop.
        confidence: How often such a bound is right.
        count: The number of examples or batches it was computed from.
        unit: "examples" or "batches".
    """

    value: float
    confidence: float
    count: int
    unit: str = "examples"

    def __str__(self) -> str:
        sure = f"{100 * self.confidence:g} %"
        return f"at most {self.value:.4g} with a confidence of {sure} ({self.count} {self.unit})"


def bound_of(drops: Array, confidence: float, unit: str = "examples") -> DropBound:
    """The bound of the mean of some drops.

    Args:
        drops: The drop of each example or batch (count,), positive where the smaller network is
            worse.
        confidence: The confidence, in [0.5, 1).
        unit: What the drops are those of.

    Examples:
        >>> lost, same = np.ones(3), np.zeros(497)
        >>> print(bound_of(np.concatenate([lost, same]), 0.975))
        at most 0.01749 with a confidence of 97.5 % (500 examples)
    """
    drops = np.asarray(drops, float)
    if unit == "examples" and np.isin(drops, (-1.0, 0.0, 1.0)).all():
        lost, gained = int((drops > 0).sum()), int((drops < 0).sum())
        value = paired_bound(lost, gained, len(drops), confidence)
    else:
        value = mean_bound(drops, confidence)
    return DropBound(value, confidence, len(drops), unit)


def paired_bound(lost: int, gained: int, count: int, confidence: float) -> float:
    """The upper bound of the difference of two paired shares of right answers (Tango 1998).

    It also holds where few answers differ: if none of 500 does, the drop may still be 0.8 points.

    Args:
        lost: Examples that only the network before answers rightly.
        gained: Examples that only the smaller network answers rightly.
        count: All examples.
        confidence: The confidence, in [0.5, 1).

    Examples:
        >>> round(paired_bound(0, 0, 500, 0.975), 4), round(paired_bound(60, 60, 2000, 0.975), 4)
        (0.0076, 0.0109)
    """
    quantile = NormalDist().inv_cdf(confidence)
    low, high = (lost - gained) / count, 1.0
    if quantile <= 0:
        return low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        inside = _score(lost, gained, count, middle) > -quantile
        low, high = (middle, high) if inside else (low, middle)
    return high


def _score(lost: int, gained: int, count: int, drop: float) -> float:
    """The score statistic of a supposed drop; the share of gained ones is its likeliest."""
    slope = (2 * count - lost + gained) * drop - lost - gained
    root = math.sqrt(max(slope**2 + 8 * count * gained * drop * (1 - drop), 0.0))
    both = (root - slope) / (2 * count) + drop * (1 - drop)
    off = lost - gained - count * drop
    return off / math.sqrt(count * both) if both > 0 else math.copysign(math.inf, off)


def mean_bound(drops: Array, confidence: float) -> float:
    """The upper bound of a mean by Student's distribution; infinite for one drop.

    Args:
        drops: Drops (count,).
        confidence: The confidence, in [0.5, 1).

    Examples:
        >>> round(mean_bound(np.array([0.0, 0.1, 0.2, 0.1]), 0.975), 3)
        0.23
    """
    drops = np.asarray(drops, float)
    if confidence <= 0.5:
        return float(drops.mean())
    if len(drops) < 2:
        return math.inf
    error = drops.std(ddof=1) / math.sqrt(len(drops))
    return float(drops.mean() + student(confidence, len(drops) - 1) * error)


def student(confidence: float, degrees: int) -> float:
    """A quantile of Student's distribution.

    The tangent of an angle whose density is a power of its cosine has this distribution.

    Args:
        confidence: The probability, in [0.5, 1).
        degrees: The degrees of freedom, at least 1.

    Examples:
        >>> [round(student(0.975, n), 2) for n in (1, 2, 3, 10, 10_000)]
        [12.71, 4.3, 3.18, 2.23, 1.96]
    """
    if degrees > LIKE_NORMAL:
        return NormalDist().inv_cdf(confidence)
    angles = np.linspace(0.0, math.pi / 2, ANGLES)
    heights = np.cos(angles) ** (degrees - 1)
    areas = np.concatenate([[0.0], np.cumsum(heights[1:] + heights[:-1])])
    angle = np.interp(2 * confidence - 1, areas / areas[-1], angles)
    return math.sqrt(degrees) * math.tan(angle)
