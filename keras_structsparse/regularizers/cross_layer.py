"""The part of the regularizers that deals with variables other than their own kernel.

It is separate from the base class in `base`, its only subclass, because it has another task: `base`
holds the mathematics of the penalty of one layer, this module finds the variables of other layers
and computes the terms that depend on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers._ops import constant
from keras_structsparse.regularizers.coupling import ChannelGroup, CouplingSpec, NormOf, Writer
from keras_structsparse.regularizers.effective_kernels import effective_norms
from keras_structsparse.regularizers.group_norms import group_norms
from keras_structsparse.regularizers.penalties import reweighting


class CrossLayerRegularizer(keras.regularizers.Regularizer):
    """A regularizer whose penalty depends on variables besides the kernel it is called with.

    Attributes:
        scale: Path of the batch-normalisation gamma paired with the kernel, or None.
        links: What the penalty must know of other layers, or None.
        alpha: Weight of the penalty.
        reweight: `eps` of the group weights.
    """

    alpha: keras.Variable
    reweight: float

    def __init__(self, scale: str | None, links: CouplingSpec | Mapping[str, Any] | None) -> None:
        if scale is not None and not (isinstance(scale, str) and scale):
            raise ValueError(f"`scale` must be None or a variable's path. Received: {scale!r}")
        self.scale = scale
        self.links = CouplingSpec.from_config(links) if isinstance(links, Mapping) else links
        self._variables: dict[str, Any] = {}

    # --- binding variables by their paths ---

    @property
    def paths(self) -> frozenset[str]:
        """Paths of all variables that the penalty depends on besides its own kernel."""
        own = frozenset() if self.scale is None else frozenset([self.scale])
        return own if self.links is None else own | self.links.paths

    @property
    def required(self) -> frozenset[str]:
        """Those of the paths whose variables must be trained together with the kernel."""
        writers = [w for channels in self._joint_channels() for w in channels.writers]
        named = (self.scale, *(p for w in writers for p in (w.kernel, w.scale)))
        return frozenset(path for path in named if path is not None)

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
        found = {path: variables[path] for path in self.paths if path in variables}
        self._variables = {**self._variables, **found}

    @property
    def unbound(self) -> frozenset[str]:
        """The paths whose variables have not been bound."""
        return self.paths - frozenset(self._variables)

    def _bound(self, path: str) -> Any:
        if path not in self._variables:
            raise RuntimeError(
                f"This {type(self).__name__} penalises a kernel together with the variable "
                f"{path!r}, but does not hold that variable: loading or cloning a model loses it. "
                "Call `kss.attach` on the model again, or compile it with `kss.Proximal`."
            )
        return self._variables[path]

    # --- terms that depend on the kernels of other layers ---

    def whole_norms(self, writer: Writer, norm: str) -> Tensor:
        """Norms (kernels,) of all whole kernels of another layer, from its bound variables."""
        kernel = self._bound(writer.kernel)
        if writer.scale is None:
            return group_norms(kernel, "kernel", norm)[0]
        return effective_norms(kernel, self._bound(writer.scale), "kernel", norm)[0]

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
