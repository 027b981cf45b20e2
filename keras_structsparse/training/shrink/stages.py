"""The two stages of a shrinking: remove groups gradually, and tune the rebuilt network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse._validation import MIXED
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.training.callbacks.stop_on_nan import StopOnNaN
from keras_structsparse.training.distilling import Distilling
from keras_structsparse.training.optimizer_state import carry_optimizer
from keras_structsparse.training.shrink.budget import Budget
from keras_structsparse.training.shrink.checkpoints import (
    Checkpoints,
    State,
    reseed,
    restore,
)
from keras_structsparse.training.shrink.method import ShrinkMethod, suited_rate
from keras_structsparse.training.training_data import TrainingData

Logs = Mapping[str, list[float]]

TRYING = "trying"
"""The entry in the logs with the learning rate that is tried; it is shown, and not stored."""


@dataclass(frozen=True, eq=False)
class Job:
    """What all stages of a shrinking share.

    Attributes:
        model: The compiled model to shrink; it is not changed, and teaches the smaller network.
        data: The training data.
        validation: Data to evaluate after every epoch; None without any.
        batch_size: Examples per step, for arrays.
        epochs: The number of epochs of all stages.
        optimizer: The optimizer to train with; None for that of the method.
        budget: What the network may cost.
        method: How to remove groups and to train.
        callbacks: More callbacks.
        checkpoints: Where the state is stored.
        factor: What the learning rate is multiplied by for tuning; None if it is not known yet.
        seed: The seed of all that is drawn.
    """

    model: keras.Model
    data: TrainingData
    validation: Any
    batch_size: int
    epochs: int
    optimizer: keras.optimizers.Optimizer | None
    budget: Budget
    method: ShrinkMethod
    callbacks: Sequence[keras.callbacks.Callback]
    checkpoints: Checkpoints
    factor: float | None = None
    seed: int = 0

    def rng(self, *numbers: int) -> np.random.Generator:
        """Draws the same in every call with these numbers, also in one that continues another."""
        return np.random.default_rng((self.seed, *numbers))

    @property
    def groups(self) -> str:
        """What is removed: "half_ring", "ring", "kernel" or "mixed"."""
        return self.method.groups or ("kernel" if self.budget.latency else MIXED)

    @property
    def realize(self) -> str:
        """How layers with several kernel sizes are built."""
        return self.method.realize or ("none" if self.budget.latency else "split")

    @property
    def removal(self) -> int:
        """The number of epochs in which groups are removed."""
        return self.method.removal_epochs(self.epochs)

    def new_optimizer(self) -> keras.optimizers.Optimizer:
        """A fresh optimizer for all epochs."""
        if self.optimizer is not None:
            return type(self.optimizer).from_config(self.optimizer.get_config())
        steps = self.data.steps * self.epochs
        rate = self.method.learning_rate or suited_rate(self.model, steps)
        return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))

    def fit(
        self,
        model: keras.Model,
        begin: State,
        stop: int,
        callbacks: Sequence[keras.callbacks.Callback],
        losses: Mapping[str, Array] = MappingProxyType({}),
    ) -> Logs:
        """Train from one epoch to another; store the state after each.

        Args:
            model: The compiled network, with the values of the state.
            begin: The state to begin with.
            stop: The epochs that are over at the end.
            callbacks: The callbacks of the stage.
            losses: Stored with the state, as they are at the end of each epoch.

        Returns:
            The logs of all epochs.
        """
        store = _StoreEpochs(self.checkpoints, begin, losses)
        data = self.data.in_order(self.batch_size, self.seed, begin.epochs)
        model.fit(
            data.x,
            data.y,
            initial_epoch=begin.epochs,
            epochs=stop,
            validation_data=self.validation,
            callbacks=[StopOnNaN(), *callbacks, *self.callbacks, store],
            verbose=0,
            **data.options(self.batch_size, shuffle=data is self.data),
        )
        return store.history


class _StoreEpochs(keras.callbacks.Callback):
    """Collects the logs of the epochs and stores the state after each."""

    def __init__(self, checkpoints: Checkpoints, begin: State, losses: Mapping[str, Array]) -> None:
        super().__init__()
        self._checkpoints, self._begin, self._losses = checkpoints, begin, losses
        self.history = {name: list(values) for name, values in begin.history.items()}

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Store the state."""
        for name, value in (logs or {}).items():
            if name == TRYING:
                continue
            self.history.setdefault(name, []).append(float(value))
        stage, known = self._begin.stage, self._begin.known
        self._checkpoints.save(stage, epoch + 1, self.model, self.history, known, self._losses)


def compile_options(model: keras.Model) -> dict[str, Any]:
    """The arguments that a model was compiled with, without the optimizer.

    Args:
        model: A compiled model.

    Raises:
        ValueError: The loss or a metric cannot be serialized.
    """
    try:
        options = keras.saving.deserialize_keras_object(model.get_compile_config())
    except (TypeError, ValueError) as error:
        raise ValueError(
            "model: expected a loss and metrics that Keras can serialize; see "
            f"keras.saving.register_keras_serializable. Received: {error}"
        ) from error
    options.pop("optimizer", None)
    return dict(options)


def rebuild(job: Job, student: keras.Model, plan: Plan) -> keras.Model:
    """Rebuild the network without what was removed; it continues with the optimizer's state.

    Args:
        job: The shrinking.
        student: The network that :func:`remove` trained.
        plan: What is left of it.
    """
    pruned = prune(student, plan, realize=job.realize)
    reseed(pruned, job.rng(3))
    return carry_optimizer(student, pruned)


def tune(
    job: Job,
    pruned: keras.Model,
    teacher: keras.Model,
    state: State,
    stop: int,
    optimizer: keras.optimizers.Optimizer,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Logs:
    """Train the rebuilt network from a state.

    Args:
        job: The shrinking.
        pruned: The network; it is left compiled with its optimizer.
        teacher: A copy of the model.
        state: The state to begin with: of the network, and of an optimizer like this one.
        stop: The epochs that are over at the end.
        optimizer: The optimizer; it gets the state.
        callbacks: More callbacks.

    Returns:
        The logs of all epochs.
    """
    trained = Distilling(pruned, teacher, job.method.distillation)
    trained.compile(optimizer=optimizer, **compile_options(job.model))
    if not optimizer.built:
        optimizer.build(trained.trainable_variables)
    restore(trained, state)
    pruned.compile(optimizer=optimizer, **compile_options(job.model))
    return job.fit(trained, state, stop, callbacks)
