"""Type aliases that the whole package shares.

Keras has no type stubs, and its tensors belong to one of three backends, so `Array` and `Tensor`
are `Any` to a type checker: they tell the reader what is meant.
"""

from __future__ import annotations

import os
from typing import Any

Array = Any
"""A NumPy array, on the host."""

Tensor = Array
"""A tensor of the Keras backend (TensorFlow, JAX or torch), or what `keras.ops` turns into one."""

Shape = tuple[int | None, ...]
"""The shape of a tensor as Keras gives it; None where a size is known only at call time."""

SpatialShape = tuple[int, ...]
"""The spatial sizes of a kernel, such as (5, 5); () for a Dense layer."""

StrPath = str | os.PathLike[str]
"""A path in the file system, as a string or as a `pathlib.Path`."""
