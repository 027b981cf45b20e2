"""The weight of the penalty, as a variable that compiled training reads."""

from __future__ import annotations

import keras

from keras_structsparse._typing import Tensor


class Alpha(keras.Variable):
    """A non-trainable float32 scalar that can be read at any time.

    On JAX, `Proximal` has it among its variables, so that it may change between compiled steps. But
    the trainer empties an optimizer's variables while it trains, and the loss still reads alpha:
    then it gives the value it had.

    Args:
        value: A finite number.

    Examples:
        >>> float(keras.ops.convert_to_numpy(Alpha(0.5)))
        0.5
    """

    def __init__(self, value: float) -> None:
        # Without autocast, or half-precision layers would round alpha.
        super().__init__(value, trainable=False, dtype="float32", autocast=False, name="alpha")
        self._keep(value)

    def assign(self, value: Tensor) -> Tensor:
        """Set alpha; compiled training goes on with the new value."""
        self._keep(value)
        return super().assign(value)

    def _keep(self, value: Tensor) -> None:
        if keras.backend.backend() == "jax":
            # What Keras makes the value of a variable from that is empty.
            self._initializer = keras.initializers.Constant(float(value))


def let_go(model: keras.Model) -> None:
    """Make the variables of a model that is being trained writable for a callback.

    Between two batches, the trainer of JAX holds their values: what a callback assigned to one
    would be lost.

    Args:
        model: The model that is being trained, or any other.
    """
    if keras.backend.backend() == "jax":
        model.jax_state_sync()
