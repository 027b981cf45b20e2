"""The base class of the regularizers: value, sub-gradient and proximal operator of a penalty."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import keras
import numpy as np
from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse._validation import nonnegative, one_of
from keras_structsparse.graph.nested_groups import GROUPS
from keras_structsparse.regularizers import effective_kernels, penalties
from keras_structsparse.regularizers._ops import constant
from keras_structsparse.regularizers.alpha import Alpha
from keras_structsparse.regularizers.coupling import CouplingSpec, NormOf
from keras_structsparse.regularizers.cross_layer import CrossLayerRegularizer
from keras_structsparse.regularizers.group_norms import group_norms
from keras_structsparse.regularizers.kernel_layouts import LAYOUTS
from keras_structsparse.regularizers.norm_factors import NORMS
from keras_structsparse.regularizers.prox import proximal_operator


class GroupSparsityRegularizer(CrossLayerRegularizer):
    """A penalty `alpha * weight * Omega` on the norms of groups of kernel entries.

    Subclasses set `_per`, the sum that Omega relaxes: `"layer"` for the width (12), `"kernel"` for
    the kernel sizes (21).
    """

    _per: ClassVar[str]

    def __init__(
        self,
        alpha: float,
        norm: str,
        groups: str,
        power: int,
        reweight: float,
        weight: float,
        scale: str | None,
        links: CouplingSpec | Mapping[str, Any] | None = None,
        layout: str = "plain",
        group_weights: Any = None,
    ) -> None:
        super().__init__(scale, links)
        self.layout = one_of("layout", layout, tuple(LAYOUTS))
        self.norm = one_of("norm", norm, NORMS)
        self.groups = one_of("groups", groups, GROUPS)
        self.power = one_of("power", power, (1, 2))
        self.reweight = nonnegative("reweight", reweight)
        self.weight = nonnegative("weight", weight)
        self.group_weights = None if group_weights is None else np.array(group_weights, float)
        self.alpha = Alpha(nonnegative("alpha", alpha))

    def penalty(self, kernel: Tensor) -> Tensor:
        """Compute the penalty `alpha * weight * Omega` of one kernel (*spatial, in, out).

        Returns:
            Scalar tensor, float64 if the kernel is and float32 otherwise.

        Raises:
            ValueError: If the kernel has fewer than two axes.
            RuntimeError: If the penalty depends on variables that have not been bound.
        """
        plain = LAYOUTS[self.layout].to_plain(kernel)
        return self._value(self._norms(plain, self.scale, self.groups, self.norm))

    def _value(self, norms: Tensor) -> Tensor:
        weights, strength = self._weights(norms), self._strength(norms)
        own = penalties.value(norms, weights, self.power, self._per, strength)
        norm_of = functools.partial(self.whole_norms, norm="l2")
        joint = [ops.sum(w * c.norms(norm_of)) for c, w in self.joint_weights(norm_of, norms)]
        return sum(joint, own)

    def group_norms(self, kernel: Tensor) -> Tensor:
        """Compute the norm of every group of every kernel.

        Args:
            kernel: Variable or tensor (*spatial, in, out); a paired batch normalisation is ignored.

        Returns:
            Tensor (groups, kernels), `G_1` first.

        Raises:
            ValueError: If the kernel has fewer than two axes.
        """
        return group_norms(LAYOUTS[self.layout].to_plain(kernel), self.groups, self.norm)

    def prox(self, kernel: Tensor, step: Tensor) -> Tensor:
        """Proximal operator: the minimiser z of `1/2 |z - k|^2 + step * alpha * weight * Omega(z)`.

        With `reweight`, the weights are those of `kernel`, held fixed. With one step per kernel,
        the squared distance of each is divided by its step instead.

        Args:
            kernel: Variable or tensor (*spatial, in, out); for pairs see `pair_prox`.
            step: Non-negative step length, scalar or (kernels,).

        Returns:
            Tensor of the kernel's shape and dtype; removed groups are exactly 0.

        Raises:
            ValueError: If the kernel has fewer than two axes.
            RuntimeError: If the penalty depends on the kernels of other layers.

        Examples:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> kernel = np.array([[3.0, 0.3], [4.0, 0.4]])
            >>> np.abs(KernelCount(alpha=1.0).prox(kernel, 1.0)).round(2).tolist()
            [[2.4, 0.0], [3.2, 0.0]]
        """
        plain = LAYOUTS[self.layout].to_plain(ops.convert_to_tensor(kernel))
        return LAYOUTS[self.layout].from_plain(self._plain_prox(plain, step), tuple(kernel.shape))

    def subgradient(self, kernel: Tensor) -> Tensor:
        """Compute a sub-gradient of the penalty in closed form; it is 0 at groups of zeros.

        Args:
            kernel: Variable or tensor (*spatial, in, out).

        Returns:
            Tensor of the kernel's shape and dtype, equal to that of automatic differentiation.

        Raises:
            ValueError: If the kernel has fewer than two axes.
            RuntimeError: If `scale` is set and its variable has not been bound, or if the penalty
                depends on the kernels of other layers.

        Examples:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> kernel = np.array([[3.0, 0.0], [4.0, 0.0]])
            >>> np.array(KernelCount(alpha=1.0).subgradient(kernel)).round(2).tolist()
            [[0.6, 0.0], [0.8, 0.0]]
        """
        fixed = self.fixed_scale
        if fixed is None and self.scale is not None:
            return self.pair_subgradient(kernel, self._bound(self.scale))[0]
        plain = LAYOUTS[self.layout].to_plain(ops.convert_to_tensor(kernel))
        factors = 1.0 if fixed is None else constant(fixed, like=plain)
        plain = factors * self._plain_subgradient(factors * plain)
        return LAYOUTS[self.layout].from_plain(plain, tuple(kernel.shape))

    def pair_prox(self, kernel: Tensor, gamma: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Proximal step on the effective kernel `gamma_j k_j / |k_j|`, written back to both.

        Args:
            kernel: Variable or tensor (*spatial, in, out).
            gamma: Scale of the batch normalisation (kernels,).
            step: Non-negative step length, scalar or (kernels,).

        Returns:
            The new kernel, in which each `k_j` has its old length, and the new gamma.

        Raises:
            ValueError: If the kernel has fewer than two axes or `gamma` does not fit it.

        Examples:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> kernel, gamma = np.array([[3.0], [4.0]], "float32"), np.array([2.0], "float32")
            >>> kernel, gamma = KernelCount(alpha=1.0).pair_prox(kernel, gamma, 0.5)
            >>> np.array(kernel).round(3).tolist(), np.array(gamma).round(3).tolist()
            ([[3.0], [4.0]], [1.5])
        """
        layout, gamma = LAYOUTS[self.layout], ops.convert_to_tensor(gamma)
        plain = layout.to_plain(ops.convert_to_tensor(kernel))
        effective = self._plain_prox(effective_kernels.effective_kernel(plain, gamma), step)
        plain, gamma = effective_kernels.write_back(effective, plain, gamma)
        return layout.from_plain(plain, tuple(kernel.shape)), gamma

    def pair_subgradient(self, kernel: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """Sub-gradients of the penalty on the effective kernel `gamma_j k_j / |k_j|`.

        Args:
            kernel: Variable or tensor (*spatial, in, out).
            gamma: Scale of the batch normalisation (kernels,).

        Returns:
            Tensors with the shapes and dtypes of `kernel` and `gamma`.

        Raises:
            ValueError: If the kernel has fewer than two axes or `gamma` does not fit it.

        Examples:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> kernel, gamma = np.array([[3.0], [4.0]], "float32"), np.array([2.0], "float32")
            >>> d_kernel, d_gamma = KernelCount(alpha=1.0).pair_subgradient(kernel, gamma)
            >>> np.array(d_gamma).round(3).tolist()
            [1.0]
        """
        layout = LAYOUTS[self.layout]
        plain = layout.to_plain(ops.convert_to_tensor(kernel))
        gradient = self._plain_subgradient(effective_kernels.effective_kernel(plain, gamma))
        turned, along = effective_kernels.pair_gradient(gradient, plain, gamma)
        return layout.from_plain(turned, tuple(kernel.shape)), along

    def bound(
        self, weight: float = 1.0, scale: str | None = None, links: CouplingSpec | None = None
    ) -> Self:
        """Copy the regularizer for one layer, with the same `alpha` variable.

        Args:
            weight: The layer's share of alpha, finite and >= 0.
            scale: Path of the batch-normalisation gamma paired with the kernel, or None.
            links: What the penalty must know of other layers, or None.

        Returns:
            A regularizer of the same class; assigning to `alpha` changes both.

        Raises:
            ValueError: If `weight` or `scale` is invalid.

        Examples:
            >>> from keras_structsparse.regularizers import KernelSize
            >>> r = KernelSize(1e-3)
            >>> r.bound(2.0).alpha is r.alpha
            True
        """
        twin = copy.copy(self)  # Shallow: alpha remains the same variable.
        CrossLayerRegularizer.__init__(twin, scale, links)
        twin.restored, twin.weight = None, nonnegative("weight", weight)
        return twin

    def for_pruned_layer(self, share: float) -> Self:
        """Copy the regularizer for a layer whose zero kernels have been pruned.

        `reweight` is relative to the mean norm of the kernels, which is larger without those of
        zeros. Multiplied by `share`, it means the same as before pruning.

        Args:
            share: Number of remaining kernels over the number before pruning, in (0, 1].

        Returns:
            A regularizer of the same class and `alpha`, to be bound to its layer.

        Examples:
            >>> from keras_structsparse.regularizers import KernelSize
            >>> KernelSize(1e-3, reweight=0.2).for_pruned_layer(0.5).reweight
            0.1
        """
        twin = self.bound()
        twin.reweight = self.reweight * share
        return twin

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the current value of alpha.

        Returns:
            Dictionary for `from_config`.
        """
        alpha = float(
            str(np.float32(ops.convert_to_numpy(self.alpha)))
        )  # 0.001, not 0.0010000000475
        names = ("norm", "groups", "power", "reweight", "weight", "scale", "layout")
        links = None if self.links is None else self.links.to_config()
        config = {"alpha": alpha, **{name: getattr(self, name) for name in names}, "links": links}
        if self.beside is not None:
            config["beside"] = keras.regularizers.serialize(self.beside)
        if self.group_weights is not None:
            config["group_weights"] = self.group_weights.tolist()
        return config

    def slopes(self, norms: Tensor, norm_of: NormOf) -> Tensor:
        """Derivative of the penalty with respect to the layer's own group norms.

        Only for `power=1`. Joint groups and channels that other layers read are not included.

        Args:
            norms: Group norms (groups, kernels).
            norm_of: Returns the norms of the kernels of another layer.
        """
        return self._weights(norms) * self._strength(norms)

    def _plain_prox(self, kernel: Tensor, step: Tensor) -> Tensor:
        self._require_uncoupled()
        norms = group_norms(kernel, self.groups, self.norm)
        weights, groups, norm = self._weights(norms), self.groups, self.norm
        steps = constant(step, like=weights) * self._strength(norms)
        return proximal_operator(kernel, groups, norm, steps, weights, self.power, self._per)

    def _plain_subgradient(self, kernel: Tensor) -> Tensor:
        self._require_uncoupled()
        norms = group_norms(kernel, self.groups, self.norm)
        slopes = penalties.slopes(norms, self._weights(norms), self.power, self._per)
        return penalties.subgradient(kernel, self.groups, self.norm, slopes * self._strength(norms))

    def _weights(self, norms: Tensor) -> Tensor:
        weights = penalties.reweighting(norms, self.reweight)
        if self.group_weights is not None:
            weights *= constant(self.group_weights, like=norms)
        return weights * self.not_joint(norms) if self.links is not None else weights

    def _strength(self, norms: Tensor) -> Tensor:
        # Read on every call: a float would become a constant of compiled functions.
        return constant(ops.convert_to_tensor(self.alpha), like=norms) * self.weight
