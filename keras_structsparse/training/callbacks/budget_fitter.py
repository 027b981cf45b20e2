"""Measure a network in training, and remove groups until a share of its multiply-adds is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.kernel_axes import kernel_of, plain_shape, stored
from keras_structsparse.graph.nested_groups import masked_kernel
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.group_selection import LayerGroups, Sizes
from keras_structsparse.profiling.kernel_reader import KernelReader, KernelState
from keras_structsparse.profiling.work_share import WorkShare, plan_of
from keras_structsparse.regularizers.attachment import regularizers_of
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.thresholds import lengths, threshold_norms

Mask = tuple[keras.Variable, Any]
"""A variable, and a tensor of ones and zeros of its shape."""

SMALL = 0.1
"""Groups with norms up to this share of the network's root mean square are about to vanish."""

TINY = float(np.finfo("float32").tiny)


class BudgetFitter:
    """A model in training, and the share of its multiply-adds that surgery would leave.

    Shares are relative to the multiply-adds of the unpruned model. They are estimates, corrected by
    the last network that was rebuilt. Groups are removed only from kernels that are trained and
    have a regularizer; what is frozen is never changed.

    Args:
        model: A functional or built Sequential model.
        tau: The threshold on group norms.
        realize: As for :func:`prune`.

    Raises:
        ModelError: The model has no graph, or the size of a feature map is not known.
    """

    def __init__(self, model: keras.Model, tau: float, realize: str = "auto") -> None:
        self.model, self.tau = model, tau
        self.found = PrunableLayers.of(model)
        self.reader = KernelReader(self.found)
        self.regularizers = {
            name: regularizer
            for name, regularizer in regularizers_of(self.found).items()
            if kernel_of(self.reader.layers[name]).trainable
        }
        self._share = WorkShare(self.found, realize)
        state = self.reader.state()
        self._lengths = {
            name: _root_mean_square(self._norms(name, state, "kernel"))
            for name in self.regularizers
        }

    def share(self, state: KernelState) -> float:
        """Estimate the share that surgery would leave."""
        return self._share.estimate(self.reader.sizes(state, self.tau))

    def corrected_share(self, state: KernelState) -> float:
        """Compute the share that surgery would leave by rebuilding the network."""
        return self._share.rebuilt(self.reader.sizes(state, self.tau))

    def coming_share(self, state: KernelState) -> float:
        """Estimate the share without the groups that have become small and may vanish next.

        Norms are compared with those at the start, because they shrink long before they are 0, and
        differently in each layer.
        """
        norms = {name: self._relative_norms(name, state) for name in self.regularizers}
        small = SMALL * _root_mean_square(np.concatenate([own[-1] for own in norms.values()]))
        sizes = self.reader.sizes(state, self.tau)
        for name, own in norms.items():
            reached = self.reader.reached(name, self.regularizers[name].groups)
            sizes[name] = np.minimum(sizes[name], reached[(own > small).sum(axis=0)])
        return self._share.estimate(sizes)

    def exact_share(self, plan: Plan) -> float:
        """Compute the share that surgery leaves under a plan; 0 if the network would be dead."""
        return self._share.exact(plan)

    def select(self, target: float, slack: float) -> tuple[Plan, float]:
        """Find a plan that leaves ``target ± slack``, or comes as near to it as it can.

        Args:
            target: The share to leave.
            slack: Largest accepted distance from the target.

        Returns:
            The plan, and the largest removed norm, divided by the layer's share of alpha.
        """
        state = self.reader.state()
        now = self.reader.sizes(state, self.tau)
        layers = {name: self._groups(name, state, now) for name in self.regularizers}
        found = self._share.select(layers, now, target, slack)
        return plan_of(found.sizes), found.threshold

    def remove(self, plan: Plan) -> list[Mask]:
        """Set the groups that a plan removes to zero in the effective kernels.

        As in the proximal step, gamma takes the new length and the kernel keeps its own.

        Returns:
            Masks, with which :func:`reapply` sets the same entries to zero again.
        """
        found = []
        for name, sizes in self._trained(plan).items():
            kernel, gamma = self.reader.layer_state(name)
            kept = masked_kernel(kernel, sizes)
            if gamma is not None and self._is_fixed(name):
                gamma = None
            if gamma is not None:
                ratio = lengths(kept) / np.maximum(lengths(kernel), TINY)
                kept = np.where(ratio > 0, kept / np.where(ratio > 0, ratio, 1.0), kernel)
                gamma = gamma * ratio
            self.reader.assign({name: (kept, gamma)})
            found += self._masks(name, sizes)
        return found

    def restore(self, plan: Plan, state: KernelState) -> None:
        """Undo a removal: the plan's removed entries get the values of an earlier state."""
        for name, sizes in self._trained(plan).items():
            kernel, gamma = self.reader.layer_state(name)
            before, scale = state[name]
            kept = masked_kernel(np.ones(kernel.shape), sizes) > 0
            alive = np.asarray(sizes) > 0
            gamma = None if gamma is None else np.where(alive, gamma, scale)
            self.reader.assign({name: (np.where(kept, kernel, before), gamma)})

    def restart(self, state: KernelState) -> None:
        """Give the kernels that are trained, and their gammas, the values of an earlier state."""
        self.reader.assign(
            {
                n: (k, None if self._is_fixed(n) else g)
                for n, (k, g) in state.items()
                if n in self.regularizers
            }
        )

    def _trained(self, plan: Plan) -> Mapping[str, Sequence[int]]:
        return {name: own for name, own in plan.sizes.items() if name in self.regularizers}

    def _is_fixed(self, name: str) -> bool:
        """Whether the normalisation behind a layer is frozen."""
        return name in self.reader.norms and not self.reader.norms[name].gamma.trainable

    def _norms(self, name: str, state: KernelState, groups: str) -> Array:
        """The group norms (groups, kernels) that the penalty of a layer acts on."""
        kernel, gamma = state[name]
        fixed = self.regularizers[name].fixed_scale
        if fixed is None:
            return threshold_norms(kernel, gamma, groups)
        return threshold_norms(kernel * keras.ops.convert_to_numpy(fixed), None, groups)

    def _masks(self, name: str, sizes: Sequence[int]) -> list[Mask]:
        """Masks of the kept entries, for those variables of which some entries are removed."""
        layer, gamma = self.reader.layers[name], self.reader.norms.get(name)
        kernel = kernel_of(layer)
        entries = masked_kernel(np.ones(plain_shape(layer)), sizes)
        found = [(kernel, stored(layer, entries))]
        if gamma is not None and not self._is_fixed(name):
            # A kernel with the scale 0 is removed; its direction is not changed.
            alive = entries.any(axis=tuple(range(entries.ndim - 1)))
            found = [(kernel, stored(layer, np.where(alive, entries, 1.0))), (gamma.gamma, alive)]
        return [
            (v, keras.ops.convert_to_tensor(mask, v.dtype)) for v, mask in found if not mask.all()
        ]

    def _relative_norms(self, name: str, state: KernelState) -> Array:
        """Norms of a layer's groups, divided by the root mean square of its kernels at start."""
        norms = self._norms(name, state, self.regularizers[name].groups)
        return norms / (self._lengths[name] or 1.0)

    def _groups(self, name: str, state: KernelState, now: Sizes) -> LayerGroups:
        """The groups of the layer's regularizer, with norms divided by its share of alpha."""
        regularizer = self.regularizers[name]
        norms = self._norms(name, state, regularizer.groups)
        reached = self.reader.reached(name, regularizer.groups)
        return LayerGroups(norms / (regularizer.weight or TINY), reached, now[name])


def _root_mean_square(norms: Array) -> float:
    return float(np.sqrt(np.mean(np.square(norms))))


def reapply(masks: Iterable[Mask]) -> None:
    """Set removed entries, which a training step may have changed, to zero again."""
    for variable, mask in masks:
        variable.assign(variable * mask)
