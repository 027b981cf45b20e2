"""Where the kernels are in the variables of layers other than plain convolutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from keras import ops

from keras_structsparse._typing import Tensor


@dataclass(frozen=True)
class Layout:
    """An order of a variable's entries.

    Attributes:
        to_plain: From the variable to (*spatial, in, out).
        from_plain: And back, to a given shape.
    """

    to_plain: Callable[[Tensor], Tensor]
    from_plain: Callable[[Tensor, tuple[int, ...]], Tensor]


def _swapped(kernel: Tensor) -> Tensor:
    return ops.swapaxes(ops.convert_to_tensor(kernel), -1, -2)


def _one_by_one(kernel: Tensor) -> Tensor:
    return ops.reshape(kernel, (*kernel.shape[:-2], 1, kernel.shape[-2] * kernel.shape[-1]))


LAYOUTS: dict[str, Layout] = {
    "plain": Layout(lambda kernel: kernel, lambda plain, _: plain),
    "transposed": Layout(_swapped, lambda plain, _: _swapped(plain)),
    "depthwise": Layout(_one_by_one, ops.reshape),
}
"""Convolutions and dense layers (*spatial, in, out); transposed convolutions (*spatial, out, in);
depthwise ones (*spatial, in, multiplier), where every output channel has a kernel of one input."""
