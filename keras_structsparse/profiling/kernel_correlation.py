"""The correlation of the kernels of a layer."""

from __future__ import annotations

import math

import numpy as np

from keras_structsparse._typing import Array


def mean_correlation(kernel: Array) -> float:
    """The mean absolute Pearson correlation over all pairs of kernels.

    The samples are the entries of a kernel, over positions and input channels. A value near 0 means
    that the kernels are uncorrelated; 1 means that each is a multiple of the others, up to a
    constant. Constant kernels, and so kernels of zeros, are left out.

    Args:
        kernel: Array (*spatial, in, out).

    Returns:
        A number in [0, 1]; nan if fewer than two kernels are left.

    Examples:
        >>> kernels = np.array([[1.0, 2.0, 0.0], [2.0, 4.1, 0.0], [0.0, 0.3, 0.0]])
        >>> round(mean_correlation(kernels), 2)
        1.0
        >>> mean_correlation(np.zeros((3, 3, 1, 4)))
        nan
    """
    *others, width = kernel.shape
    # Not -1: a layer may have no kernels.
    rows = np.asarray(kernel, np.float64).reshape(math.prod(others), width).T
    centred = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1)
    varying = lengths > 1e-12 * np.abs(rows).max(axis=1)
    count = int(varying.sum())
    if count < 2:
        return float("nan")
    units = centred[varying] / lengths[varying, None]
    # The correlation of each kernel with itself is 1.
    total = np.abs(units @ units.T).sum() - count
    return float(min(max(total / (count * (count - 1)), 0.0), 1.0))
