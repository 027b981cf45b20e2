"""The proximal step after every step of an optimizer.

Sub-gradients never reach zero. A proximal step does: after the inner optimizer has moved the
weights along the gradient of the mean loss alone, ``prox_{t Omega}`` is applied to the kernels,
with a step length ``t`` for which the fixed points are those of the objective (7).
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops

from keras_structsparse.joint import Target, proximal_steps, subgradients
from keras_structsparse.moves import MOVES
from keras_structsparse.structured import Structured

Tensor = Any


@keras.saving.register_keras_serializable("keras_structsparse")
class Proximal(keras.optimizers.Optimizer):
    """An optimizer that follows each step of another one by the proximal step.

    Gradients are expected to contain those of the penalty, as they do in ``fit``; they are taken
    out again in closed form. Kernels paired with a batch normalisation move as effective kernels
    ``gamma_j k_j / |k_j|``.

    Args:
        optimizer: The optimizer to wrap: SGD with or without momentum, Adam or AdamW.
        penalty_in_loss: Whether gradients contain those of the penalty. False is for training
            loops of one's own that leave ``model.losses`` out.
        name: Name of the optimizer.

    Raises:
        TypeError: ``optimizer`` is no Keras optimizer.
        ValueError: The step length for this type of optimizer is not known.

    Example:
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
        if type(optimizer) not in MOVES:
            known = ", ".join(kind.__name__ for kind in MOVES)
            raise ValueError(
                f"optimizer: expected one of {known}, whose step length is known. "
                f"Received: {type(optimizer).__name__}"
            )
        super().__init__(learning_rate=0.0, name=name)
        self.optimizer = optimizer
        self.penalty_in_loss = penalty_in_loss

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the state for the trainable ``variables``, some of which are regularized.

        Raises:
            ValueError: None is regularized, or a gamma that a kernel is paired with is missing.
        """
        if self.built:
            return
        targets = _targets(variables)
        if not targets:
            raise ValueError(
                "Proximal: none of the variables carries a regularizer of keras_structsparse. "
                "Call kss.attach(model, regularizer) before compile, or give layers a "
                "kernel_regularizer."
            )
        # As state of the optimizer, alpha may change between compiled steps on every backend.
        for alpha in {id(t.regularizer.alpha): t.regularizer.alpha for t in targets}.values():
            self._track_variable(alpha)
        self.optimizer.build(variables)
        super().build(variables)

    @property
    def variables(self) -> list[keras.Variable]:
        """The state of the wrapped optimizer, and alpha."""
        return self._variables + self.optimizer.variables

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
        targets = _targets(variables)
        if self.penalty_in_loss:
            grads = self._without_penalty(grads, variables, targets)
        rate = self._rate()
        before = [ops.copy(ops.convert_to_tensor(_moved(target))) for target in targets]
        self.optimizer.apply(grads, variables)
        self._proximal_step(targets, before, rate)

    def _without_penalty(
        self,
        grads: Sequence[Tensor],
        variables: Sequence[keras.Variable],
        targets: Sequence[Target],
    ) -> list[Tensor]:
        """The gradients of the mean loss alone."""
        scale = self.scale_loss(_replica_share())
        penalty: dict[int, Tensor] = {}
        values = [_value(target) for target in targets]
        # Where a backend has no variables (JAX), the traced loss holds alpha as it was at tracing;
        # a fresh scope reads the same value here.
        with keras.StatelessScope():
            changes = subgradients(values)
        for target, change in zip(targets, changes, strict=True):
            penalty[id(target.kernel)] = change[0]
            penalty[id(target.gamma)] = change[1]
        return [
            grad - ops.cast(scale * penalty[id(v)], grad.dtype)
            if grad is not None and id(v) in penalty
            else grad
            for grad, v in zip(grads, variables, strict=True)
        ]

    def _rate(self) -> Tensor:
        """The learning rate of this step; 0 while gradients are only gathered."""
        rate = ops.cast(ops.convert_to_tensor(self.optimizer.learning_rate), "float32")
        if steps := self.optimizer.gradient_accumulation_steps:
            last = ops.equal((self.optimizer._iterations + 1) % steps, 0)
            rate = rate * ops.cast(last, "float32")
        return rate

    def _proximal_step(
        self, targets: Sequence[Target], before: Sequence[Tensor], rate: Tensor
    ) -> None:
        move = MOVES[type(self.optimizer)]
        moves = [
            move(self.optimizer, rate, start, _moved(target))
            for target, start in zip(targets, before, strict=True)
        ]
        points = [
            Target(t.regularizer, m.point, None, t.path)
            if t.gamma is None
            else Target(t.regularizer, ops.convert_to_tensor(t.kernel), m.point, t.path)
            for t, m in zip(targets, moves, strict=True)
        ]
        changes = proximal_steps(points, [m.step for m in moves])
        for target, (kernel, gamma) in zip(targets, changes, strict=True):
            self.assign(target.kernel, kernel)
            if target.gamma is not None:
                self.assign(target.gamma, gamma)

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

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss as the wrapped optimizer wants it."""
        return self.optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Let the wrapped optimizer put averaged weights in place."""
        self.optimizer.finalize_variable_values(var_list)

    def save_own_variables(self, store: Any) -> None:
        """Save the state of the wrapped optimizer; alpha is part of the regularizers."""
        self.optimizer.save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        """Load what :meth:`save_own_variables` saved."""
        self.optimizer.load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "penalty_in_loss": self.penalty_in_loss,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Make an optimizer from its configuration."""
        inner = keras.saving.deserialize_keras_object(
            config["optimizer"], custom_objects=custom_objects
        )
        return cls(**{**config, "optimizer": inner})


def _targets(variables: Sequence[keras.Variable]) -> list[Target]:
    """The regularized kernels among some variables, each with the gamma it is paired with."""
    known = _by_path(variables)
    targets = []
    for variable in variables:
        regularizer = variable.regularizer
        if isinstance(regularizer, Structured):
            _bind(regularizer, known)
            gamma = None if regularizer.scale is None else known[regularizer.scale]
            targets.append(Target(regularizer, variable, gamma, variable.path))
    return targets


def _moved(target: Target) -> keras.Variable:
    """The variable whose step length counts: a paired kernel shrinks through its gamma."""
    return target.kernel if target.gamma is None else target.gamma


def _value(target: Target) -> Target:
    """The target with tensors for its variables."""
    gamma = None if target.gamma is None else ops.convert_to_tensor(target.gamma)
    kernel = ops.convert_to_tensor(target.kernel)
    return Target(target.regularizer, kernel, gamma, target.path)


def _by_path(variables: Sequence[keras.Variable]) -> dict[str, keras.Variable]:
    """The variables whose path is no other's."""
    counts = collections.Counter(variable.path for variable in variables)
    return {v.path: v for v in variables if counts[v.path] == 1}


def _bind(regularizer: Structured, known: Mapping[str, keras.Variable]) -> None:
    """Give a regularizer the variables that it needs; they must move together with its kernel."""
    missing = regularizer.required - known.keys()
    if missing:
        raise ValueError(
            f"Proximal: expected one trainable variable '{min(missing)}', the scale of the batch "
            "normalisation that a regularized kernel is paired with, or a kernel that it is joined "
            "with. Found none, or several. Attach the regularizer again."
        )
    regularizer.bind(known)
    if regularizer.unbound:
        raise ValueError(
            f"Proximal: the variable '{min(regularizer.unbound)}' of a layer that feeds a "
            "regularized one is not among the trainable variables. Attach the regularizer again."
        )


def _replica_share() -> float:
    """What one replica's loss counts in the sum over replicas."""
    if keras.backend.backend() != "tensorflow":
        return 1.0
    import tensorflow as tf

    return 1.0 / float(tf.distribute.get_strategy().num_replicas_in_sync)
