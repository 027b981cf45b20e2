"""What a trial is worth to a search."""

from __future__ import annotations

from collections.abc import Sequence

from keras_structsparse.sweeps.points import Point


def score(points: Sequence[Point], budget: float) -> float:
    """The best validation accuracy within a budget, or how far the cheapest point is above it.

    Args:
        points: The points of one trial.
        budget: Share of the dense network's multiply-adds.

    Returns:
        The accuracy, between 0 and 1; 0 without any points, of a network that died; below 0 where
        all points cost too much, the lower the more they cost.
    """
    if not points:
        return 0.0
    within = [p.validation_finetuned for p in points if p.multiply_adds_fraction <= budget]
    return max(within) if within else budget - min(p.multiply_adds_fraction for p in points)
