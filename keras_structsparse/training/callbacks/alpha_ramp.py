"""Alpha that rises at the start of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_structsparse import _keras_compat


class AlphaRamp(keras.callbacks.Callback):
    """Raise alpha linearly from 0 to its full value over the first steps of training.

    A penalty at full strength from the start removes kernels before they have learned anything.

    Args:
        alphas: The variables to set; each ends at the value it has at the start of training.
        steps: Number of steps of the ramp; 0 for none.
    """

    def __init__(self, alphas: Sequence[keras.Variable], steps: int) -> None:
        super().__init__()
        self._alphas, self._steps, self._step = list(alphas), steps, 0
        self._full: list[float] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Remember the full values."""
        self._step = 0
        self._full = [float(keras.ops.convert_to_numpy(alpha)) for alpha in self._alphas]

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Set alpha for the coming step."""
        if self._step <= self._steps:
            _keras_compat.sync_jax_state(self.model)
            share = self._step / self._steps if self._steps else 1.0
            for alpha, full in zip(self._alphas, self._full, strict=True):
                alpha.assign(full * share)
        self._step += 1

    def on_train_end(self, logs: Any = None) -> None:
        """Set alpha to its full value, also after trainings shorter than the ramp."""
        # A training that failed before it began has no full values yet.
        for alpha, full in zip(self._alphas, self._full, strict=False):
            alpha.assign(full)
