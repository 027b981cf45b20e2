"""Which widths a network may have so that it takes a share of the time: by measurement.

Time does not follow the multiply-adds: runtimes compute channels in blocks, and some are slow for
widths between the multiples. So networks are rebuilt, exported and timed in turns with the one
before, and whole blocks of kernels are removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.errors import DeadNetworkError
from keras_structsparse.export.runtimes import Runtime
from keras_structsparse.graph.kernel_axes import plain_shape
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.group_prices import Blocks, JointKernels, priced
from keras_structsparse.profiling.group_selection import LayerGroups, Sizes
from keras_structsparse.profiling.latency import timed_in_turns
from keras_structsparse.profiling.work_share import WorkShare, plan_of
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan

BLOCKS = (1, 8, 16)
"""Multiples that widths may be: those of runtimes with registers of so many numbers."""

REPEATS = 40
"""Timed runs of each network, at most: as many as take a second."""


class LatencyShare(WorkShare):
    """The share of a network's latency that surgery would leave, as measured.

    Estimates follow the multiply-adds, and are corrected by the last network that was timed.

    Args:
        found: The prunable layers of the model.
        realize: As for :func:`keras_structsparse.prune`.
        runtime: Where the networks run.
        model: The network before.

    Attributes:
        before: The last measured latency of the network before, in milliseconds.
    """

    near = 0.02

    def __init__(
        self, found: PrunableLayers, realize: str, runtime: Runtime, model: keras.Model
    ) -> None:
        super().__init__(found, realize)
        self._runtime, self._run = runtime, runtime.started("before", model)
        self.before = 0.0
        self._known: dict[str, float] = {}

    def exact(self, plan: Plan) -> float:
        """Measure the share that surgery leaves under a plan; 0 if the network would be dead.

        A plan is measured once: how its network is built does not depend on the weights.
        """
        key = plan.to_json()
        if key not in self._known:
            try:
                self._known[key] = self.measured(prune(self.found, plan, realize=self.realize))
            except DeadNetworkError:
                self._known[key] = 0.0
        return self._known[key]

    def measured(self, pruned: keras.Model) -> float:
        """Measure the share of the time that a network takes.

        Args:
            pruned: The network.
        """
        runs = [self._run, self._runtime.started("after", pruned)]
        first = timed_in_turns(runs, 3).sum(axis=1).min()
        times = timed_in_turns(runs, int(np.clip(1.0 / max(first, 1e-6), 5, REPEATS)))
        before, after = (float(t) for t in np.median(times, axis=0))
        self.before = 1e3 * before
        return after / before


@dataclass(frozen=True)
class Goal:
    """What the removal of kernels heads for.

    Attributes:
        multiply_adds: The share of the multiply-adds with which the latency is about what it may
            be.
        blocks: How many kernels are removed together.
    """

    multiply_adds: float
    blocks: Blocks

    def to_json(self) -> Mapping[str, Any]:
        """The goal as JSON takes it."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The goal that :meth:`to_json` gave."""
        return cls(stored["multiply_adds"], Blocks(**stored["blocks"]))


def carriers_of(
    share: WorkShare, layers: Mapping[str, LayerGroups], sizes: Sizes
) -> dict[str, int]:
    """The constant kernels that surgery keeps in each layer if about half of its kernels go.

    Args:
        share: Rebuilds networks.
        layers: The groups of each layer that may be removed.
        sizes: The sizes of the kernels of all layers.
    """
    half = {}
    for name, own in layers.items():
        half[name] = np.array(own.sizes)
        half[name][np.argsort(own.norms[-1], kind="stable")[: len(own.sizes) // 2]] = 0
    pruned = prune(share.found, plan_of({**sizes, **half}), realize=share.realize)
    names = {layer.name for layer in pruned.layers}
    widths = {n: plain_shape(pruned.get_layer(n))[-1] for n in half if n in names}
    return {name: max(width - int((half[name] > 0).sum()), 0) for name, width in widths.items()}


def find_goal(
    share: LatencyShare,
    losses: Mapping[str, Array],
    sizes: Sizes,
    joint: Mapping[JointKernels, float],
    target: float,
) -> Goal:
    """Find the blocks with which a share of the time costs least.

    Args:
        share: Measures networks.
        losses: For each layer what the loss would lose without each kernel (1, kernels).
        sizes: The sizes of the kernels of all layers.
        joint: What the loss would lose without all kernels that write one channel.
        target: The share of the time.

    Returns:
        The goal; where no blocks reach the target, that of the fastest network.
    """
    found = []
    carriers = carriers_of(share, priced(share, losses, sizes, "kernel", joint), sizes)
    for size in BLOCKS:
        blocks = Blocks(size, carriers)
        layers = priced(share, losses, sizes, "kernel", joint, blocks)
        share.rebuilt(sizes)  # Estimates follow the last network.
        left = share.reduce(layers, sizes, target)
        time = share.exact(plan_of(left))
        lost = sum(float(own[-1, left[name] == 0].sum()) for name, own in losses.items())
        missed = max(time / target - 1.0 - share.near, 0.0)
        found.append(((missed, lost), Goal(share.work(left), blocks)))
    return min(found, key=lambda each: each[0])[1]
