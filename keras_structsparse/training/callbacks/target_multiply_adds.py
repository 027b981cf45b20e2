"""A budget of multiply-adds instead of a penalty weight: a callback that steers alpha."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras

from keras_structsparse._validation import nonnegative
from keras_structsparse.graph.channels.costs import check_realize
from keras_structsparse.profiling.kernel_reader import KernelState
from keras_structsparse.regularizers.alpha import let_go
from keras_structsparse.regularizers.base import GroupSparsityRegularizer
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.plans import plan as read_plan
from keras_structsparse.training.callbacks.budget_fitter import Fitter, Mask, hold

LOOKS = 64
"""How often in a training the multiply-adds are looked at, and alpha is set."""

WARM_UP, ARRIVAL, LATEST = 0.1, 0.45, 0.5
"""Shares of the training: alpha rises from 0; the plan reaches the target; the cut comes."""

CHECKS = (0.25, 0.6, 0.75, 0.9, 1.0)
"""Shares of the training after which the network is rebuilt, to correct the estimate or the cut."""

PROPORTIONAL, INTEGRAL, LARGEST_ERROR = 1.0, 0.2, 0.5
"""alpha = level * exp(PROPORTIONAL e), and log level grows by INTEGRAL e a look; e is cut off."""

SEARCH, UNTOUCHED = 0.2, 0.99
"""While next to nothing is small yet, alpha is too low, maybe by far: log level grows by this."""

ROUNDING = 1e-6


class TargetMultiplyAdds(keras.callbacks.Callback):
    """Steer alpha so that the network ends with a share of its multiply-adds.

    What counts are the multiply-adds (eq. 10) of ``kss.prune(model, tau=tau, realize=realize)``.
    The share that is planned falls geometrically from 1 to the target over the first 45 % of the
    training, and alpha follows the ratio of the share there is to the planned one. As soon as the
    target is near, at half of the training at the latest, the groups with the smallest norms go
    until it is met. From then on alpha is 0 and what has gone is kept away: what is left trains
    without bias.

    Give the model a regularizer and compile it with :class:`Proximal`. The search starts at the
    value of alpha, and leaves it at the last one that it steered to; several alphas keep their
    ratios. Place it behind callbacks that change weights, such as ``EarlyStopping`` that restores
    the best ones, and before those that write logs, where it puts ``multiply_adds_fraction``.

    Args:
        target: Multiply-adds to end with, over those of the model, in (0, 1].
        tau: The threshold on group norms that the network will be pruned with.
        tolerance: How far from the target the share may end.
        realize: What becomes of a layer whose kernels have several sizes, as for :func:`prune`.
            With "split" every kernel counts with its own size.

    Attributes:
        reached: The share at the end of the training; None before.
        threshold: The largest norm that a cut has removed, over the layer's share of alpha.

    Raises:
        ValueError: An argument is out of its range; when training starts, the model has no
            regularizer, alpha is 0, or the model is smaller than the target already.

    Examples:
        >>> budget = TargetMultiplyAdds(0.4)
        >>> # model.fit(x, y, epochs=20, callbacks=[budget])
        >>> # pruned = kss.prune(model, tau=1e-3)
    """

    def __init__(
        self, target: float, tau: float = 1e-3, tolerance: float = 0.02, realize: str = "auto"
    ) -> None:
        super().__init__()
        self.target = check_target("target", target)
        self.tau = nonnegative("tau", tau)
        self.tolerance = nonnegative("tolerance", tolerance)
        self.realize = check_realize(realize)
        self.reached: float | None = None
        self.threshold: float | None = None

    # --- what Keras calls ---

    def on_train_begin(self, logs: Any = None) -> None:
        """Read the network and check that the target can be reached."""
        self._fitter = Fitter(self.model, self.tau, self.realize)
        self._alphas = _starts(self._fitter.regularizers.values())
        self._steering = _Steering(self.target)
        self._epoch = self._looks = self._checks = 0
        self._arrived, self._plan, self._masks = False, Plan({}), list[Mask]()
        self._last: KernelState = self._fitter.reader.state()
        self.reached = self.threshold = None
        start = self._fitter.share(self._last)
        if start < self.target - self.tolerance:
            raise ValueError(
                "target: expected at most the share of the multiply-adds that the network has "
                f"before the training, {start:.3f}. Received: {self.target!r}"
            )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remember the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keep away what has gone; look at the network, if it is time."""
        if self._masks:
            let_go(self.model)
            hold(self._masks)
        steps = self.params.get("steps")
        if steps:
            self._advance((self._epoch + (batch + 1) / steps) / self.params["epochs"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Report; and look at the network, where the number of steps is not known."""
        self._advance((epoch + 1) / self.params["epochs"])
        if logs is not None:
            logs["multiply_adds_fraction"] = self._fitter.share(self._fitter.reader.state())

    def on_train_end(self, logs: Any = None) -> None:
        """Meet the target also where the training stopped early."""
        self._advance(1.0)
        self._set_alphas(self._steering.alpha)
        self.reached = self._fitter.exact_share(read_plan(self._fitter.found, self.tau))

    # --- steering ---

    def _advance(self, progress: float) -> None:
        """Look LOOKS times in a training, the last time at its end."""
        due = math.floor(progress * LOOKS + ROUNDING)
        if due <= self._looks:
            return
        self._looks = due
        passed = sum(progress >= share - ROUNDING for share in CHECKS)
        check, self._checks = passed > self._checks, passed
        let_go(self.model)
        if not self._arrived:
            self._look(progress, check)
        elif check:
            self._cut_again()

    def _look(self, progress: float, check: bool) -> None:
        """Steer alpha, or cut if the target is near or time is up."""
        state = self._fitter.reader.state()
        share = self._fitter.share(state)
        if check or share <= self.target + self.tolerance:
            share = self._fitter.corrected_share(state)
        if share > self.target + self.tolerance and progress < LATEST:
            coming = self._fitter.coming_share(state)
            self._set_alphas(self._steering.alpha_at(progress, coming))
            self._last = state
        else:
            self._arrive(progress, share)

    def _arrive(self, progress: float, share: float) -> None:
        if share < self.target:
            # Kernels before a ReLU that have died do not come back by themselves.
            self._fitter.reader.assign(self._last)
        self._arrived, self._last = True, self._fitter.reader.state()
        self._set_alphas(0.0)
        # Somewhat above the target, for later cuts can only take away; unless this is the last.
        self._cut(self.target + self.tolerance / 2 if progress < CHECKS[-2] else self.target)

    def _cut_again(self) -> None:
        """Biases have moved and left other constants; with them surgery leaves another share."""
        share = self._fitter.corrected_share(self._fitter.reader.state())
        if abs(share - self.target) <= self.tolerance / 2:
            return
        if share < self.target:
            self._fitter.give_back(self._plan, self._last)
        self._cut(self.target)

    def _cut(self, target: float) -> None:
        self._plan, threshold = self._fitter.cut(target, self.tolerance / 2)
        self.threshold = max(threshold, self.threshold or 0.0)
        self._masks = self._fitter.apply(self._plan)

    def _set_alphas(self, factor: float) -> None:
        for alpha, start in self._alphas:
            alpha.assign(start * factor)


@dataclass
class _Steering:
    """From the share of the multiply-adds to alpha, in units of its value at the start."""

    target: float
    alpha: float = 1.0
    _level: float = 0.0

    def planned(self, progress: float) -> float:
        """The share that is planned after some share of the training."""
        way = (progress - WARM_UP) / (ARRIVAL - WARM_UP)
        return float(self.target ** min(max(way, 0.0), 1.0))

    def alpha_at(self, progress: float, share: float) -> float:
        """Alpha until the next look."""
        if progress < WARM_UP:
            return progress / WARM_UP
        error = math.log(max(share, ROUNDING) / self.planned(progress))
        error = min(max(error, -LARGEST_ERROR), LARGEST_ERROR)
        self._level += INTEGRAL * error if share < UNTOUCHED else SEARCH
        self.alpha = math.exp(self._level + PROPORTIONAL * error)
        return self.alpha


def check_target(argument: str, value: float) -> float:
    """The value as a float, if it is a number in (0, 1].

    Raises:
        ValueError: It is none.
    """
    if not 0 < nonnegative(argument, value) <= 1:
        raise ValueError(f"{argument}: expected a number in (0, 1]. Received: {value!r}")
    return float(value)


def _starts(regularizers: Iterable[GroupSparsityRegularizer]) -> list[tuple[keras.Variable, float]]:
    """The alphas of some regularizers, each once, with their values."""
    variables = {id(r.alpha): r.alpha for r in regularizers}
    found = [(v, float(keras.ops.convert_to_numpy(v))) for v in variables.values()]
    if not found or min(start for _, start in found) <= 0:
        raise ValueError(
            "TargetMultiplyAdds: expected a model with regularizers of keras_structsparse (see "
            f"kss.attach) and alpha > 0. Received alpha: {[start for _, start in found] or 'none'}"
        )
    return found
