"""Tensor operations that behave alike on TensorFlow, JAX and torch, in float32 and float64.

Several functions of `keras.ops` round float64 to float32 on one backend, or have another
derivative at 0. The functions here say which one they replace, and why.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_structsparse._typing import Tensor


def constant(values: Tensor | float, like: Tensor) -> Tensor:
    """Convert numbers, an array or a tensor to a tensor with the dtype of `like`."""
    # Not `ops.cast`: a float must not pass through float32.
    return ops.convert_to_tensor(values, dtype=keras.backend.standardize_dtype(like.dtype))


def restore(blocks: Tensor, kernel: Tensor) -> Tensor:
    """Reshape and cast blocks (positions, in, out) back to the shape and dtype of their kernel."""
    return constant(ops.reshape(blocks, kernel.shape), like=kernel)


def safe_sqrt(squares: Tensor) -> Tensor:
    """Square root of a non-negative tensor, with the gradient 0 at 0 on every backend."""
    zero = ops.equal(squares, 0)
    # Both branches must be finite at 0: a gradient of 0 * inf would be NaN on JAX and torch.
    return ops.where(zero, 0.0, ops.sqrt(ops.where(zero, 1.0, squares)))


def largest(values: Tensor, axis: int | tuple[int, ...]) -> Tensor:
    """Largest magnitude along some axes, to divide by before numbers are squared; 1 for zeros.

    A norm of numbers over their largest magnitude neither underflows nor overflows, and does not
    depend on the divisor: so none of its derivative flows through the divisor.
    """
    values = ops.stop_gradient(values)
    # Two reductions and no copy of the array, as the magnitudes would be.
    most, least = ops.max(values, axis=axis), ops.min(values, axis=axis)
    found = ops.where(most > -least, most, -least)
    # Below the normal numbers division would overflow. Written so that NaN becomes 1.
    tiny = np.finfo(keras.backend.standardize_dtype(values.dtype)).tiny
    return ops.where(found > tiny, found, 1.0)


def zeros_to_ones(values: Tensor) -> Tensor:
    """Replace 0 by 1, to divide by the result."""
    return ops.where(ops.equal(values, 0), 1.0, values)


def minimum(left: Tensor, right: Tensor) -> Tensor:
    """Entrywise minimum; where `left` is NaN the result is NaN."""
    # Not `ops.minimum`, which rounds float64 to float32 on torch.
    return ops.where(left > right, right, left)


def cumulative_sum(values: Tensor) -> Tensor:
    """Cumulative sum over the first axis: from rings to nested groups."""
    # `ops.cumsum` rounds float64 to float32 on torch, whose tensors have their own method.
    own = getattr(values, "cumsum", None)
    return ops.cumsum(values, axis=0) if own is None else own(0)


def reverse_cumulative_sum(values: Tensor) -> Tensor:
    """Cumulative sum over the first axis from its end.

    Over nested groups: for each ring, the sum over the groups that contain it.
    """
    return ops.flip(cumulative_sum(ops.flip(values, axis=0)), axis=0)
