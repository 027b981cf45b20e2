"""The proximal step after every step of an optimizer.

Sub-gradients never reach zero. A proximal step does: after the inner optimizer has moved the
weights along the gradient of the mean loss alone, ``prox_{t Omega}`` is applied to the kernels,
with a step length ``t`` for which the fixed points are those of the objective (7).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import keras
from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers.alpha import Alpha
from keras_structsparse.training.optimizer import distribution
from keras_structsparse.training.optimizer.batched_prox import proximal_steps, subgradients
from keras_structsparse.training.optimizer.regularized_variables import (
    from_plain,
    moved,
    moved_to,
    targets_of,
    to_plain,
    values_of,
)
from keras_structsparse.training.optimizer.stacked_kernels import Target
from keras_structsparse.training.optimizer.step_size import is_preconditioned, kind_of, move, travel

OF_THE_WHOLE_STEP = ("use_ema", "ema_momentum", "ema_overwrite_frequency", "loss_scale_factor")
"""Settings that `Proximal` takes over from the optimizer it wraps: averages must see the weights
after the proximal step, and the penalty is in the loss that is scaled."""


@keras.saving.register_keras_serializable("keras_structsparse")
class Proximal(keras.optimizers.Optimizer):
    """An optimizer that follows each step of another one by the proximal step.

    Gradients are expected to contain those of the penalty, as they do in ``fit``; they are taken
    out again in closed form, before the wrapped optimizer clips what is left. Kernels paired with a
    batch normalisation move as effective kernels ``gamma_j k_j / |k_j|``.

    Under ``mixed_float16``, ``compile`` puts a ``LossScaleOptimizer`` around it: steps with
    infinite gradients are skipped as a whole. With ``use_ema``, averages are those of the weights
    after the proximal step, and a weight that is zero has the average zero.

    Args:
        optimizer: The optimizer to wrap: SGD, RMSprop, Adagrad, Adam, AdamW, Adamax, Nadam or Lamb,
            with any of their arguments. From now on it leaves averages and loss scaling to this
            one.
        penalty_in_loss: Whether gradients contain those of the penalty. False is for training
            loops of one's own that leave ``model.losses`` out.
        name: Name of the optimizer.

    Raises:
        TypeError: ``optimizer`` is no Keras optimizer.
        ValueError: The step length for this type of optimizer is not known.

    Examples:
        >>> from keras_structsparse.regularizers import KernelCount
        >>> layer = keras.layers.Dense(2, kernel_regularizer=KernelCount(0.1))
        >>> model = keras.Sequential([keras.Input((3,)), layer])
        >>> model.compile(Proximal(keras.optimizers.SGD(0.1, momentum=0.9)), "mse")
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        penalty_in_loss: bool = True,
        name: str = "proximal",
    ) -> None:
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise TypeError(f"optimizer: expected a Keras optimizer. Received: {optimizer!r}")
        kind_of(optimizer)
        taken = {setting: getattr(optimizer, setting) for setting in OF_THE_WHOLE_STEP}
        super().__init__(learning_rate=0.0, name=name, **taken)
        optimizer.use_ema, optimizer.loss_scale_factor = False, None
        self.optimizer = optimizer
        self.penalty_in_loss = penalty_in_loss

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the state for the trainable ``variables``, some of which are regularized.

        Raises:
            ValueError: None is regularized, or a gamma that a kernel is paired with is missing.
        """
        if self.built:
            return
        targets = targets_of(variables)
        if not targets:
            raise ValueError(
                "Proximal: none of the variables carries a regularizer of keras_structsparse. "
                "Call kss.attach(model, regularizer) before compile, or give layers a "
                "kernel_regularizer."
            )
        # One for all replicas, which assign the same.
        self._travel = self.add_variable(
            (), dtype=_precision(), aggregation="only_first_replica", name="travel"
        )
        # As state of the optimizer, alpha may change between compiled steps on every backend.
        for alpha in {id(t.regularizer.alpha): t.regularizer.alpha for t in targets}.values():
            self._track_variable(alpha)
        self.optimizer.build(variables)
        super().build(variables)

    @property
    def variables(self) -> list[keras.Variable]:
        """The state of this optimizer and of the wrapped one, and alpha."""
        return [*self._variables, *self.optimizer.variables]

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
            grads: Gradients of the objective, one for each variable.
            trainable_variables: The variables; those the optimizer was built with unless given.
        """
        if not self.built and trainable_variables is not None:
            self.build(list(trainable_variables))
        variables = list(trainable_variables or self._trainable_variables)
        targets = targets_of(variables)
        if self.penalty_in_loss:
            grads = self._without_penalty(grads, variables, targets)
        rate, step = self._advance()
        before = self._moved_values(targets)
        self.optimizer.apply(self._unscaled(grads), variables)
        distribution.assign(self._proximal_step(targets, before, rate, step))
        if self.use_ema:
            self._average()

    def _without_penalty(
        self,
        grads: Sequence[Tensor],
        variables: Sequence[keras.Variable],
        targets: Sequence[Target],
    ) -> list[Tensor]:
        """The gradients of the mean loss alone."""
        scale = self.scale_loss(distribution.share())
        penalty: dict[int, Tensor] = {}
        values = [values_of(target) for target in targets]
        # Where a backend has no variables (JAX), the traced loss holds alpha as it was at tracing;
        # a fresh scope reads the same value here.
        with keras.StatelessScope():
            changes = subgradients(values)
        for target, change in zip(targets, changes, strict=True):
            penalty[id(target.kernel)] = from_plain(target, change[0])
            penalty[id(target.gamma)] = change[1]
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
        """The learning rate and the step length of this step; 0 while gradients are gathered."""
        rate = ops.cast(ops.convert_to_tensor(self.optimizer.learning_rate), _precision())
        past = ops.convert_to_tensor(self._travel)
        now, step = travel(self.optimizer, past, rate)
        if steps := self.optimizer.gradient_accumulation_steps:
            last = ops.equal((self.optimizer._iterations + 1) % steps, 0)
            now = ops.where(last, now, past)
            rate, step = (ops.where(last, x, ops.zeros_like(x)) for x in (rate, step))
        self._travel.assign(now)
        return rate, step

    def _moved_values(self, targets: Sequence[Target]) -> list[Tensor | None]:
        if not is_preconditioned(self.optimizer):
            return [None] * len(targets)
        return [ops.copy(ops.convert_to_tensor(moved(target))) for target in targets]

    def _proximal_step(
        self, targets: Sequence[Target], before: Sequence[Tensor], rate: Tensor, step: Tensor
    ) -> list[distribution.Assignment]:
        moves = [
            move(self.optimizer, rate, step, start, moved(target), partial(to_plain, target))
            for target, start in zip(targets, before, strict=True)
        ]
        points = [moved_to(t, m.point) for t, m in zip(targets, moves, strict=True)]
        assignments = []
        changes = proximal_steps(points, [m.step for m in moves])
        for target, (kernel, gamma) in zip(targets, changes, strict=True):
            assignments.append((target.kernel, from_plain(target, kernel)))
            if target.gamma is not None:
                assignments.append((target.gamma, gamma))
        return assignments

    def _average(self) -> None:
        """Update the averages, and put them in place every ``ema_overwrite_frequency`` steps."""
        steps = ops.convert_to_tensor(self.iterations)
        later = ops.where(steps > 1, self.ema_momentum, 0.0)
        pairs = [
            (variable, average, _averaged(average, variable, later))
            for variable, average in zip(
                self._trainable_variables, self._model_variables_moving_average, strict=True
            )
            if average is not None
        ]
        distribution.assign([(average, value) for _, average, value in pairs])
        if self.ema_overwrite_frequency:
            due = ops.equal(steps % self.ema_overwrite_frequency, 0)
            distribution.assign(
                [(v, ops.where(due, value, ops.convert_to_tensor(v))) for v, _, value in pairs]
            )

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
        """Save the state; alpha is part of the regularizers."""
        for i, variable in enumerate(self._state):
            store[str(i)] = keras.ops.convert_to_numpy(variable)

    def load_own_variables(self, store: Any) -> None:
        """Load what :meth:`save_own_variables` saved."""
        if len(store.keys()) != len(self._state):
            warnings.warn(
                f"Optimizer '{self.name}' goes on without its state: expected {len(self._state)} "
                f"saved variables, received {len(store.keys())}.",
                stacklevel=2,
            )
            return
        for i, variable in enumerate(self._state):
            variable.assign(store[str(i)])

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        inner = keras.saving.serialize_keras_object(self.optimizer)
        inner["config"].update({setting: getattr(self, setting) for setting in OF_THE_WHOLE_STEP})
        return {"optimizer": inner, "penalty_in_loss": self.penalty_in_loss, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Make an optimizer from its configuration."""
        inner = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects=custom_objects
        )
        return cls(**{**config, "optimizer": inner})


def _averaged(average: keras.Variable, variable: keras.Variable, momentum: Tensor) -> Tensor:
    """The moving average; what is zero stays zero in it, or no average would ever be sparse."""
    value = ops.convert_to_tensor(variable)
    momentum = ops.cast(momentum, value.dtype)
    mixed = momentum * ops.convert_to_tensor(average) + (1.0 - momentum) * value
    return ops.where(ops.equal(value, 0), ops.zeros_like(value), mixed)


def _precision() -> str:
    """Step lengths are those of the wrapped optimizer, but never in half precision."""
    return "float64" if keras.config.floatx() == "float64" else "float32"
