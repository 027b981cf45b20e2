"""The base class of the structured-sparsity regularizers."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse._validation import nonnegative, require
from keras_structsparse.graph.kernel_supports import GROUPS
from keras_structsparse.regularizers import effective_kernels, penalties
from keras_structsparse.regularizers._ops import constant
from keras_structsparse.regularizers.alpha import Alpha
from keras_structsparse.regularizers.bound_variables import Linked
from keras_structsparse.regularizers.coupling import Links, NormOf, Stream
from keras_structsparse.regularizers.group_norms import group_norms
from keras_structsparse.regularizers.kernel_layouts import LAYOUTS
from keras_structsparse.regularizers.nested_groups import NORMS
from keras_structsparse.regularizers.prox import proximal_operator


class GroupSparsityRegularizer(Linked):
    """What the regularizers share: everything but the groups and the sum they relax."""

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
        links: Links | Mapping[str, Any] | None = None,
        layout: str = "plain",
    ) -> None:
        super().__init__(scale, links)
        require("layout", layout, tuple(LAYOUTS))
        require("norm", norm, NORMS)
        require("groups", groups, GROUPS)
        require("power", power, (1, 2))
        self.norm, self.groups, self.power, self.layout = norm, groups, power, layout
        self.reweight = nonnegative("reweight", reweight)
        self.weight = nonnegative("weight", weight)
        self.alpha = Alpha(nonnegative("alpha", alpha))

    def __call__(self, kernel: Tensor) -> Tensor:
        """The penalty `alpha * weight * Omega` of one kernel variable.

        Args:
            kernel: Variable or tensor (*spatial, in, out); (in, out) for Dense.

        Returns:
            Scalar tensor, float64 if the kernel is and float32 otherwise.

        Raises:
            ValueError: If the kernel has less than two axes.
            RuntimeError: If other variables are needed and have not been bound.

        Examples:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> round(float(KernelCount(alpha=0.1)(np.array([[3.0], [4.0]], "float32"))), 3)
            0.5
        """
        if self.scale is None:
            norms = self.group_norms(kernel)
        else:
            gamma = self._bound(self.scale)
            norms = effective_kernels.effective_norms(kernel, gamma, self.groups, self.norm)
        return self._value(norms)

    def _value(self, norms: Tensor) -> Tensor:
        omega = penalties.value(norms, self._weights(norms), self.power, self._per)
        norm_of = functools.partial(self.whole_norms, norm="l2")
        streams = self.joint_weights(norm_of, norms)
        joint = [ops.sum(weights * stream.norms(norm_of)) for stream, weights in streams]
        return sum(joint, self._strength(norms) * omega)

    def group_norms(self, kernel: Tensor) -> Tensor:
        """The norm of every group of every kernel.

        Args:
            kernel: Variable or tensor (*spatial, in, out), taken as it is: no batch normalisation.

        Returns:
            Tensor (groups, kernels), `G_1` first.

        Raises:
            ValueError: If the kernel has less than two axes.

        Examples:
            >>> from keras_structsparse.regularizers import KernelSize
            >>> tuple(KernelSize().group_norms(np.ones((3, 3, 2, 8), "float32")).shape)
            (3, 8)
        """
        return group_norms(LAYOUTS[self.layout].to_plain(kernel), self.groups, self.norm)

    def prox(self, kernel: Tensor, step: Tensor) -> Tensor:
        """Exact minimiser of `1/2 |z - k|^2 + step * alpha * weight * Omega(z)`.

        With `reweight`, the group weights are those of `kernel`, held fixed. With a step per
        kernel, each kernel's distance is divided by its step instead.

        Args:
            kernel: Variable or tensor (*spatial, in, out), taken as it is; for a kernel paired
                with a batch normalisation see `pair_prox`.
            step: Non-negative step size, scalar or (kernels,).

        Returns:
            Tensor of the kernel's shape and dtype; removed groups are exactly 0.

        Raises:
            ValueError: If the kernel has less than two axes.

        Examples:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> kernel = np.array([[3.0, 0.3], [4.0, 0.4]])
            >>> np.abs(KernelCount(alpha=1.0).prox(kernel, 1.0)).round(2).tolist()
            [[2.4, 0.0], [3.2, 0.0]]
        """
        self._require_alone()
        norms = self.group_norms(kernel)
        weights = self._weights(norms)
        steps = constant(step, like=weights) * self._strength(norms)
        plain = LAYOUTS[self.layout].to_plain(ops.convert_to_tensor(kernel))
        z = proximal_operator(plain, self.groups, self.norm, steps, weights, self.power, self._per)
        return LAYOUTS[self.layout].from_plain(z, tuple(kernel.shape))

    def subgradient(self, kernel: Tensor) -> Tensor:
        """The sub-gradient of this regularizer's value, in closed form; 0 at groups of zeros.

        Args:
            kernel: Variable or tensor (*spatial, in, out).

        Returns:
            Tensor of the kernel's shape and dtype, equal to automatic differentiation.

        Raises:
            ValueError: If the kernel has less than two axes.
            RuntimeError: If `scale` is set and no variable has been bound, or if the penalty
                depends on the kernels of other layers.

        Examples:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> kernel = np.array([[3.0, 0.0], [4.0, 0.0]])
            >>> np.array(KernelCount(alpha=1.0).subgradient(kernel)).round(2).tolist()
            [[0.6, 0.0], [0.8, 0.0]]
        """
        if self.scale is not None:
            return self.pair_subgradient(kernel, self._bound(self.scale))[0]
        return self._plain_subgradient(ops.convert_to_tensor(kernel))

    def pair_prox(self, kernel: Tensor, gamma: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Proximal step on the effective kernel `gamma_j k_j / |k_j|`, written back to both.

        Args:
            kernel: Variable or tensor (*spatial, in, out).
            gamma: Scale of the batch normalisation (kernels,).
            step: Non-negative step size, scalar or (kernels,).

        Returns:
            The new kernel, with the length of each `k_j` unchanged, and the new gamma.

        Raises:
            ValueError: If the kernel has less than two axes or `gamma` does not fit it.

        Examples:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> kernel, gamma = np.array([[3.0], [4.0]], "float32"), np.array([2.0], "float32")
            >>> kernel, gamma = KernelCount(alpha=1.0).pair_prox(kernel, gamma, 0.5)
            >>> np.array(kernel).round(3).tolist(), np.array(gamma).round(3).tolist()
            ([[3.0], [4.0]], [1.5])
        """
        kernel, gamma = ops.convert_to_tensor(kernel), ops.convert_to_tensor(gamma)
        effective = self.prox(effective_kernels.effective_kernel(kernel, gamma), step)
        return effective_kernels.write_back(effective, kernel, gamma)

    def pair_subgradient(self, kernel: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """Sub-gradients of the penalty on the effective kernel `gamma_j k_j / |k_j|`.

        Args:
            kernel: Variable or tensor (*spatial, in, out).
            gamma: Scale of the batch normalisation (kernels,).

        Returns:
            Tensors with the shapes and dtypes of `kernel` and `gamma`.

        Raises:
            ValueError: If the kernel has less than two axes or `gamma` does not fit it.

        Examples:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> kernel, gamma = np.array([[3.0], [4.0]], "float32"), np.array([2.0], "float32")
            >>> d_kernel, d_gamma = KernelCount(alpha=1.0).pair_subgradient(kernel, gamma)
            >>> np.array(d_gamma).round(3).tolist()
            [1.0]
        """
        kernel, gamma = ops.convert_to_tensor(kernel), ops.convert_to_tensor(gamma)
        gradient = self._plain_subgradient(effective_kernels.effective_kernel(kernel, gamma))
        return effective_kernels.pair_gradient(gradient, kernel, gamma)

    def bound(
        self, weight: float = 1.0, scale: str | None = None, links: Links | None = None
    ) -> Self:
        """A copy for one layer, with the same `alpha` variable.

        Args:
            weight: The layer's share of alpha, finite and >= 0.
            scale: Path of the gamma of the batch normalisation paired with the kernel, or None.
            links: What the penalty must know of other layers, or None.

        Returns:
            A regularizer of the same class; changing `alpha` changes both.

        Raises:
            ValueError: If `weight` or `scale` is invalid, or `layout` is not plain.

        Examples:
            >>> from keras_structsparse.regularizers import KernelSize
            >>> r = KernelSize(1e-3)
            >>> r.bound(2.0).alpha is r.alpha
            True
        """
        require("layout", self.layout, ("plain",))
        twin = copy.copy(self)  # Shallow: alpha stays the same variable.
        Linked.__init__(twin, scale, links)
        twin.weight = nonnegative("weight", weight)
        return twin

    def cut_to(self, share: float) -> Self:
        """A copy for a layer that has lost kernels of zeros, with the same `alpha` variable.

        `reweight` compares with a mean over the kernels: here over those of the whole layer.

        Args:
            share: The kernels that are left, over those of the whole layer.

        Returns:
            A regularizer of the same class, to be bound to its layer.

        Examples:
            >>> from keras_structsparse.regularizers import KernelSize
            >>> KernelSize(1e-3, reweight=0.2).cut_to(0.5).reweight
            0.1
        """
        twin = self.bound()
        twin.reweight = self.reweight * share
        return twin

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, with the current value of alpha.

        Returns:
            Dictionary for `from_config`.

        Examples:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> KernelCount.from_config(KernelCount(1e-3, norm="linf").get_config()).norm
            'linf'
        """
        # The shortest decimal that gives the same float32: 0.001, not 0.0010000000474974513.
        alpha = float(str(np.float32(ops.convert_to_numpy(self.alpha))))
        names = ("norm", "groups", "power", "reweight", "weight", "scale", "layout")
        links = None if self.links is None else self.links.to_config()
        return {"alpha": alpha, **{name: getattr(self, name) for name in names}, "links": links}

    def slopes(self, norms: Tensor, norm_of: NormOf) -> Tensor:
        """The derivative of the penalty with respect to the layer's own group norms.

        Args:
            norms: Group norms (groups, kernels).
            norm_of: Gives the norms of other kernels.

        Returns:
            Tensor (groups, kernels), without what the streams add.
        """
        return self._weights(norms) * self._strength(norms)

    def read_weights(self, norms: Tensor, norm_of: NormOf) -> list[tuple[Stream, Tensor]]:
        """The streams whose norms the penalty multiplies, and the derivative in each norm.

        Args:
            norms: Group norms (groups, kernels).
            norm_of: Gives the norms of other kernels.

        Returns:
            Pairs of a stream and a tensor (channels,).
        """
        return []

    def _plain_subgradient(self, kernel: Tensor) -> Tensor:
        self._require_alone()
        norms = self.group_norms(kernel)
        slopes = penalties.slopes(norms, self._weights(norms), self.power, self._per)
        slopes = slopes * self._strength(norms)
        layout = LAYOUTS[self.layout]
        pull = penalties.subgradient(layout.to_plain(kernel), self.groups, self.norm, slopes)
        return layout.from_plain(pull, tuple(kernel.shape))

    def _weights(self, norms: Tensor) -> Tensor:
        weights = penalties.reweighting(norms, self.reweight)
        return weights * self.alone(norms) if self.links is not None else weights

    def _strength(self, norms: Tensor) -> Tensor:
        # Read on every call: a float would be frozen into compiled functions.
        return constant(ops.convert_to_tensor(self.alpha), like=norms) * self.weight
