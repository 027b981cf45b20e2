"""What a regularizer adds to the loss: its penalty, unless an optimizer takes proximal steps.

Under `Proximal` the penalty acts in the proximal step, so it must not act in the loss as well. Who
handles a penalty may be settled before or after the loss is computed or traced for the first time.
So there are three answers, which together do not depend on that order:

* A compiled model knows its optimizer. If that takes proximal steps, the loss has no penalty.
* In a loop of one's own, a proximal optimizer that was built for the kernel takes the penalty over:
  from then on it is 0 in ``model.losses``, on TensorFlow also in functions that were traced before.
* A gradient that was taken before holds the penalty's. Differentiating the penalty leaves a mark,
  and the optimizer subtracts what is marked.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras
from keras import ops

from keras_structsparse._keras_compat import LossRequest
from keras_structsparse._typing import Tensor


class ProximalOptimizer(Protocol):
    """An optimizer that takes proximal steps of the penalties."""

    takes_proximal_steps: bool


class _Clock:
    """Counts the gradients of penalties that have been taken in this process."""

    now = 0


def gradients_taken() -> int:
    """The number of gradients of penalties that have been taken so far."""
    return _Clock.now


def takes_proximal_steps(model: Any) -> bool:
    """Whether a model is compiled with an optimizer that takes proximal steps.

    Args:
        model: A Keras layer; those that are no models are not compiled.

    Examples:
        >>> takes_proximal_steps(keras.layers.Dense(1))
        False
    """
    optimizer = getattr(model, "optimizer", None)
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
    return bool(getattr(optimizer, "takes_proximal_steps", False))


class LossTerm:
    """The term of one regularizer in the loss."""

    def __init__(self) -> None:
        self._taken, self._switched = 0, False
        self._optimizer: Callable[[], Any] = lambda: None
        self._switch: Any = None

    def of(self, penalty: Callable[[], Tensor], request: LossRequest | None) -> Tensor | None:
        """The term that is added to the loss.

        Args:
            penalty: Computes the penalty.
            request: Who computes the loss; None where the regularizer is called by itself.

        Returns:
            A scalar, or None if the loss has no penalty.
        """
        if request is None:
            return self._marked(penalty(), switched=False)
        if takes_proximal_steps(request.owner):
            return None
        if request.by_trainer:  # It applies its own optimizer, which takes no proximal steps.
            return self._marked(penalty(), switched=False)
        if self._optimizer() is not None:
            return None
        value = penalty()
        return self._marked(value * ops.cast(self._share(), value.dtype), switched=True)

    def take_over(self, optimizer: ProximalOptimizer) -> None:
        """Note that an optimizer takes the proximal steps, as long as it exists."""
        if self._optimizer() is not optimizer:
            self._optimizer = weakref.ref(optimizer)
            self._turn(0.0)

    def share_in_gradients(self, since: int) -> Tensor | None:
        """What part of the penalty the gradients contain that were taken last.

        Args:
            since: A value of :func:`gradients_taken`; older gradients do not count.

        Returns:
            A number or scalar; None if no gradient of the penalty was taken.
        """
        if self._taken <= since:
            return None
        return self._share() if self._switched else 1.0

    def _marked(self, value: Tensor, switched: bool) -> Tensor:
        @ops.custom_gradient
        def mark(x: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
            def gradient(*args: Tensor, upstream: Tensor = None) -> Tensor:
                _Clock.now += 1
                self._taken, self._switched = _Clock.now, switched
                return args[-1] if upstream is None else upstream

            return x, gradient

        return mark(value)

    def _share(self) -> Tensor:
        """1, and 0 once an optimizer has taken over; read when a traced function runs."""
        if keras.backend.backend() != "tensorflow":
            return 1.0
        import tensorflow as tf

        if self._switch is None:
            with tf.init_scope():
                self._switch = tf.Variable(1.0, trainable=False, name="penalty_in_loss")
        elif self._optimizer() is None:
            self._turn(1.0)  # The optimizer that had taken over does not exist any more.
        return self._switch.value()

    def _turn(self, share: float) -> None:
        if self._switch is not None:
            import tensorflow as tf

            with tf.init_scope():
                self._switch.assign(share)


def take_over_unless_differentiated(
    terms: Sequence[LossTerm], optimizer: ProximalOptimizer, since: int
) -> None:
    """Let an optimizer take the penalties over before its first step.

    Where a gradient of them was taken already, the first step has to subtract it and take over.

    Args:
        terms: The terms of the regularizers.
        optimizer: The optimizer, which has just been built.
        since: As for :meth:`LossTerm.share_in_gradients`.

    Raises:
        ValueError: On JAX, a gradient was taken already.
    """
    if all(term.share_in_gradients(since) is None for term in terms):
        for term in terms:
            term.take_over(optimizer)
    elif keras.backend.backend() == "jax":
        raise ValueError(
            "Proximal: expected to be built before the loss is differentiated, since compiled JAX "
            "functions do not change later. Received gradients of a penalty. Call "
            "optimizer.build(model.trainable_variables) before the training loop."
        )
