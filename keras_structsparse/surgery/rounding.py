"""Widths that are multiples of what a runtime computes at once."""

from __future__ import annotations

import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.costs import filled


def returning(kept: Array, strength: Array, block: int) -> Array:
    """Which removed kernels stay, so that as many as a multiple of the block are left.

    Args:
        kept: Whether each kernel stays anyway (kernels,).
        strength: Norms (kernels,); the strongest come back, one of 0 never does.
        block: The block.

    Returns:
        A mask (kernels,); empty where nothing stays anyway, or too few have a strength.

    Examples:
        >>> returning(np.array([True, False, False, False]), np.array([5.0, 1.0, 0.0, 2.0]), 2)
        array([False, False, False,  True])
    """
    width = int(np.sum(kept))
    missing = filled(width, block) - width
    candidates = np.where(kept, 0.0, strength)
    found = np.zeros(len(candidates), bool)
    if width and np.count_nonzero(candidates) >= missing:
        found[np.argsort(-candidates, kind="stable")[:missing]] = True
    return found
