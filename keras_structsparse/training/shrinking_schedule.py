"""What steps and recompilations take, and whether a smaller network makes up for one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import keras

LONG = 10.0
"""Steps that take so many times longer than usual were compiled."""

TRUST = 0.1
"""In the promise: as if so large a share of the network had been cut, and all of it been saved."""


@dataclass
class Section:
    """Some epochs of training of one network.

    Attributes:
        multiply_adds: Of the network, for one example.
        epoch: The epoch that it starts with.
        surgery: Seconds that it took to make the network; 0 for the first.
        steps: Seconds of every step; tracing and compiling make the first one long.
    """

    multiply_adds: int
    epoch: int = 0
    surgery: float = 0.0
    steps: list[float] = field(default_factory=list)

    @property
    def step(self) -> float:
        """Seconds of a usual step."""
        return median(self.steps[1:] or self.steps or [0.0])

    @property
    def cost(self) -> float:
        """Seconds that it took beyond the usual steps: for surgery, tracing and compiling.

        A smaller last batch, which JAX compiles a step of its own for, shows as a long step too.
        """
        usual, first, later = self.step, self.steps[:1], self.steps[1:]
        long = [*first, *(step for step in later if step > LONG * usual)]
        return self.surgery + sum(max(step - usual, 0.0) for step in long)


def saving(sections: Sequence[Section], multiply_adds: int, steps: float) -> float:
    """Seconds that a smaller network is expected to save, less those of one more recompilation.

    The recompilation is expected to cost what the last one did; before there was any, what the
    first step of the training did. A step is expected to get shorter in proportion to the
    multiply-adds that go: at first as if it consisted of nothing else, later as cuts have shown.

    Args:
        sections: What was trained so far.
        multiply_adds: Of the smaller network.
        steps: The steps that are left.

    Returns:
        Seconds; the network pays where this is positive.

    Examples:
        >>> round(saving([Section(100, steps=[3.0, 0.5, 0.5])], 40, 100), 1)
        27.5
    """
    first, now = sections[0], sections[-1]
    less = now.multiply_adds - multiply_adds
    promised = first.step * less / first.multiply_adds
    at_most = now.step * less / now.multiply_adds
    return steps * min(promised * _worth(first, now), at_most) - now.cost


def _worth(first: Section, now: Section) -> float:
    """The share of a promise that is kept, from the first network to now.

    Of what does not shrink with the multiply-adds, nothing is saved. After a small cut, whose gain
    is lost in the noise, it is nearly 1: a step that got a little longer by chance must not forbid
    all later cuts.
    """
    promised = 1.0 - now.multiply_adds / first.multiply_adds
    saved = 1.0 - now.step / first.step if first.step else promised
    return min(max((saved + TRUST) / (promised + TRUST), 0.0), 1.0)


class Course(keras.callbacks.CallbackList):
    """The callbacks of one training that consists of several calls of ``fit``.

    To its callbacks these are one: it begins and ends once, and its epochs are counted to the end.

    Args:
        callbacks: The callbacks; a history is added, and a progress bar unless ``verbose`` is 0.
        epochs: The last epoch of the whole training.
        verbose: As for ``fit``.
    """

    def __init__(self, callbacks: Sequence[Any], epochs: int, verbose: Any) -> None:
        self._whole = {"epochs": epochs, "verbose": 1 if verbose == "auto" else verbose}
        self._begun, self._network, self._start = False, None, 0.0
        self._logs: Any = None
        self.section = Section(1)
        super().__init__(list(callbacks), add_history=True, add_progbar=verbose != 0)

    @property
    def history(self) -> keras.callbacks.History:
        """The metrics of all epochs."""
        return self._history

    def finish(self) -> None:
        """End the training."""
        super().on_train_end(self._logs)

    def set_model(self, model: keras.Model) -> None:
        """Tell the callbacks of a network once, not at every ``fit``."""
        if model is not None and model is not self._network:
            self._network = model
            super().set_model(model)

    def set_params(self, params: Any) -> None:
        """Tell the callbacks of the whole training."""
        super().set_params({**params, **self._whole} if params else params)

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin the first time."""
        if not self._begun:
            self._begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Wait for :meth:`finish`."""
        self._logs = logs

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Take the time behind the callbacks."""
        super().on_train_batch_begin(batch, logs)
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Take the time before the callbacks."""
        self.section.steps.append(time.perf_counter() - self._start)
        super().on_train_batch_end(batch, logs)
