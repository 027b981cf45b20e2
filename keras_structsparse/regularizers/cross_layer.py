"""The part of the regularizers that deals with variables other than their own kernel.

It is separate from the base class in `base`, its only subclass, because it has another task: `base`
holds the mathematics of the penalty of one layer, this module finds the variables of other layers
and computes the terms that depend on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Tensor
from keras_structsparse.graph.onednn import warn_in_training
from keras_structsparse.regularizers._ops import constant
from keras_structsparse.regularizers.coupling import ChannelGroup, CouplingSpec, NormOf, Writer
from keras_structsparse.regularizers.effective_kernels import effective_norms
from keras_structsparse.regularizers.group_norms import group_norms
from keras_structsparse.regularizers.kernel_layouts import LAYOUTS
from keras_structsparse.regularizers.loss_term import LossTerm
from keras_structsparse.regularizers.penalties import reweighting
from keras_structsparse.regularizers.rebinding import rebind

STATISTIC = "moving_variance"
EPSILON = 1e-3
"""Added to the moving variance of a frozen batch normalisation, as Keras does by default."""


class CrossLayerRegularizer(keras.regularizers.Regularizer):
    """A regularizer whose penalty depends on variables besides the kernel it is called with.

    Attributes:
        scale: Path of the batch-normalisation gamma paired with the kernel, or None.
        links: What the penalty must know of other layers, or None.
        alpha: Weight of the penalty.
        reweight: `eps` of the group weights.
        beside: A regularizer of another kind on the same kernel, which stays in the loss; or None.
        restored: If it was made from a configuration, and shares its alpha with no other one yet,
            a key that is equal for the regularizers of one call of `attach`; else None.
        term: The penalty's term in the loss.
    """

    alpha: keras.Variable
    reweight: float
    beside: keras.regularizers.Regularizer | None = None
    restored: tuple[Any, ...] | None = None

    def __init__(self, scale: str | None, links: CouplingSpec | Mapping[str, Any] | None) -> None:
        if scale is not None and not (isinstance(scale, str) and scale):
            raise ValueError(f"`scale` must be None or a variable's path. Received: {scale!r}")
        self.scale = scale
        self.links = CouplingSpec.from_config(links) if isinstance(links, Mapping) else links
        self._variables: dict[str, Any] = {}
        self.term = LossTerm()

    # --- what Keras adds to the loss ---

    def __call__(self, kernel: Tensor) -> Tensor:
        """Compute what Keras adds to the loss for one kernel variable.

        This is the penalty, and that of :attr:`beside`. In the losses of a model under `Proximal`
        it is only the latter, since the penalty acts in the proximal step.

        Args:
            kernel: Variable or tensor (*spatial, in, out); (in, out) for Dense.

        Returns:
            Scalar tensor, float64 if the kernel is and float32 otherwise.

        Raises:
            ValueError: If the kernel has fewer than two axes.
            RuntimeError: If the penalty depends on variables that have not been bound.

        Examples:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> round(float(KernelCount(alpha=0.1)(np.array([[3.0], [4.0]], "float32"))), 3)
            0.5
        """
        request = _keras_compat.loss_request()
        if request is not None and request.training:  # `attach` may never have seen the model.
            warn_in_training(request.owner)
        if request is not None and self.incomplete:
            rebind(request.owner)
        term = self.term.of(lambda: self.penalty(kernel), request)
        if self.beside is None:
            return ops.zeros((), precision_of(kernel)) if term is None else term
        other = self.beside(kernel)
        return other if term is None else term + ops.cast(other, term.dtype)

    def penalty(self, kernel: Tensor) -> Tensor:
        """The penalty of one kernel."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Create a regularizer from its configuration."""
        config = dict(config)
        beside = config.pop("beside", None)
        found = cls(**config)
        found.beside = keras.regularizers.get(beside)
        own = ("weight", "scale", "links", "layout", "group_weights")
        settings = {name: x for name, x in config.items() if name not in own}
        found.restored = (cls, *sorted(settings.items()))
        return found

    # --- binding variables by their paths ---

    @property
    def paths(self) -> frozenset[str]:
        """Paths of all variables that the penalty depends on besides its own kernel."""
        own = frozenset() if self.scale is None else frozenset([self.scale])
        named = own if self.links is None else own | self.links.paths
        return named | {statistic(path) for path in self._scales() if not self._trained(path)}

    @property
    def joined_kernels(self) -> frozenset[str]:
        """Paths of the kernels that must be trained together with this one: those it joins."""
        return frozenset(w.kernel for channels in self._joint_channels() for w in channels.writers)

    def bind(self, variables: Mapping[str, Any]) -> None:
        """Set the variables that the paths refer to. They are not serialised.

        Args:
            variables: Variables by path. Those that the penalty does not depend on are ignored;
                variables bound earlier are kept if their path is missing here.

        Examples:
            >>> from keras_structsparse.regularizers import KernelCount
            >>> r = KernelCount(alpha=1.0, scale="bn/gamma")
            >>> r.bind({"bn/gamma": keras.Variable([2.0])})
            >>> round(float(r(ops.array([[3.0], [4.0]]))), 3)
            2.0
        """
        statistics = {statistic(path) for path in self._scales()}
        found = {path: variables[path] for path in self.paths | statistics if path in variables}
        self._variables = {**self._variables, **found}

    @property
    def unbound(self) -> frozenset[str]:
        """The paths whose variables have not been bound."""
        return self.paths - frozenset(self._variables)

    @property
    def incomplete(self) -> bool:
        """Whether it lacks what a configuration cannot hold; see `rebinding`."""
        return self.restored is not None or bool(self.unbound)

    def _bound(self, path: str) -> Any:
        if path not in self._variables:
            raise RuntimeError(
                f"This {type(self).__name__} penalises a kernel together with the variable "
                f"{path!r}, but does not hold that variable: loading or cloning a model loses it. "
                "Call `kss.attach` on the model again, or compile it with `kss.Proximal`."
            )
        return self._variables[path]

    def _scales(self) -> frozenset[str]:
        """Paths of all batch-norm scales that the penalty depends on."""
        own = () if self.scale is None else (self.scale,)
        links = () if self.links is None else (*self.links.reads, *self.links.joint)
        written = (w.scale for channels in links for w in channels.writers)
        return frozenset(path for path in (*own, *written) if path is not None)

    def _trained(self, path: str) -> bool:
        return bool(getattr(self._variables.get(path), "trainable", True))

    @property
    def paired_gamma(self) -> Any:
        """The gamma of the normalisation paired with the kernel; None without one, or unbound."""
        return None if self.scale is None else self._variables.get(self.scale)

    @property
    def fixed_scale(self) -> Tensor | None:
        """Factors (out,) that a frozen normalisation gives the kernels; None if there is none.

        A frozen batch normalisation does not divide by the length of a kernel. It multiplies its
        channel by `|gamma_j| / sqrt(variance_j)`, and that is how much the kernel counts.
        """
        if self.scale is None or self._trained(self.scale):
            return None
        return self._fixed(self.scale)

    def _fixed(self, scale: str) -> Tensor:
        gamma, variance = self._bound(scale), self._bound(statistic(scale))
        like = ops.convert_to_tensor(gamma)
        return ops.abs(like) / ops.sqrt(constant(variance, like=like) + EPSILON)

    def _norms(self, kernel: Tensor, scale: str | None, groups: str, norm: str) -> Tensor:
        """Group norms (groups, kernels) of kernels as the normalisation after them scales them."""
        if scale is None:
            return group_norms(kernel, groups, norm)
        if self._trained(scale):
            return effective_norms(kernel, self._bound(scale), groups, norm)
        norms = group_norms(kernel, groups, norm)
        return norms * constant(self._fixed(scale), like=norms)

    # --- terms that depend on the kernels of other layers ---

    def whole_norms(self, writer: Writer, norm: str) -> Tensor:
        """Norms (kernels,) of all whole kernels of another layer, from its bound variables."""
        plain = LAYOUTS[writer.layout].to_plain(self._bound(writer.kernel))
        return self._norms(plain, writer.scale, "kernel", norm)[0]

    def joint_weights(self, norm_of: NormOf, like: Tensor) -> list[tuple[ChannelGroup, Tensor]]:
        """The channels with joint groups in this layer's penalty, with weights (width,).

        The penalty of the joint groups is the sum over these pairs of `sum_c weights_c norms_c`.

        Args:
            norm_of: Returns the l2 norms of the kernels of a layer.
            like: A tensor whose dtype the weights get.

        Returns:
            Pairs of channels and weights.
        """
        alpha = constant(ops.convert_to_tensor(self.alpha), like=like)
        return [(c, alpha * self._joint_reweighting(c, norm_of)) for c in self._joint_channels()]

    def read_weights(self, norms: Tensor, norm_of: NormOf) -> list[tuple[ChannelGroup, Tensor]]:
        """Derivative of the penalty with respect to the norms of the channels the layer reads.

        Args:
            norms: Group norms (groups, kernels).
            norm_of: Returns the norms of the kernels of another layer.

        Returns:
            Pairs of channels and a tensor (width,); none for a penalty on the layer's own kernels.
        """
        return []

    def not_joint(self, norms: Tensor) -> Tensor:
        """0 at the whole kernels that are part of a joint group, 1 elsewhere.

        Args:
            norms: Group norms (groups, kernels).

        Returns:
            Tensor of the same shape and dtype.
        """
        mask = np.ones(tuple(norms.shape))
        for first, width in () if self.links is None else self.links.joined:
            mask[-1, first : first + width] = 0
        return constant(mask, like=norms)

    def _joint_channels(self) -> tuple[ChannelGroup, ...]:
        return () if self.links is None else self.links.joint

    def _joint_reweighting(self, channels: ChannelGroup, norm_of: NormOf) -> Tensor:
        # From the root mean square, so that it does not depend on the number of writers.
        means = channels.norms(norm_of) / math.sqrt(len(channels.writers))
        return channels.weight * reweighting(means[None], self.reweight)[0]

    def _require_uncoupled(self) -> None:
        if self.links is not None:
            raise RuntimeError(
                f"This {type(self).__name__} penalises its kernel together with those of other "
                "layers, so there is no step for one of them alone. Use `kss.Proximal`."
            )


def statistic(scale: str) -> str:
    """Path of the moving variance of a batch normalisation, from that of its gamma."""
    layer, _, _ = scale.rpartition("/")
    return f"{layer}/{STATISTIC}" if layer else STATISTIC


def precision_of(kernel: Tensor) -> str:
    """The dtype of penalties: float64 for float64 kernels, float32 for all others."""
    return "float64" if keras.backend.standardize_dtype(kernel.dtype) == "float64" else "float32"
