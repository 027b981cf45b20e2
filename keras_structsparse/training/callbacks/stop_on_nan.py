"""StopOnNaN: an error where the loss of a training is no longer a finite number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_structsparse import _keras_compat
from keras_structsparse.errors import DivergedError, ModelError
from keras_structsparse.graph import functional_graph
from keras_structsparse.regularizers.alpha import distinct_alphas
from keras_structsparse.regularizers.attachment import regularizers_of


class StopOnNaN(keras.callbacks.Callback):
    """Stop a training with an error when its loss becomes NaN or infinite.

    At the end of every epoch the weights are checked as well. The error names the first layer with
    weights that are not finite, and says what to try. Keras' ``TerminateOnNaN`` ends such a
    training as if it were complete. ``kss.fit_shrinking``, sweeps and recipes use this callback by
    themselves.

    Under ``mixed_float16`` an infinite loss alone is no reason to stop: the optimizer skips such
    steps and lowers its scale. Then the weights must be broken too.

    Args:
        inputs: A batch of inputs of the model. With it, the error also names the first layer whose
            output is not finite where all weights still are.

    Raises:
        DivergedError: In training: the loss or a weight is not finite.

    Examples:
        >>> layer = keras.layers.Dense(1, kernel_initializer="ones", name="dense")
        >>> model = keras.Sequential([keras.Input((1,)), layer])
        >>> model.compile(keras.optimizers.SGD(1e30), "mse")
        >>> x = np.full((4, 1), 10.0)
        >>> try:
        ...     _ = model.fit(x, 0 * x, epochs=9, verbose=0, callbacks=[StopOnNaN()])
        ... except DivergedError as error:
        ...     print("lower learning rate" in str(error))
        True
    """

    def __init__(self, inputs: Any = None) -> None:
        super().__init__()
        self._inputs, self._epoch, self._batch = inputs, 0, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Store the index of the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Check the loss, which Keras reports as the mean over the epoch so far."""
        self._batch = batch
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            broken = self._broken()
            if broken or not hasattr(self.model.optimizer, "inner_optimizer"):
                self._stop(loss, broken)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Check the weights: losses that clip probabilities are finite where these are NaN."""
        if broken := self._broken():
            self._stop(float((logs or {}).get("loss", 0.0)), broken)

    def _broken(self) -> list[tuple[str, str]]:
        _keras_compat.sync_jax_state(self.model)
        return list(dict(_broken_weights(self.model)).items())

    def _stop(self, loss: float, broken: list[tuple[str, str]]) -> None:
        raise DivergedError(
            f"Training: expected a finite loss and finite weights. Received the loss {loss:.6g} in "
            f"epoch {self._epoch + 1}, batch {self._batch + 1}. {self._place(broken)} Try "
            f"{_advice(self.model)}."
        )

    def _place(self, broken: list[tuple[str, str]]) -> str:
        if broken:
            (name, weight), count = broken[0], len(broken)
            return (
                f"Layer '{name}' is the first with weights that are not finite ({weight}); "
                f"{count} layer{'s have' if count > 1 else ' has'} such weights."
            )
        if self._inputs is None:
            return "All weights are finite, so the inputs, the labels or the loss are not."
        return _first_output(self.model, self._inputs)


def _broken_weights(model: keras.Model) -> Iterator[tuple[str, str]]:
    """Layers with weights that are not finite, in order, each with the name of such a weight."""
    for name, layer in _layers(model):
        for weight in reversed(layer.weights):  # The last assignment of a name counts: the first.
            if not _is_finite(weight):
                yield name, weight.name


def _layers(model: keras.Model) -> list[tuple[str, keras.Layer]]:
    try:
        calls = functional_graph.read(model).layers()
    except ModelError:  # A subclassed model has no graph.
        return [(layer.name, layer) for layer in model.layers]
    return [(call.name, call.operation) for call in calls]


def _first_output(model: keras.Model, inputs: Any) -> str:
    """Which layer computes the first output that is not finite."""
    good = "The outputs of all layers are finite, so the labels or the loss are not."
    arrays = keras.tree.flatten(inputs)
    if not all(map(_is_finite, arrays)):
        return "The inputs are not finite."
    try:
        graph = functional_graph.read(model)
    except ModelError:
        return good
    values = dict(zip(graph.inputs, map(keras.ops.convert_to_tensor, arrays), strict=True))
    for call in graph.calls:
        args, kwargs = call.arguments([values[tensor] for tensor in call.inputs])
        found = keras.tree.flatten(call.operation(*args, **kwargs))
        if not all(map(_is_finite, found)):
            return f"Layer '{call.name}' is the first with an output that is not finite."
        values.update(zip(call.outputs, found, strict=True))
    return good


def _is_finite(values: Any) -> bool:
    array = np.asarray(keras.ops.convert_to_numpy(values))
    if not np.issubdtype(array.dtype, np.inexact) and "float" not in str(array.dtype):
        return True
    return bool(np.isfinite(array.astype(np.float64)).all())


def _advice(model: keras.Model) -> str:
    rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    # A schedule may have reached 0 by now.
    found = ["a lower learning rate" + (f" (now {rate:.3g})" if rate else "")]
    try:
        alphas = distinct_alphas(regularizers_of(model).values())
    except ModelError:
        alphas = []
    if alphas:
        values = [float(keras.ops.convert_to_numpy(alpha)) for alpha in alphas]
        found.append(f"a lower alpha (now {max(values):.3g})")
    return ", ".join([*found, "clipnorm=1.0 in the optimizer"]) + ", or data without NaN"
