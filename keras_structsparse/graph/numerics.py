"""How far arrays are from each other."""

from __future__ import annotations

import numpy as np

from keras_structsparse._typing import Array


def relative_difference(expected: Array, received: Array) -> float:
    """The largest difference of two arrays over the largest value of the first.

    Args:
        expected: Array of any shape.
        received: Array of the same shape.

    Returns:
        The relative difference; the absolute one if ``expected`` is zero, and not a number if any
        entry is not.

    Examples:
        >>> relative_difference(np.array([2.0, -4.0]), np.array([3.0, -4.0]))
        0.25
    """
    scale = np.max(np.abs(expected), initial=0.0)
    error = np.max(np.abs(expected - received), initial=0.0)
    return float(error / scale if scale else error)
