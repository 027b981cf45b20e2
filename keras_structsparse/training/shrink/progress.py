"""One line for every epoch of a shrinking."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import keras

from keras_structsparse.training.shrink.stages import TRYING

HIDDEN = "share", TRYING
"""Entries of the logs that are said in words."""

WIDTH = 20
"""Characters of the bar."""


class EpochLines(keras.callbacks.Callback):
    """Print a line after every epoch: a bar, the stage, the metrics, the share and the time left.

    Args:
        epochs: The number of epochs of all stages.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs, self._begun, self._first = epochs, 0.0, 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin to measure the time of an epoch: those of the two stages differ."""
        self._begun, self._first = 0.0, -1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Store when the first epoch of the stage began."""
        if self._first < 0:
            self._begun, self._first = time.monotonic(), epoch

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Print the line."""
        print(self.line(epoch, logs or {}, time.monotonic()), flush=True)

    def line(self, epoch: int, logs: Mapping[str, float], now: float) -> str:
        """The line of an epoch.

        Args:
            epoch: Its index.
            logs: Its logs.
            now: The time at its end, in seconds.
        """
        over = epoch + 1
        left = (now - self._begun) / (over - self._first) * (self.epochs - over)
        bar = "#" * round(WIDTH * over / self.epochs)
        shown = {n: v for n, v in logs.items() if n.startswith("val_")} or dict(logs)
        numbers = [f"{name} {value:.4f}" for name, value in shown.items() if name not in HIDDEN]
        stage = f"remove groups, {logs['share']:.0%} left" if "share" in logs else "tune"
        if TRYING in logs:
            stage = f"try the learning rate {logs[TRYING]:.2g}"
        minutes, seconds = divmod(round(left), 60)
        parts = [stage, *numbers, f"{minutes}:{seconds:02} to go"]
        return f"epoch {over:>{len(str(self.epochs))}}/{self.epochs} [{bar:<{WIDTH}}] " + ", ".join(
            parts
        )
