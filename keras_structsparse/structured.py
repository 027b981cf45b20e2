"""The base class of the structured-sparsity regularizers."""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar, Self

import keras
import numpy as np
from keras import ops

from keras_structsparse import pairs, penalties
from keras_structsparse.alpha import Alpha
from keras_structsparse.groups import GROUPS, NORMS, require
from keras_structsparse.norms import Tensor, constant, group_norms
from keras_structsparse.prox_squared import prox_squared


def _finite(argument: str, number: float) -> float:
    if not (isinstance(number, int | float | np.number) and math.isfinite(number) and number >= 0):
        raise ValueError(f"`{argument}` must be a finite number >= 0. Received: {number!r}")
    return float(number)


def _path(scale: str | None) -> str | None:
    if scale is not None and not (isinstance(scale, str) and scale):
        raise ValueError(f"`scale` must be None or a variable's path. Received: {scale!r}")
    return scale


class Structured(keras.regularizers.Regularizer):
    """What the two regularizers share: everything but the groups and the sum they relax."""

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
    ) -> None:
        require("norm", norm, NORMS)
        require("groups", groups, GROUPS)
        require("power", power, (1, 2))
        self.norm, self.groups, self.power = norm, groups, power
        self.reweight = _finite("reweight", reweight)
        self.weight = _finite("weight", weight)
        self.scale = _path(scale)
        self._gamma: Any = None
        self.alpha = Alpha(_finite("alpha", alpha))

    def __call__(self, kernel: Tensor) -> Tensor:
        """The penalty `alpha * weight * Omega` of one kernel variable.

        Args:
            kernel: Variable or tensor (*spatial, in, out); (in, out) for Dense.

        Returns:
            Scalar tensor, float64 if the kernel is and float32 otherwise.

        Raises:
            ValueError: If the kernel has less than two axes.
            RuntimeError: If `scale` is set and no variable has been bound.

        Example:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> round(float(KernelCount(alpha=0.1)(np.array([[3.0], [4.0]], "float32"))), 3)
            0.5
        """
        if self.scale is None:
            norms = self.group_norms(kernel)
        else:
            gamma = self._bound_gamma()
            norms = pairs.effective_norms(kernel, gamma, self.groups, self.norm)
        omega = penalties.value(norms, self._weights(norms), self.power, self._per)
        return self._strength(norms) * omega

    def group_norms(self, kernel: Tensor) -> Tensor:
        """The norm of every group of every kernel.

        Args:
            kernel: Variable or tensor (*spatial, in, out), taken as it is: no batch normalisation.

        Returns:
            Tensor (groups, kernels), `G_1` first.

        Raises:
            ValueError: If the kernel has less than two axes.

        Example:
            >>> from keras_structsparse.regularizers import KernelSize
            >>> tuple(KernelSize().group_norms(np.ones((3, 3, 2, 8), "float32")).shape)
            (3, 8)
        """
        return group_norms(kernel, self.groups, self.norm)

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

        Example:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> kernel = np.array([[3.0, 0.3], [4.0, 0.4]])
            >>> np.abs(KernelCount(alpha=1.0).prox(kernel, 1.0)).round(2).tolist()
            [[2.4, 0.0], [3.2, 0.0]]
        """
        norms = self.group_norms(kernel)
        weights = self._weights(norms)
        steps = constant(step, like=weights) * self._strength(norms)
        kernel = ops.convert_to_tensor(kernel)
        if self.power == 1:
            return penalties.prox_chain(kernel, self.groups, self.norm, steps * weights)
        return prox_squared(kernel, self.groups, self.norm, steps, weights, self._per)

    def subgradient(self, kernel: Tensor) -> Tensor:
        """The sub-gradient of this regularizer's value, in closed form; 0 at groups of zeros.

        Args:
            kernel: Variable or tensor (*spatial, in, out).

        Returns:
            Tensor of the kernel's shape and dtype, equal to automatic differentiation.

        Raises:
            ValueError: If the kernel has less than two axes.
            RuntimeError: If `scale` is set and no variable has been bound.

        Example:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> kernel = np.array([[3.0, 0.0], [4.0, 0.0]])
            >>> np.array(KernelCount(alpha=1.0).subgradient(kernel)).round(2).tolist()
            [[0.6, 0.0], [0.8, 0.0]]
        """
        if self.scale is not None:
            return self.pair_subgradient(kernel, self._bound_gamma())[0]
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

        Example:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> kernel, gamma = np.array([[3.0], [4.0]], "float32"), np.array([2.0], "float32")
            >>> kernel, gamma = KernelCount(alpha=1.0).pair_prox(kernel, gamma, 0.5)
            >>> np.array(kernel).round(3).tolist(), np.array(gamma).round(3).tolist()
            ([[3.0], [4.0]], [1.5])
        """
        kernel, gamma = ops.convert_to_tensor(kernel), ops.convert_to_tensor(gamma)
        effective = self.prox(pairs.effective_kernel(kernel, gamma), step)
        return pairs.write_back(effective, kernel, gamma)

    def pair_subgradient(self, kernel: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """Sub-gradients of the penalty on the effective kernel `gamma_j k_j / |k_j|`.

        Args:
            kernel: Variable or tensor (*spatial, in, out).
            gamma: Scale of the batch normalisation (kernels,).

        Returns:
            Tensors with the shapes and dtypes of `kernel` and `gamma`.

        Raises:
            ValueError: If the kernel has less than two axes or `gamma` does not fit it.

        Example:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> kernel, gamma = np.array([[3.0], [4.0]], "float32"), np.array([2.0], "float32")
            >>> d_kernel, d_gamma = KernelCount(alpha=1.0).pair_subgradient(kernel, gamma)
            >>> np.array(d_gamma).round(3).tolist()
            [1.0]
        """
        kernel, gamma = ops.convert_to_tensor(kernel), ops.convert_to_tensor(gamma)
        gradient = self._plain_subgradient(pairs.effective_kernel(kernel, gamma))
        return pairs.pair_gradient(gradient, kernel, gamma)

    def bound(self, weight: float = 1.0, scale: str | None = None) -> Self:
        """A copy for one layer, with the same `alpha` variable.

        Args:
            weight: The layer's share of alpha, finite and >= 0.
            scale: Path of the gamma of the batch normalisation paired with the kernel, or None.

        Returns:
            A regularizer of the same class; changing `alpha` changes both.

        Raises:
            ValueError: If `weight` or `scale` is invalid.

        Example:
            >>> from keras_structsparse.regularizers import KernelSize
            >>> r = KernelSize(1e-3)
            >>> r.bound(2.0).alpha is r.alpha
            True
        """
        twin = copy.copy(self)  # Shallow: alpha stays the same variable.
        twin.weight, twin.scale, twin._gamma = _finite("weight", weight), _path(scale), None
        return twin

    def bind_scale(self, variable: Any) -> None:
        """Tell which variable `scale` is the path of; it is not serialised.

        Args:
            variable: The gamma `keras.Variable` (kernels,).

        Example:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> r = KernelCount(alpha=1.0, scale="bn/gamma")
            >>> r.bind_scale(keras.Variable([2.0]))
            >>> round(float(r(np.array([[3.0], [4.0]], "float32"))), 3)
            2.0
        """
        self._gamma = variable

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, with the current value of alpha.

        Returns:
            Dictionary for `from_config`.

        Example:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> KernelCount.from_config(KernelCount(1e-3, norm="linf").get_config()).norm
            'linf'
        """
        # The shortest decimal that gives the same float32: 0.001, not 0.0010000000474974513.
        alpha = float(str(np.float32(float(ops.convert_to_tensor(self.alpha)))))
        names = ("norm", "groups", "power", "reweight", "weight", "scale")
        return {"alpha": alpha, **{name: getattr(self, name) for name in names}}

    def _plain_subgradient(self, kernel: Tensor) -> Tensor:
        norms = self.group_norms(kernel)
        slopes = penalties.slopes(norms, self._weights(norms), self.power, self._per)
        slopes = slopes * self._strength(norms)
        return penalties.subgradient(kernel, self.groups, self.norm, slopes)

    def _weights(self, norms: Tensor) -> Tensor:
        return penalties.reweighting(norms, self.reweight)

    def _strength(self, norms: Tensor) -> Tensor:
        # Read on every call: a float would be frozen into compiled functions.
        return constant(ops.convert_to_tensor(self.alpha), like=norms) * self.weight

    def _bound_gamma(self) -> Any:
        if self._gamma is None:
            raise RuntimeError(
                f"This {type(self).__name__} penalises a kernel together with the batch "
                f"normalisation scale {self.scale!r}, but does not hold that variable: loading or "
                "cloning a model loses it. Call `kss.attach` on the model again, or compile it "
                "with `kss.Proximal`."
            )
        return self._gamma
