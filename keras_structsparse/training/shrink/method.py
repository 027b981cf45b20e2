"""How a network is shrunk: what can be chosen besides the budget.

Importing this module does not import Keras: options of the command line are read off
`ShrinkMethod`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keras_structsparse._validation import (
    GROUPS,
    MIXED,
    MOST_EPOCHS,
    count,
    fraction_below_one,
    one_of,
    positive_int,
    positive_number,
    set_checked,
    several,
    share,
)
from keras_structsparse.graph.channels.splitting import REALIZE, check_realize

if TYPE_CHECKING:
    import keras

TRIALS, MOST = 0.3, 0.6
"""The part of the tuning that tries learning rates; up to the larger part where an epoch for each
would be more."""


@dataclass(frozen=True)
class ShrinkMethod:
    """How :func:`keras_structsparse.shrink` removes groups and trains.

    The defaults were chosen on other networks than those that the documentation reports on.

    Attributes:
        removal: The part of the epochs in which groups are removed; the others tune the rebuilt
            network.
        distillation: The weight of the outputs of the unpruned network in the loss, in [0, 1];
            the labels have the rest.
        groups: "half_ring" and "ring" make kernels smaller too, "kernel" removes whole ones only,
            and "mixed" makes kernels smaller but those of depthwise layers. By default "mixed", and
            "kernel" for a latency, which allows nothing else.
        realize: How layers with several kernel sizes are built, as for :func:`prune`. Only with
            "split" does every kernel cost what its own size costs; use "none" or "auto" with
            whole kernels. By default "split", and "none" for a latency.
        measured_batches: The number of batches of each measurement of the saliency.
        learning_rate: The learning rate of Adam at the start; it falls to 0 with a cosine. By
            default it is chosen by :func:`suited_rate`.
        rates: Multiples of the learning rate that are tried when the rebuilt network is tuned, in
            rising order; the first that does not help ends the trial. They are tried if the
            learning rate and the optimizer are the default ones, there is validation data, and
            each can have an epoch of the tuning. A single one is taken without a trial.
        confidence: For a largest drop: how sure it must be that the network is within it, in
            [0.5, 1). 0.5 takes the drop on the validation data as it is.

    Raises:
        ValueError: A value is out of its range.
    """

    removal: float = 0.5
    distillation: float = 0.9
    groups: str | None = field(default=None, metadata={"choices": (*GROUPS, MIXED)})
    realize: str | None = field(default=None, metadata={"choices": tuple(REALIZE)})
    measured_batches: int = 6
    learning_rate: float | None = None
    rates: tuple[float, ...] = field(default=(1.0, 4.0, 16.0), metadata={"option": None})
    confidence: float = 0.975

    def __post_init__(self) -> None:
        rate = self.learning_rate
        set_checked(
            self,
            removal=fraction_below_one("removal", self.removal),
            distillation=share("distillation", self.distillation),
            groups=None if self.groups is None else one_of("groups", self.groups, (*GROUPS, MIXED)),
            realize=None if self.realize is None else check_realize(self.realize),
            measured_batches=positive_int("measured_batches", self.measured_batches),
            learning_rate=None if rate is None else positive_number("learning_rate", rate),
            rates=_rising("rates", self.rates),
            confidence=_at_least_half("confidence", self.confidence),
        )

    def removal_epochs(self, epochs: int) -> int:
        """The number of epochs in which groups are removed: at least one, and one less than all.

        Args:
            epochs: The number of all epochs, at least 2.

        Raises:
            ValueError: There are fewer than 2, or more than would ever end.

        Examples:
            >>> ShrinkMethod().removal_epochs(20)
            10
        """
        if count("epochs", epochs, MOST_EPOCHS) < 2:
            raise ValueError(
                "epochs: expected at least 2, one to remove and one to tune. Received: 1"
            )
        return min(max(round(self.removal * epochs), 1), epochs - 1)

    @property
    def known_factor(self) -> float | None:
        """The single multiple of the learning rate; None if several are tried or it is given."""
        return self.rates[0] if self.learning_rate is None and len(self.rates) == 1 else None

    def trial_epochs(self, epochs: int) -> int:
        """The number of epochs that each learning rate is tried for; 0 where there is no trial.

        All trials together take three tenths of the epochs that tune. Each takes one epoch at
        least, if that is not more than six tenths.

        Args:
            epochs: The number of all epochs, at least 2.

        Examples:
            >>> ShrinkMethod().trial_epochs(20), ShrinkMethod().trial_epochs(8)
            (1, 0)
        """
        if self.learning_rate is not None or len(self.rates) < 2:
            return 0
        tuning, count = epochs - self.removal_epochs(epochs), len(self.rates)
        if count > MOST * tuning + 1e-9:
            return 0
        return max(int(TRIALS * tuning / count + 1e-9), 1)


def _rising(name: str, values: Any) -> tuple[float, ...]:
    """Check positive numbers in rising order."""
    checked = several(name, values, positive_number)
    if not checked:
        raise ValueError(f"{name}: expected at least one number. Received: {values!r}")
    if any(second <= first for first, second in itertools.pairwise(checked)):
        raise ValueError(f"{name}: expected rising numbers. Received: {values!r}")
    return checked


def _at_least_half(name: str, value: float) -> float:
    """Check a number in [0.5, 1)."""
    checked = fraction_below_one(name, value)
    if checked < 0.5:
        raise ValueError(f"{name}: expected a number in [0.5, 1). Received: {value!r}")
    return checked


TRAVEL = 5.0
"""Steps times learning rate, in units of a usual kernel entry: what Adam may move an entry by."""

LOWEST, HIGHEST = 3e-4, 3e-3
"""The learning rates that may be chosen."""


def suited_rate(model: keras.Model, steps: int) -> float:
    """A learning rate of Adam with which a trained network can change enough, and not too fast.

    Adam moves an entry by about the learning rate in a step, whatever the gradient. So the rate is
    proportional to the root mean square of the entries of a usual kernel, and larger for fewer
    steps.

    Args:
        model: The trained network.
        steps: The number of steps.

    Returns:
        A rate in [3e-4, 3e-3].

    Examples:
        >>> import keras
        >>> layer = keras.layers.Dense(4, kernel_initializer="ones")
        >>> suited_rate(keras.Sequential([keras.Input((3,)), layer]), 10_000)
        0.0005
    """
    import keras
    import numpy as np

    from keras_structsparse.graph.kernel_axes import kernel_of
    from keras_structsparse.graph.prunable_layers import PrunableLayers

    kernels = [kernel_of(layer) for layer in PrunableLayers.of(model).layers.values()]
    values = [keras.ops.convert_to_numpy(kernel).astype(np.float64) for kernel in kernels]
    usual = float(np.median([np.sqrt(np.mean(np.square(value))) for value in values] or [1.0]))
    return min(max(TRAVEL * usual / steps, LOWEST), HIGHEST)
