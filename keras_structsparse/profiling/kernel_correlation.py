"""How alike the kernels of a layer are."""

from __future__ import annotations

import math

import numpy as np

from keras_structsparse._typing import Array


def mean_correlation(kernel: Array) -> float:
    """The mean absolute correlation over all pairs of kernels that are not zero.

    Two kernels are correlated as two samples of their entries, over positions and input channels.
    Near 0 the kernels have nothing in common; at 1 every one is another's multiple, but for a
    constant.

    Args:
        kernel: (*spatial, in, out).

    Returns:
        A number in [0, 1]; nan if fewer than two kernels vary.

    Examples:
        >>> kernels = np.array([[1.0, 2.0, 0.0], [2.0, 4.1, 0.0], [0.0, 0.3, 0.0]])
        >>> round(mean_correlation(kernels), 2)
        1.0
        >>> mean_correlation(np.zeros((3, 3, 1, 4)))
        nan
    """
    *others, width = kernel.shape
    # Not -1: a layer may have no kernels left.
    rows = np.asarray(kernel, np.float64).reshape(math.prod(others), width).T
    centred = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1)
    varying = lengths > 1e-12 * np.abs(rows).max(axis=1)
    count = int(varying.sum())
    if count < 2:
        return float("nan")
    units = centred[varying] / lengths[varying, None]
    # Every kernel is one with itself.
    total = np.abs(units @ units.T).sum() - count
    return float(min(max(total / (count * (count - 1)), 0.0), 1.0))
