"""The weight alpha of the penalty, as a variable that compiled training steps read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import keras

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Tensor


class Alpha(keras.Variable):
    """A non-trainable float32 scalar variable that can be read at any time.

    On JAX, alpha is one of the variables of `Proximal`, so that it may change between compiled
    steps. But the JAX trainer empties the optimizer's variables during training while the loss
    still reads alpha: reading it then returns its last value.

    Args:
        value: A finite number.

    Attributes:
        assigned: Whether it has been assigned a value since it was made.

    Examples:
        >>> float(keras.ops.convert_to_numpy(Alpha(0.5)))
        0.5
    """

    def __init__(self, value: float) -> None:
        # Without autocast, or half-precision layers would round alpha.
        super().__init__(value, trainable=False, dtype="float32", autocast=False, name="alpha")
        self._keep(value)
        self.assigned = False

    def assign(self, value: Tensor) -> Tensor:
        """Set alpha; compiled training steps read the new value."""
        self._keep(value)
        self.assigned = True
        return super().assign(value)

    def _keep(self, value: Tensor) -> None:
        _keras_compat.set_fallback_value(self, value)


class HasAlpha(Protocol):
    """What is weighted by an alpha, such as a regularizer."""

    @property
    def alpha(self) -> Alpha:
        """The weight."""


def distinct_alphas(regularizers: Iterable[HasAlpha]) -> list[Alpha]:
    """The alphas of some regularizers, each once: those of one `attach` share one variable.

    Args:
        regularizers: What has an attribute ``alpha``.
    """
    return list({id(r.alpha): r.alpha for r in regularizers}.values())
