"""The share of a network's cost that surgery would leave, and the groups to remove for a share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from keras_structsparse.errors import DeadNetworkError
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.estimate import Estimate
from keras_structsparse.profiling.group_selection import (
    GroupSelection,
    LayerGroups,
    Sizes,
    above,
    kept_alive,
    select_down_to,
    select_groups,
    thresholds,
)
from keras_structsparse.profiling.profile import Profile, profile
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan

UNITS = ("multiply_adds", "params")

ROUNDS = 6
"""Largest number of networks that are rebuilt for one selection."""

TINY = float(np.finfo("float32").tiny)


class WorkShare:
    """The share of a network's multiply-adds, or of its parameters, that surgery would leave.

    Estimates take milliseconds. They are corrected by the last network that was rebuilt.

    Args:
        found: The prunable layers of the model. They stay valid while the model is trained.
        realize: As for :func:`keras_structsparse.prune`.
        unit: "multiply_adds" or "params".

    Attributes:
        base: The cost of the unpruned model.
        near: A share below the target by less than this part of it is near enough.

    Raises:
        ModelError: The size of a map is open.
    """

    near = 1e-3

    def __init__(
        self, found: PrunableLayers, realize: str = "auto", unit: str = "multiply_adds"
    ) -> None:
        self.found, self.realize, self.unit = found, realize, unit
        self.base = cost(profile(found), unit)
        self.counting = Estimate.of(found, realize, unit)
        self._correction = 1.0

    def work(self, sizes: Sizes) -> float:
        """The estimate without a correction."""
        return sum(self.counting.remaining(sizes).values()) / self.base

    def estimate(self, sizes: Sizes) -> float:
        """Estimate the share that surgery would leave.

        Args:
            sizes: The sizes of the kernels, by layer; layers that are not named do not change.
        """
        return self._correction * self.work(sizes)

    def exact(self, plan: Plan) -> float:
        """Compute the share that surgery leaves under a plan; 0 if the network would be dead."""
        try:
            return cost(profile(prune(self.found, plan, realize=self.realize)), self.unit) / (
                self.base
            )
        except DeadNetworkError:
            return 0.0

    def rebuilt(self, sizes: Sizes) -> float:
        """Compute the exact share, and correct later estimates by it."""
        share = self.exact(plan_of(sizes))
        self.correct(share, sizes)
        return share

    def correct(self, share: float, sizes: Sizes) -> None:
        """Correct later estimates: with these sizes, the share is known."""
        work = self.work(sizes)
        if share > 0 and work > 0:
            self._correction = share / work

    def select(
        self, layers: Mapping[str, LayerGroups], now: Sizes, target: float, slack: float
    ) -> GroupSelection:
        """Find sizes that leave ``target ± slack``, or come as near to it as they can.

        Networks are rebuilt until the share is right.

        Args:
            layers: The groups that may be removed, by layer.
            now: The present sizes of all layers.
            target: The share to leave.
            slack: Largest accepted distance from the target.

        Returns:
            The sizes of all layers, and the largest removed norm.
        """
        factor, aim, bounds = self._correction, target, (0.0, 2.0)
        tried: list[tuple[float, GroupSelection]] = []
        for _ in range(ROUNDS):
            found = select_groups(
                layers, lambda left: factor * self.work({**now, **left}), aim, slack / 2
            )
            sizes: Sizes = {**now, **found.sizes}
            share = self.rebuilt(sizes)
            tried.append((share, GroupSelection(sizes, found.threshold)))
            if abs(share - target) <= slack or (share < target and _same(sizes, now)):
                break
            bounds = (bounds[0], aim) if share > target else (aim, bounds[1])
            aim = _between(aim * target / max(share, TINY), *bounds)
        share, best = min(tried, key=lambda each: abs(each[0] - target))
        self.correct(share, best.sizes)
        return best

    def reduce(self, layers: Mapping[str, LayerGroups], now: Sizes, target: float) -> Sizes:
        """Remove groups in order until at most a share is left, as far as they reach.

        Networks are rebuilt until the share is right: below the target by less than :attr:`near`,
        or by no more than the last removed group saves.

        Args:
            layers: The groups that may be removed, by layer.
            now: The present sizes of all layers.
            target: The share to leave.

        Returns:
            The sizes of all layers.
        """
        # Lower than the target, which estimates may miss.
        layers = kept_alive(layers, lambda own: self.estimate({**now, **own}), target / 2)
        order = thresholds(layers)
        low, high, best, least = -1, len(order), now, False
        while high - low > 1:  # At order[low] the share is too large; at order[high] it is not.
            aim = select_down_to(layers, lambda own: self.estimate({**now, **own}), target)
            guess = int(np.clip(np.searchsorted(order, aim.threshold), low + 1, high - 1))
            found: Sizes = {**now, **above(layers, order[guess])}
            share = self.rebuilt(found)
            if share > target:
                low = guess
                best = best if least else found
            else:
                high = guess
                best, least = (found, True) if share > 0 else (best, least)
            if least and share <= target and share >= (1 - self.near) * target:
                break
        return best


def cost(profiled: Profile, unit: str) -> int:
    """The multiply-adds or the parameters of a network.

    Args:
        profiled: Its profile.
        unit: "multiply_adds" or "params".
    """
    return int(getattr(profiled, unit))


def plan_of(sizes: Sizes) -> Plan:
    """The plan with these sizes."""
    return Plan({name: own.tolist() for name, own in sizes.items()})


def _same(left: Sizes, right: Sizes) -> bool:
    return all(np.array_equal(left[name], right[name]) for name in left)


def _between(value: float, low: float, high: float) -> float:
    """The value, or the middle of the bounds if it is outside them."""
    return value if low < value < high else (low + high) / 2
