"""Progress bars over the epochs of a training and the trials of a sweep."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_structsparse.cli.tables import console

if TYPE_CHECKING:
    import keras


@contextlib.contextmanager
def epoch_progress(epochs: int, steps: int) -> Iterator[keras.callbacks.Callback]:
    """A callback that shows a bar for the epoch that runs and prints a line for each that is over.

    Where standard output is no terminal there are only the lines.

    Args:
        epochs: Number of epochs.
        steps: Number of steps of an epoch.

    Yields:
        The callback.
    """
    import keras

    out = console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    options: dict[str, Any] = {"console": out, "transient": True, "disable": not out.is_terminal}
    with Progress(*columns, TimeRemainingColumn(), **options) as bar:
        task = bar.add_task("", total=steps)

        def begin(epoch: int, logs: Any = None) -> None:
            bar.reset(task, description=f"epoch {epoch + 1}/{epochs}")

        def end(epoch: int, logs: Mapping[str, float]) -> None:
            out.print(_epoch_line(epoch, epochs, logs), markup=False)

        yield keras.callbacks.LambdaCallback(
            on_epoch_begin=begin,
            on_epoch_end=end,
            on_train_batch_end=lambda batch, logs=None: bar.advance(task),
        )


def _epoch_line(epoch: int, epochs: int, logs: Mapping[str, float]) -> str:
    share = logs.get("multiply_adds_fraction")
    return (
        f"epoch {epoch + 1:>{len(str(epochs))}}/{epochs}  loss {logs['loss']:.4f}  "
        f"accuracy {logs['accuracy']:.4f}  validation accuracy {logs['val_accuracy']:.4f}"
        + ("" if share is None else f"  multiply-adds {share:.1%}")
    )


class TrialBars:
    """A bar over the trials of a sweep and one over the epochs of a training.

    Where standard output is no terminal, there is a line for each training instead. Implements
    :class:`keras_structsparse.sweeps.progress.Progress`.

    Args:
        out: Where to print.
    """

    def __init__(self, out: Console) -> None:
        columns = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn())
        options: dict[str, Any] = {"transient": True, "disable": not out.is_terminal}
        self._out = out
        self._bar = Progress(*columns, TimeRemainingColumn(), console=out, **options)

    def begin(self, trials: int) -> None:
        """Show the bars."""
        self._trials = self._bar.add_task("trials", total=trials)
        self._epochs = self._bar.add_task("")
        self._bar.start()

    def stage(self, name: str, epochs: int) -> Sequence[keras.callbacks.Callback]:
        """Count the epochs of a training."""
        import keras

        self._bar.reset(self._epochs, description=name, total=epochs)
        if not self._out.is_terminal:
            self._out.print(name, markup=False)
        return [
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs=None: self._bar.advance(self._epochs)
            )
        ]

    def finished(self, line: str) -> None:
        """Count a trial and print a line."""
        self._bar.advance(self._trials)
        self._out.print(line, markup=False, soft_wrap=True)

    def note(self, line: str) -> None:
        """Print a line."""
        self._out.print(line, markup=False, soft_wrap=True)

    def end(self) -> None:
        """Take the bars away."""
        self._bar.stop()
