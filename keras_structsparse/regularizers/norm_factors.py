"""The norms of nested groups, and their factors: equations (25) and (29)."""

from __future__ import annotations

import numpy as np

from keras_structsparse._typing import SpatialShape
from keras_structsparse._validation import NORMS as NORMS
from keras_structsparse._validation import one_of
from keras_structsparse.graph.nested_groups import group_sizes

# Power of the number m of entries in the factor of a group's norm: equations (25) and (29).
_ENTRY_POWER = {"l2": 0.0, "group_normalized": -0.5, "group_scaled": 0.5, "linf": 0.0}


def norm_factors(shape: SpatialShape, groups: str, channels: int, norm: str) -> np.ndarray:
    """Factor of the norm of each group of m entries: 1, 1/sqrt(m) (25) or sqrt(m) (29).

    Args:
        shape: Spatial shape of the kernel, such as (5, 5).
        groups: `"half_ring"`, `"ring"` or `"kernel"`.
        channels: Input channels of the kernel.
        norm: `"l2"`, `"group_normalized"`, `"group_scaled"` or `"linf"`.

    Returns:
        Floats (groups, 1).

    Raises:
        ValueError: If `groups` or `norm` is unknown.

    Examples:
        >>> norm_factors((2, 2), "kernel", 1, "group_scaled").tolist()
        [[2.0]]
    """
    one_of("norm", norm, NORMS)
    return np.asarray(group_sizes(shape, groups, channels)[:, None] ** _ENTRY_POWER[norm])
