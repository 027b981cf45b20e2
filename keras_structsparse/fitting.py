"""Fit a network in training to a share of its multiply-adds: measure it, cut what is too much."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_structsparse.attachment import regularizers_of
from keras_structsparse.cutting import LayerGroups, Sizes, cut
from keras_structsparse.errors import DeadNetworkError
from keras_structsparse.estimates import remaining
from keras_structsparse.plans import Plan, masked_kernel
from keras_structsparse.profiles import profile
from keras_structsparse.readings import Reader, State
from keras_structsparse.surgery import prune
from keras_structsparse.thresholds import effective_norms

Array = Any

ROUNDS = 6
"""Networks that are rebuilt at most for one cut."""

TINY = float(np.finfo("float32").tiny)


class Fitter:
    """A model in training, and what surgery would leave of its multiply-adds.

    Shares are estimates, in units of the model's multiply-adds, and corrected by the last network
    that was rebuilt.

    Args:
        model: A functional or built Sequential model.
        tau: The threshold on group norms.

    Raises:
        ModelError: The model has no graph, or the size of a map is open.
    """

    def __init__(self, model: keras.Model, tau: float) -> None:
        self.model, self.tau = model, tau
        self.reader = Reader(model)
        self.regularizers = regularizers_of(model)
        self.base = profile(model).multiply_adds
        self._correction = 1.0

    def share(self, state: State) -> float:
        """The share that surgery would leave."""
        return self._estimate(self.reader.sizes(state, self.tau))

    def corrected_share(self, state: State) -> float:
        """The same, by rebuilding the network."""
        return self._rebuilt(self.reader.sizes(state, self.tau))

    def coming_share(self, before: State, state: State, looks: float) -> float:
        """The share some looks later, if norms that shrink go on as since the look before."""
        sizes = {}
        for name, own in state.items():
            norms = effective_norms(*own, "half_ring")
            shrunk = np.minimum(norms - effective_norms(*before[name], "half_ring"), 0.0)
            count = (norms + looks * shrunk > self.tau).sum(axis=0)
            sizes[name] = self.reader.reached(name, "half_ring")[count]
        return self._estimate(sizes)

    def exact_share(self, plan: Plan) -> float:
        """The share that surgery leaves; 0 of a network that it refuses as dead."""
        try:
            return profile(prune(self.model, plan)).multiply_adds / self.base
        except DeadNetworkError:
            return 0.0

    def cut(self, target: float, slack: float) -> tuple[Plan, float]:
        """A plan that leaves ``target ± slack``, or comes as near as it can.

        Args:
            target: The share to leave.
            slack: How far from it is near enough.

        Returns:
            The plan, and the largest norm, over the layer's share of alpha, that it removes.
        """
        state = self.reader.state()
        now = self.reader.sizes(state, self.tau)
        layers = {name: self._groups(name, state, now) for name in self.regularizers}
        tried = []
        for _ in range(ROUNDS):
            found = cut(layers, lambda left: self._estimate({**now, **left}), target, slack)
            sizes = {**now, **found.sizes}
            share = self._rebuilt(sizes)
            tried.append((abs(share - target), found.threshold, sizes))
            if abs(share - target) <= slack:
                break
        _, threshold, sizes = min(tried, key=lambda each: each[0])
        return _plan(sizes), threshold

    def apply(self, plan: Plan) -> None:
        """Take what a plan removes away from the effective kernels.

        As in the proximal step, gamma takes the new length and the kernel keeps its own.
        """
        for name, sizes in plan.sizes.items():
            kernel, gamma = self.reader.layer_state(name)
            kept = masked_kernel(kernel, sizes)
            if gamma is not None:
                ratio = _lengths(kept) / np.maximum(_lengths(kernel), TINY)
                kept = np.where(ratio > 0, kept / np.where(ratio > 0, ratio, 1.0), kernel)
                gamma = gamma * ratio
            self.reader.assign({name: (kept, gamma)})

    def _estimate(self, sizes: Sizes) -> float:
        left = sum(remaining(self.reader.graph, sizes).values())
        return self._correction * left / self.base

    def _rebuilt(self, sizes: Sizes) -> float:
        """The exact share; estimates are corrected by it from now on."""
        share, estimate = self.exact_share(_plan(sizes)), self._estimate(sizes)
        if share > 0 and estimate > 0:
            self._correction *= share / estimate
        return share

    def _groups(self, name: str, state: State, now: Sizes) -> LayerGroups:
        """The groups that the layer's regularizer has, with norms over its share of alpha."""
        regularizer = self.regularizers[name]
        norms = effective_norms(*state[name], regularizer.groups)
        reached = self.reader.reached(name, regularizer.groups)
        return LayerGroups(norms / (regularizer.weight or TINY), reached, now[name])


def _plan(sizes: Sizes) -> Plan:
    return Plan({name: own.tolist() for name, own in sizes.items()})


def _lengths(kernel: Array) -> Array:
    return np.sqrt(np.square(kernel).sum(axis=tuple(range(kernel.ndim - 1))))
