"""How the kernel variables of other layers map to the plain layout (*spatial, in, out)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keras import ops

from keras_structsparse._typing import Tensor


@dataclass(frozen=True)
class Layout:
    """The order of the axes of a kernel variable.

    Attributes:
        to_plain: Converts the variable to (*spatial, in, out).
        from_plain: Converts a plain tensor back, given the variable's shape.
        width: From the variable's shape to the number of kernels.
    """

    to_plain: Callable[[Tensor], Tensor]
    from_plain: Callable[[Tensor, tuple[int, ...]], Tensor]
    width: Callable[[Sequence[int]], int]


def _swapped(kernel: Tensor) -> Tensor:
    return ops.swapaxes(ops.convert_to_tensor(kernel), -1, -2)


def _one_by_one(kernel: Tensor) -> Tensor:
    return ops.reshape(kernel, (*kernel.shape[:-2], 1, kernel.shape[-2] * kernel.shape[-1]))


LAYOUTS: dict[str, Layout] = {
    "plain": Layout(lambda kernel: kernel, lambda plain, _: plain, lambda shape: shape[-1]),
    "transposed": Layout(_swapped, lambda plain, _: _swapped(plain), lambda shape: shape[-2]),
    "depthwise": Layout(_one_by_one, ops.reshape, lambda shape: shape[-2] * shape[-1]),
}
"""Plain: (*spatial, in, out), convolutions and dense layers. Transposed: (*spatial, out, in),
transposed convolutions. Depthwise: (*spatial, in, multiplier), where each of the in * multiplier
output channels has a kernel with one input channel."""
