"""PrunedMetrics: what the validation metrics would be after pruning, in the logs of every epoch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import keras
import numpy as np

from keras_structsparse import _keras_compat
from keras_structsparse._validation import fraction, positive_int
from keras_structsparse.graph.channels.splitting import check_realize
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.planning import plan
from keras_structsparse.surgery.plans import Plan, masks
from keras_structsparse.training.training_data import Data

PREFIX = "pruned_"
"""What the names of the entries begin with."""


class PrunedMetrics(keras.callbacks.Callback):
    """Write into the logs what the validation metrics would be after pruning to a budget.

    After an epoch, the kernels that :func:`keras_structsparse.plan` removes for the share are set
    to zero, the model is evaluated, and its weights are given back exactly as they were. So the
    entries are the metrics of ``kss.prune(model, kss.plan(model, multiply_adds=...))`` without any
    training after it: ``pruned_loss``, ``pruned_accuracy`` and so on. They are there to compare
    networks or epochs, for example as ``keras_tuner.Objective("pruned_accuracy", "max")``.

    Callbacks are called in the order of their list: place this one before callbacks that read the
    entries, such as ``EarlyStopping`` and ``ModelCheckpoint``.

    Args:
        validation: Arrays (inputs, targets) or (inputs, targets, sample weights), a
            ``tf.data.Dataset`` or a ``keras.utils.PyDataset``.
        multiply_adds: The share of the multiply-adds (10) that may be left, in (0, 1].
        params: The share of the parameters that may be left, in (0, 1].
        every: The model is evaluated after the first epoch, after every n-th, and after the last.
            The other epochs repeat the last values.
        batch_size: Examples per step, for arrays.
        realize: How the network would be built, as for :func:`keras_structsparse.prune`. Kernels
            get smaller, and not only fewer, with "split".

    Raises:
        ModelError: When training starts: the model has no graph or no convolutions.
        ValueError: An argument is out of its range, or not exactly one share is given.

    Examples:
        >>> layers = [keras.layers.Conv2D(8, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        >>> model.compile("sgd", "mse")
        >>> data = np.ones((16, 8, 8, 1)), np.ones((16, 2))
        >>> pruned = PrunedMetrics(data, multiply_adds=0.5)
        >>> logs = model.fit(*data, epochs=2, verbose=0, callbacks=[pruned]).history
        >>> sorted(logs), len(logs["pruned_loss"])
        (['loss', 'pruned_loss'], 2)
    """

    def __init__(
        self,
        validation: Data,
        *,
        multiply_adds: float | None = None,
        params: float | None = None,
        every: int = 1,
        batch_size: int = 32,
        realize: str = "auto",
    ) -> None:
        super().__init__()
        self.budget = _share({"multiply_adds": multiply_adds, "params": params})
        self.every = positive_int("every", every)
        self.batch_size = positive_int("batch_size", batch_size)
        self.realize = check_realize(realize)
        self._data = _unpacked(validation)
        self._known: dict[str, float] = {}

    def __deepcopy__(self, memo: Any) -> Self:
        """A copy that shares the data: keras-tuner copies callbacks for every trial."""
        return copy.copy(self)

    def on_train_begin(self, logs: Any = None) -> None:
        """Read the graph of the model."""
        self._found = PrunableLayers.of(self.model)
        self._known = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Evaluate the model as it would be after pruning, if that is due; add the entries."""
        over = epoch + 1
        if not self._known or over % self.every == 0 or over == self.params["epochs"]:
            self._known = {f"{PREFIX}{name}": v for name, v in self._evaluated().items()}
        if logs is not None:
            logs.update(self._known)

    def _evaluated(self) -> Mapping[str, float]:
        _keras_compat.sync_jax_state(self.model)
        chosen = plan(self._found, realize=self.realize, **self.budget)
        x, y, weights = self._data
        size = {} if y is None else {"batch_size": self.batch_size}
        with _as_if_pruned(self._found, chosen):
            found: Mapping[str, float] = self.model.evaluate(
                x, y, sample_weight=weights, return_dict=True, verbose=0, **size
            )
        return found


@contextmanager
def _as_if_pruned(found: PrunableLayers, chosen: Plan) -> Iterator[None]:
    """The weights of the masked model, and then exactly those of before."""
    # All of them: where an evaluation fails, the trainer of JAX may hold the values of all.
    variables = found.model.variables
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    changes = masks(found, chosen)
    layers = {id(call.operation): call.operation for call in found.graph.layers()}
    try:
        for key, values in changes.items():
            for weight, value in values.items():
                getattr(layers[key], weight).assign(value)
        yield
    finally:
        _keras_compat.sync_jax_state(found.model)
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)


def _share(shares: Mapping[str, float | None]) -> Mapping[str, Any]:
    """The one share that is given, by its unit."""
    given = {unit: fraction(unit, v) for unit, v in shares.items() if v is not None}
    if len(given) != 1:
        raise ValueError(
            f"PrunedMetrics: expected one of {', '.join(shares)}. Received: {given or 'none'}"
        )
    return given


def _unpacked(validation: Any) -> tuple[Any, Any, Any]:
    """Inputs, targets and sample weights; a data set has all of them."""
    x, y, weights = validation, None, None
    if isinstance(validation, list | tuple) and len(validation) in (2, 3):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(validation)
    if y is None and not (isinstance(x, keras.utils.PyDataset) or hasattr(x, "cardinality")):
        raise ValueError(
            "validation: expected arrays (inputs, targets), a tf.data.Dataset or a "
            f"keras.utils.PyDataset. Received: {type(validation).__name__}"
        )
    return x, y, weights
