"""GradualPruning: a callback that removes groups little by little until a share is left."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Array
from keras_structsparse.graph.kernel_axes import (
    groups_of,
    kernel_of,
    plain_kernel,
    plain_shape,
    stored,
)
from keras_structsparse.graph.nested_groups import masked_kernel
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.group_prices import SINGLE, Blocks, JointKernels, priced
from keras_structsparse.profiling.group_selection import LayerGroups, Sizes, select_down_to
from keras_structsparse.profiling.kernel_reader import reached_sizes
from keras_structsparse.profiling.work_share import WorkShare, plan_of
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.thresholds import lengths, threshold_norms
from keras_structsparse.training.compensation import Compensation
from keras_structsparse.training.grouped_kernels import GroupedKernel
from keras_structsparse.training.measured_saliency import Measured
from keras_structsparse.training.optimizer.masked import Masked

UPDATES = 40
"""Number of times in the training that groups are removed."""

JOINT = "joint kernels/"
"""The key of the losses without joint kernels; no layer has such a name."""

MEMORY = 0.5
"""The weight of the measurements before the last one."""

TINY = float(np.finfo("float32").tiny)


def planned_share(progress: float, target: float) -> float:
    """The share that is left after a part of the training: a cubic fall (Zhu & Gupta 2017).

    Most is removed early, when there is most to choose from and most time to recover.

    Args:
        progress: The part of the training that is over, in [0, 1].
        target: The share at the end.

    Examples:
        >>> [round(planned_share(p, 0.2), 3) for p in (0.0, 0.5, 1.0)]
        [1.0, 0.3, 0.2]
    """
    return target + (1.0 - target) * (1.0 - progress) ** 3


def present_sizes(found: PrunableLayers, groups: str) -> Sizes:
    """The sizes of the kernels as they are: nonzero supports.

    Args:
        found: The prunable layers of the model.
        groups: "half_ring", "ring" or "kernel".

    Returns:
        The sizes (kernels,) by name of the layer.
    """
    sizes = {}
    for name, layer in found.layers.items():
        norms = threshold_norms(plain_kernel(layer), None, groups_of(layer, groups))
        sizes[name] = reached_sizes(found, name, groups)[(norms > 0).sum(axis=0)]
    return sizes


class GradualPruning(keras.callbacks.Callback):
    """Remove the groups that the loss needs least for what they cost, little by little.

    40 times in a training, what the loss would lose without each group is measured, and the groups
    with the smallest loss for each unit of their cost are set to zero, so that the share falls as
    :func:`planned_share` says. At the end of the training the share is met exactly, as far as there
    are groups to remove.

    Args:
        kernels: The kernels with groups that may be removed, by name of the layer.
        optimizer: The optimizer that the model is compiled with, with masks for them.
        measure: Measures the saliency; takes how often groups were removed before.
        share: Counts the cost.
        target: The share to leave, in (0, 1].
        groups: "half_ring", "ring" or "kernel".
        joint: Kernels that write one channel together, which may be removed together.
        compensation: Makes up for removed entries, as far as it can; None not to.
        losses: Those of a training that is continued.
        blocks: How many whole kernels are removed together.
        last: The last removal, from the groups and the present sizes to the sizes that are left;
            None for one that leaves the target.

    Attributes:
        sizes: The present sizes of the kernels, by layer.
        losses: What the loss would lose without each group (groups, kernels), by layer, and without
            joint kernels, as `JOINT`: averages of measurements.
    """

    def __init__(
        self,
        kernels: Mapping[str, GroupedKernel],
        optimizer: Masked,
        measure: Callable[[int], Measured],
        share: WorkShare,
        target: float,
        groups: str = "half_ring",
        joint: Sequence[JointKernels] = (),
        compensation: Compensation | None = None,
        losses: Mapping[str, Array] | None = None,
        blocks: Blocks = SINGLE,
        last: Callable[[Mapping[str, LayerGroups], Sizes], Sizes] | None = None,
    ) -> None:
        super().__init__()
        self.found, self.kernels, self.share = share.found, kernels, share
        self._optimizer, self._measure = optimizer, measure
        self._compensation = compensation
        self.target, self.groups, self.joint = target, groups, joint
        self.losses: dict[str, Array] = dict(losses or {})
        self._blocks = blocks
        self._last = last or (lambda layers, sizes: share.reduce(layers, sizes, target))
        self.sizes = present_sizes(share.found, groups)
        self._epoch = self._updates = 0

    @property
    def plan(self) -> Plan:
        """The present sizes as a plan."""
        return plan_of(self.sizes)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Store the index of the epoch, and correct the estimates of the cost.

        They depend on the network alone, not on when the training began or was continued.
        """
        self.share.rebuilt(self.sizes)
        self._epoch = epoch
        self._updates = math.floor(epoch / self.params["epochs"] * UPDATES)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Remove groups if that is due."""
        steps = self.params.get("steps")
        if steps:
            self._advance((self._epoch + (batch + 1) / steps) / self.params["epochs"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remove groups if that is due; write the entry `share` into the logs."""
        self._advance((epoch + 1) / self.params["epochs"])
        if logs is not None:
            logs["share"] = self.share.estimate(self.sizes)

    def on_train_end(self, logs: Any = None) -> None:
        """Remove what is left to remove, if another callback ended the training early."""
        self._advance(1.0)

    def _advance(self, progress: float) -> None:
        due = math.floor(progress * UPDATES + 1e-6)
        if due <= self._updates:
            return
        self._updates = due
        planned = planned_share(min(progress, 1.0), self.target)
        if due < UPDATES and self.share.estimate(self.sizes) <= planned:
            return
        _keras_compat.sync_jax_state(self.model)
        layers = self._priced()
        if due < UPDATES:
            left = select_down_to(
                layers, lambda own: self.share.estimate({**self.sizes, **own}), planned
            ).sizes
            self._remove({**self.sizes, **left})
        else:
            self._remove(self._last(layers, self.sizes))

    def _priced(self) -> dict[str, LayerGroups]:
        """The groups in order. The last measurement has most weight in the averages."""
        measured = self._measure(self._updates)
        for name, lost in {**measured.saliency.second, JOINT: measured.joint}.items():
            before: Array = self.losses.get(name, lost)
            self.losses[name] = MEMORY * before + (1.0 - MEMORY) * lost
        alone = {name: own for name, own in self.losses.items() if name != JOINT}
        joint = dict(zip(self.joint, self.losses[JOINT].tolist(), strict=True))
        return priced(self.share, alone, self.sizes, self.groups, joint, self._blocks)

    def _remove(self, sizes: Sizes) -> None:
        changed: dict[str, Array] = {}
        for name, own in self.kernels.items():
            if np.array_equal(sizes[name], self.sizes[name]):
                continue
            layer = self.found.layers[name]
            kernel = changed[name] = plain_kernel(layer).copy()
            kept = masked_kernel(kernel, sizes[name].tolist())
            entries = masked_kernel(np.ones(plain_shape(layer), kernel.dtype), sizes[name].tolist())
            masks = {id(own.kernel): stored(layer, entries)}
            if self._compensation is not None:
                self._compensation.shifts.move(name, kernel - kept)
            if own.gamma is not None:
                ratio = lengths(kept) / np.maximum(lengths(kernel), TINY)
                own.gamma.assign(keras.ops.convert_to_numpy(own.gamma) * ratio)
                masks[id(own.gamma)] = (np.asarray(sizes[name]) > 0).astype(kernel.dtype)
            if own.beta is not None:  # Behind a gate the constant must be 0.
                masks[id(own.beta)] = (np.asarray(sizes[name]) > 0).astype(kernel.dtype)
                own.beta.assign(keras.ops.convert_to_numpy(own.beta) * masks[id(own.beta)])
            kernel_of(layer).assign(stored(layer, kept))
            self._optimizer.set_masks(masks)
        before, self.sizes = self.sizes, {name: np.asarray(size) for name, size in sizes.items()}
        if self._compensation is not None:
            self._compensation.reconstruction.correct(changed, before, self.sizes)
