"""The callbacks of one training that consists of several calls of `fit`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import keras

from keras_structsparse.training.shrinking_schedule import TrainingSection


class MultiFitCallbacks(keras.callbacks.CallbackList):
    """A list of callbacks for which several calls of `fit` are one training.

    The callbacks are told once that training begins and once that it ends, and epochs are counted
    over the whole training.

    Args:
        callbacks: The callbacks; a history is added, and a progress bar unless `verbose` is 0.
        epochs: Number of epochs of the whole training.
        verbose: As for `fit`.

    Attributes:
        section: The section that is being trained; the seconds of every step are appended to it.
    """

    def __init__(self, callbacks: Sequence[Any], epochs: int, verbose: Any) -> None:
        self._whole = {"epochs": epochs, "verbose": 1 if verbose == "auto" else verbose}
        self._begun, self._network, self._start = False, None, 0.0
        self._logs: Any = None
        self.section = TrainingSection(1)
        super().__init__(list(callbacks), add_history=True, add_progbar=verbose != 0)

    @property
    def history(self) -> keras.callbacks.History:
        """The metrics of all epochs."""
        return self._history

    def finish(self) -> None:
        """Tell the callbacks that the whole training ends."""
        super().on_train_end(self._logs)

    def set_model(self, model: keras.Model) -> None:
        """Set the model of the callbacks, once for each model and not once for each `fit`."""
        if model is not None and model is not self._network:
            self._network = model
            super().set_model(model)

    def set_params(self, params: Any) -> None:
        """Set the parameters of the callbacks, with the epochs of the whole training."""
        super().set_params({**params, **self._whole} if params else params)

    def on_train_begin(self, logs: Any = None) -> None:
        """Tell the callbacks that training begins, at the first `fit` only."""
        if not self._begun:
            self._begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Keep the logs for :meth:`finish`."""
        self._logs = logs

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Start the clock after the callbacks."""
        super().on_train_batch_begin(batch, logs)
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stop the clock before the callbacks."""
        self.section.steps.append(time.perf_counter() - self._start)
        super().on_train_batch_end(batch, logs)
