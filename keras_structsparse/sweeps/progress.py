"""The progress of a sweep."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras

Stages = Callable[[str, int], Sequence[keras.callbacks.Callback]]
"""From the name of a training and its number of epochs to the callbacks that follow it."""


class Progress(Protocol):
    """Follows a sweep; the command line draws bars with it."""

    def begin(self, trials: int) -> None:
        """Begin a sweep.

        Args:
            trials: Number of trials to run.
        """

    def stage(self, name: str, epochs: int) -> Sequence[keras.callbacks.Callback]:
        """Begin a training of some epochs; the callbacks follow it."""

    def finished(self, line: str) -> None:
        """Count a trial as finished, and show a line with its result."""

    def note(self, line: str) -> None:
        """Show a line that says what the sweep waits for."""

    def end(self) -> None:
        """End the sweep, also where it failed."""


class Lines:
    """One printed line for each finished trial.

    Args:
        console: Has a method ``print``, such as a ``rich.console.Console``; standard output
            unless given.
    """

    def __init__(self, console: Any = None) -> None:
        self._print = print_line if console is None else console.print

    def begin(self, trials: int) -> None:
        """Say nothing."""

    def stage(self, name: str, epochs: int) -> Sequence[keras.callbacks.Callback]:
        """Follow no training."""
        return []

    def finished(self, line: str) -> None:
        """Print the line."""
        self._print(line)

    def note(self, line: str) -> None:
        """Print the line."""
        self._print(line)

    def end(self) -> None:
        """Say nothing."""


def print_line(line: str) -> None:
    """Print a line at once, also into a file."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
