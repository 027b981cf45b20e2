"""TargetMultiplyAdds: a callback that controls alpha to reach a share of the multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras

from keras_structsparse import _keras_compat
from keras_structsparse._validation import fraction, nonnegative
from keras_structsparse.graph.channels.splitting import check_realize
from keras_structsparse.profiling.kernel_reader import KernelState
from keras_structsparse.regularizers.alpha import distinct_alphas
from keras_structsparse.regularizers.base import GroupSparsityRegularizer
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.plans import plan as read_plan
from keras_structsparse.training.callbacks.budget_fitter import BudgetFitter, Mask, reapply
from keras_structsparse.training.callbacks.weight_keepers import check_beside_target

UPDATES = 64
"""Number of times in a training that the multiply-adds are estimated and alpha is set."""

WARM_UP, ARRIVAL, LATEST = 0.1, 0.45, 0.5
"""Shares of the training: alpha rises from 0 until the first; the planned share reaches the target
at the second; groups are removed at the third at the latest."""

CHECKS = (0.25, 0.6, 0.75, 0.9, 1.0)
"""Shares of the training after which the network is rebuilt, to correct estimate or removal."""

PROPORTIONAL, INTEGRAL, LARGEST_ERROR = 1.0, 0.2, 0.5
"""alpha = level * exp(PROPORTIONAL e); log level grows by INTEGRAL e an update; e is clipped."""

SEARCH, UNTOUCHED = 0.2, 0.99
"""While the estimated share is above UNTOUCHED, alpha is too low: log level grows by SEARCH."""

ROUNDING = 1e-6


class TargetMultiplyAdds(keras.callbacks.Callback):
    """Control alpha so that the network ends with a given share of its multiply-adds.

    The share is that of the multiply-adds (10) of ``kss.prune(model, tau=tau, realize=realize)``.
    The planned share falls geometrically from 1 to the target over the first 45 % of the training,
    and alpha is controlled by the ratio of the estimated share to the planned one. When the target
    is near, and at half of the training at the latest, the groups with the smallest norms are
    removed until the target is met. After that alpha is 0 and removed groups are kept at zero, so
    the remaining weights are trained without bias.

    Attach a regularizer to the model and compile it with :class:`Proximal`. The search starts at
    the value of alpha and leaves alpha at the last value of the search; several alphas keep their
    ratios. Frozen layers are never changed. Place the callback before callbacks that write logs: it
    adds the entry ``multiply_adds_fraction``. Callbacks and averages that bring back weights from
    before the target was met are refused, each with what to do instead.

    Args:
        target: Multiply-adds at the end over those of the unpruned model, in (0, 1].
        tau: The threshold on group norms with which the network will be pruned.
        tolerance: Largest distance of the final share from the target.
        realize: How layers with several kernel sizes are built, as for :func:`prune`. With
            "split", every kernel counts with its own size.

    Attributes:
        reached: The share at the end of the training; None before.
        threshold: The largest norm of a removed group, divided by the layer's share of alpha.

    Raises:
        ValueError: An argument is out of its range. When training starts: the model has no
            regularizer, alpha is 0, the model is already smaller than the target, or another
            callback or the optimizer keeps weights of other epochs.

    Examples:
        >>> budget = TargetMultiplyAdds(0.4)
        >>> # model.fit(x, y, epochs=20, callbacks=[budget])
        >>> # pruned = kss.prune(model, tau=1e-3)
    """

    def __init__(
        self, target: float, tau: float = 1e-3, tolerance: float = 0.02, realize: str = "auto"
    ) -> None:
        super().__init__()
        self.target = fraction("target", target)
        self.tau = nonnegative("tau", tau)
        self.tolerance = nonnegative("tolerance", tolerance)
        self.realize = check_realize(realize)
        self.reached: float | None = None
        self.threshold: float | None = None

    # --- methods that Keras calls ---

    def on_train_begin(self, logs: Any = None) -> None:
        """Read the network and check that the target can be reached."""
        check_beside_target(self, self.model)
        self._fitter = BudgetFitter(self.model, self.tau, self.realize)
        self._alphas = _initial_alphas(self._fitter.regularizers.values())
        self._steering = _Steering(self.target)
        self._epoch = self._updates = self._checks = 0
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
        """Store the index of the epoch; switch the penalty off if the target is met."""
        self._epoch = epoch
        if self._arrived:
            self._set_alphas(0.0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keep removed groups at zero; update alpha if an update is due."""
        if self._masks:
            _keras_compat.sync_jax_state(self.model)
            reapply(self._masks)
        steps = self.params.get("steps")
        if steps:
            self._advance((self._epoch + (batch + 1) / steps) / self.params["epochs"])
            if batch + 1 >= steps:
                self._show_alpha()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the log entry; update alpha here if the number of steps is not known."""
        self._advance((epoch + 1) / self.params["epochs"])
        self._show_alpha()
        if logs is not None:
            logs["multiply_adds_fraction"] = self._fitter.share(self._fitter.reader.state())

    def on_train_end(self, logs: Any = None) -> None:
        """Meet the target, also if the training was stopped early."""
        self._advance(1.0)
        self._set_alphas(self._steering.alpha)
        self.reached = self._fitter.exact_share(read_plan(self._fitter.found, self.tau))

    # --- control of alpha ---

    def _advance(self, progress: float) -> None:
        """Update UPDATES times in a training, the last time at its end."""
        due = math.floor(progress * UPDATES + ROUNDING)
        if due <= self._updates:
            return
        self._updates = due
        passed = sum(progress >= share - ROUNDING for share in CHECKS)
        check, self._checks = passed > self._checks, passed
        _keras_compat.sync_jax_state(self.model)
        if not self._arrived:
            self._update(progress, check)
        elif check:
            self._correct_removal()

    def _update(self, progress: float, check: bool) -> None:
        """Set alpha, or remove groups if the target is near or half of the training is over."""
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
            # Too much has vanished: removed kernels before a ReLU would not grow again.
            self._fitter.restart(self._last)
        self._arrived, self._last = True, self._fitter.reader.state()
        self._set_alphas(0.0)
        # Slightly above the target, as later corrections remove more; except for the last one.
        self._remove_to(self.target + self.tolerance / 2 if progress < CHECKS[-2] else self.target)

    def _correct_removal(self) -> None:
        """Correct the share, which depends on constant channels that change with the biases."""
        share = self._fitter.corrected_share(self._fitter.reader.state())
        if abs(share - self.target) <= self.tolerance / 2:
            return
        if share < self.target:
            self._fitter.restore(self._plan, self._last)
        self._remove_to(self.target)

    def _remove_to(self, target: float) -> None:
        self._plan, threshold = self._fitter.select(target, self.tolerance / 2)
        self.threshold = max(threshold, self.threshold or 0.0)
        self._masks = self._fitter.remove(self._plan)

    def _show_alpha(self) -> None:
        """Between epochs alpha has its last value: in checkpoints, kernels must not grow again."""
        if self._arrived:
            self._set_alphas(self._steering.alpha)

    def _set_alphas(self, factor: float) -> None:
        _keras_compat.sync_jax_state(self.model)
        for alpha, start in self._alphas:
            alpha.assign(start * factor)


@dataclass
class _Steering:
    """The controller: from the share of the multiply-adds to alpha, relative to its first value."""

    target: float
    alpha: float = 1.0
    _level: float = 0.0

    def planned(self, progress: float) -> float:
        """The planned share of the multiply-adds after a share `progress` of the training."""
        way = (progress - WARM_UP) / (ARRIVAL - WARM_UP)
        return float(self.target ** min(max(way, 0.0), 1.0))

    def alpha_at(self, progress: float, share: float) -> float:
        """Alpha until the next update."""
        if progress < WARM_UP:
            return progress / WARM_UP
        error = math.log(max(share, ROUNDING) / self.planned(progress))
        error = min(max(error, -LARGEST_ERROR), LARGEST_ERROR)
        self._level += INTEGRAL * error if share < UNTOUCHED else SEARCH
        self.alpha = math.exp(self._level + PROPORTIONAL * error)
        return self.alpha


def _initial_alphas(
    regularizers: Iterable[GroupSparsityRegularizer],
) -> list[tuple[keras.Variable, float]]:
    """The distinct alphas of some regularizers, with their values."""
    found = [(v, float(keras.ops.convert_to_numpy(v))) for v in distinct_alphas(regularizers)]
    if not found or min(start for _, start in found) <= 0:
        raise ValueError(
            "TargetMultiplyAdds: expected a model with regularizers of keras_structsparse (see "
            f"kss.attach) and alpha > 0. Received alpha: {[start for _, start in found] or 'none'}"
        )
    return found
