"""Proximal: an optimizer that takes a proximal step after every step of another optimizer.

Sub-gradient steps never make a group exactly zero; proximal steps do. The wrapped optimizer moves
the weights along the gradient of the mean loss alone. Then the proximal operator ``prox_{t Omega}``
is applied to the kernels, with a step length ``t`` such that the fixed points of both steps
together are the stationary points of the objective (7).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import keras
from keras import ops

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers.alpha import Alpha, distinct_alphas
from keras_structsparse.regularizers.loss_term import (
    gradients_taken,
    take_over_unless_differentiated,
)
from keras_structsparse.training.optimizer import distribution
from keras_structsparse.training.optimizer.averages import update_averages
from keras_structsparse.training.optimizer.batched_prox import proximal_steps, subgradients
from keras_structsparse.training.optimizer.regularized_variables import (
    constrained,
    current_values,
    gradient_of_kernel,
    new_kernel,
    regularized_kernels,
    regularizers_among,
    step_length,
    stepped_variable,
    to_plain,
    with_stepped_value,
)
from keras_structsparse.training.optimizer.stacked_kernels import RegularizedKernel
from keras_structsparse.training.optimizer.step_size import (
    is_preconditioned,
    move,
    public_class,
    travel,
)

TAKEN_OVER = ("use_ema", "ema_momentum", "ema_overwrite_frequency", "loss_scale_factor")
"""Settings that `Proximal` takes over from the wrapped optimizer: averages must be those of the
weights after the proximal step, and a penalty in the scaled loss is scaled as well."""


@keras.saving.register_keras_serializable("keras_structsparse")
class Proximal(keras.optimizers.Optimizer):
    """An optimizer that takes a proximal step after each step of another optimizer.

    The penalty acts in the proximal step and not in the loss: ``loss`` and ``val_loss`` of a model
    compiled with `Proximal` are those of the data, and :func:`keras_structsparse.penalty` is the
    value of the penalty. In a loop of your own it makes no difference whether ``model.losses`` are
    added to the loss: from the first step on they hold no penalty, and the gradient of a penalty
    that was differentiated before is subtracted. (On JAX, build the optimizer first.)
    Kernels paired with a batch normalisation are moved as effective kernels
    ``gamma_j k_j / |k_j|``.

    Under ``mixed_float16``, ``compile`` wraps `Proximal` in a ``LossScaleOptimizer``: steps with
    infinite gradients are skipped as a whole. With ``use_ema``, averages are those of the weights
    after the proximal step, and the average of a weight that is zero is zero.

    Args:
        optimizer: The optimizer to wrap: SGD, RMSprop, Adagrad, Adam, AdamW, Adamax, Nadam or Lamb,
            with any of their arguments. `Proximal` takes over its averages and its loss scaling.
        penalty_in_loss: Whether a gradient of the penalty that was taken since the last step is
            subtracted. Set it to False if you take such gradients for another purpose.
        name: Name of the optimizer.

    Raises:
        TypeError: ``optimizer`` is no Keras optimizer.
        ValueError: The step length for this type of optimizer is not known.

    Attributes:
        takes_proximal_steps: True; by it regularizers know that they add nothing to the loss.

    Examples:
        >>> from keras_structsparse.regularizers import KernelCount
        >>> layer = keras.layers.Dense(2, kernel_regularizer=KernelCount(0.1))
        >>> model = keras.Sequential([keras.Input((3,)), layer])
        >>> model.compile(Proximal(keras.optimizers.SGD(0.1, momentum=0.9)), "mse")
    """

    takes_proximal_steps = True

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        penalty_in_loss: bool = True,
        name: str = "proximal",
    ) -> None:
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise TypeError(f"optimizer: expected a Keras optimizer. Received: {optimizer!r}")
        public_class(optimizer)
        taken = {setting: getattr(optimizer, setting) for setting in TAKEN_OVER}
        super().__init__(learning_rate=0.0, name=name, **taken)
        optimizer.use_ema, optimizer.loss_scale_factor = False, None
        self.optimizer = optimizer
        self.penalty_in_loss = penalty_in_loss
        self._seen = gradients_taken()

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the optimizer's state.

        Args:
            variables: The trainable variables, some of which are regularized.

        Raises:
            ValueError: No variable is regularized; or on JAX, a gradient of the penalty has been
                taken before.
        """
        # Keras' loader of HDF5 files gives no variables where a model has made none itself.
        if self.built or not variables:
            return
        regularizers = regularizers_among(variables)
        if not regularizers:
            raise ValueError(
                "Proximal: expected a variable with a regularizer of keras_structsparse. Received "
                "none. Call kss.attach(model, regularizer) before compile, or give layers a "
                "kernel_regularizer."
            )
        # One variable for all replicas, which assign equal values to it.
        self._travel = self.add_variable(
            (), dtype=_precision(), aggregation="only_first_replica", name="travel"
        )
        # As a variable of the optimizer, alpha may change between compiled steps on all backends.
        for alpha in distinct_alphas(regularizers):
            _keras_compat.track(self, alpha)
        self.optimizer.build(variables)
        super().build(variables)
        take_over_unless_differentiated([r.term for r in regularizers], self, self._seen)

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables of this optimizer and of the wrapped one, and alpha."""
        return [*super().variables, *self.optimizer.variables]

    @property
    def _state(self) -> list[keras.Variable]:
        return [v for v in self.variables if not isinstance(v, Alpha)]

    def apply(
        self,
        grads: Sequence[Tensor],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Take one step of the wrapped optimizer, then the proximal step.

        Args:
            grads: Gradients of the loss, one for each variable.
            trainable_variables: The variables; by default those that the optimizer was built with.
        """
        if not self.built and trainable_variables is not None:
            self.build(list(trainable_variables))
        variables = list(trainable_variables or _keras_compat.trained_variables(self))
        regularized = regularized_kernels(variables)
        if self.penalty_in_loss:
            grads = self._without_penalty(grads, variables, regularized)
        for item in regularized:
            item.regularizer.term.take_over(self)
        self._seen = gradients_taken()
        rate, step = self._advance()
        before = self._values_before(regularized)
        self.optimizer.apply(self._unscaled(grads), variables)
        distribution.assign(self._proximal_step(regularized, before, rate, step))
        if self.use_ema:
            update_averages(self)

    def _without_penalty(
        self,
        grads: Sequence[Tensor],
        variables: Sequence[keras.Variable],
        regularized: Sequence[RegularizedKernel],
    ) -> list[Tensor]:
        """Gradients of the mean loss: without those of penalties that the loss contained."""
        shares = [item.regularizer.term.share_in_gradients(self._seen) for item in regularized]
        if all(share is None for share in shares):
            return list(grads)
        scale = self.scale_loss(distribution.loss_share())
        penalty: dict[int, Tensor] = {}
        values = [current_values(item) for item in regularized]
        # On JAX, the traced loss contains alpha as it was at tracing; in a fresh scope alpha has
        # that same value here.
        with keras.StatelessScope():
            changes = subgradients(values)
        for item, share, (kernel, gamma) in zip(regularized, shares, changes, strict=True):
            if share is not None:
                own = gradient_of_kernel(item, kernel)
                penalty[id(item.kernel)] = own * ops.cast(share, own.dtype)
                if gamma is not None:
                    penalty[id(item.gamma)] = gamma * ops.cast(share, gamma.dtype)
        return [
            grad - ops.cast(scale * penalty[id(v)], grad.dtype)
            if grad is not None and id(v) in penalty
            else grad
            for grad, v in zip(grads, variables, strict=True)
        ]

    def _unscaled(self, grads: Sequence[Tensor]) -> list[Tensor]:
        if self.loss_scale_factor is None:
            return list(grads)
        return [None if grad is None else grad / self.loss_scale_factor for grad in grads]

    def _advance(self) -> tuple[Tensor, Tensor]:
        """Learning rate and step length of this step; 0 while gradients are accumulated."""
        rate = ops.cast(ops.convert_to_tensor(self.optimizer.learning_rate), _precision())
        past = ops.convert_to_tensor(self._travel)
        now, step = travel(self.optimizer, past, rate)
        if steps := self.optimizer.gradient_accumulation_steps:
            last = ops.equal((_keras_compat.batches_seen(self.optimizer) + 1) % steps, 0)
            now = ops.where(last, now, past)
            rate, step = (ops.where(last, x, ops.zeros_like(x)) for x in (rate, step))
        self._travel.assign(now)
        return rate, step

    def _values_before(self, regularized: Sequence[RegularizedKernel]) -> list[Tensor | None]:
        if not is_preconditioned(self.optimizer):
            return [None] * len(regularized)
        return [ops.copy(ops.convert_to_tensor(stepped_variable(item))) for item in regularized]

    def _proximal_step(
        self,
        regularized: Sequence[RegularizedKernel],
        before: Sequence[Tensor],
        rate: Tensor,
        step: Tensor,
    ) -> list[distribution.Assignment]:
        moves = [
            move(self.optimizer, rate, step, start, stepped_variable(item), partial(to_plain, item))
            for item, start in zip(regularized, before, strict=True)
        ]
        points = [with_stepped_value(t, m.point) for t, m in zip(regularized, moves, strict=True)]
        assignments = []
        steps = [step_length(item, m.step) for item, m in zip(regularized, moves, strict=True)]
        changes = proximal_steps(points, steps)
        for item, (kernel, gamma) in zip(regularized, changes, strict=True):
            assignments.append((item.kernel, constrained(item.kernel, new_kernel(item, kernel))))
            if item.gamma is not None:
                assignments.append((item.gamma, constrained(item.gamma, gamma)))
        return assignments

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the wrapped optimizer."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.optimizer.learning_rate = learning_rate

    @property
    def iterations(self) -> Any:
        """The number of steps of the wrapped optimizer."""
        return self.optimizer.iterations

    def save_own_variables(self, store: Any) -> None:
        """Save the state without alpha, which the regularizers save."""
        for i, variable in enumerate(self._state):
            store[str(i)] = keras.ops.convert_to_numpy(variable)

    def load_own_variables(self, store: Any) -> None:
        """Load the state that :meth:`save_own_variables` saved."""
        if len(store.keys()) != len(self._state):
            warnings.warn(
                f"Optimizer '{self.name}' continues without its saved state: expected "
                f"{len(self._state)} saved variables, received {len(store.keys())}.",
                stacklevel=2,
            )
            return
        for i, variable in enumerate(self._state):
            variable.assign(store[str(i)])

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        inner = keras.saving.serialize_keras_object(self.optimizer)
        inner["config"].update({setting: getattr(self, setting) for setting in TAKEN_OVER})
        return {"optimizer": inner, "penalty_in_loss": self.penalty_in_loss, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Create an optimizer from its configuration."""
        inner = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects=custom_objects
        )
        return cls(**{**config, "optimizer": inner})


def _precision() -> str:
    """The dtype of step lengths: at least float32, also where weights are float16."""
    return "float64" if keras.config.floatx() == "float64" else "float32"
