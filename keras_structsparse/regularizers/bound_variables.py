"""Regularizers whose value depends on variables besides the kernel that they are called with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers._ops import constant
from keras_structsparse.regularizers.coupling import Links, NormOf, Stream, Writer
from keras_structsparse.regularizers.effective_kernels import effective_norms
from keras_structsparse.regularizers.group_norms import group_norms
from keras_structsparse.regularizers.penalties import reweighting


class Linked(keras.regularizers.Regularizer):
    """A regularizer that depends on variables besides the kernel it is called with.

    Attributes:
        scale: Path of the batch-normalisation gamma paired with the kernel, or None.
        links: What the penalty must know of other layers, or None.
        alpha: Weight of the penalty.
        reweight: `eps` of the group weights.
    """

    alpha: keras.Variable
    reweight: float

    def __init__(self, scale: str | None, links: Links | Mapping[str, Any] | None) -> None:
        if scale is not None and not (isinstance(scale, str) and scale):
            raise ValueError(f"`scale` must be None or a variable's path. Received: {scale!r}")
        self.scale = scale
        self.links = Links.from_config(links) if isinstance(links, Mapping) else links
        self._variables: dict[str, Any] = {}

    @property
    def paths(self) -> frozenset[str]:
        """The paths of all variables that the penalty needs besides its own kernel."""
        own = frozenset() if self.scale is None else frozenset([self.scale])
        return own if self.links is None else own | self.links.paths

    @property
    def required(self) -> frozenset[str]:
        """Those of the paths whose variables must be trained together with the kernel."""
        joint = () if self.links is None else self.links.joint
        writers = [w for stream in joint for w in stream.writers]
        named = (self.scale, *(p for w in writers for p in (w.kernel, w.scale)))
        return frozenset(path for path in named if path is not None)

    def bind(self, variables: Mapping[str, Any]) -> None:
        """Tell which variables the paths mean; this is not serialised.

        Args:
            variables: Variables by path; those not needed are ignored, those missing are left as
                they were.

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
        """The paths of which the variables are not known."""
        return self.paths - frozenset(self._variables)

    def whole_norms(self, writer: Writer, norm: str) -> Tensor:
        """The norms (kernels,) of all kernels of another layer, as its variables are now."""
        kernel = self._bound(writer.kernel)
        if writer.scale is None:
            return group_norms(kernel, "kernel", norm)[0]
        return effective_norms(kernel, self._bound(writer.scale), "kernel", norm)[0]

    def _bound(self, path: str) -> Any:
        if path not in self._variables:
            raise RuntimeError(
                f"This {type(self).__name__} penalises a kernel together with the variable "
                f"{path!r}, but does not hold that variable: loading or cloning a model loses it. "
                "Call `kss.attach` on the model again, or compile it with `kss.Proximal`."
            )
        return self._variables[path]

    def joint_weights(self, norm_of: NormOf, like: Tensor) -> list[tuple[Stream, Tensor]]:
        """The streams with a joint penalty in this layer's, and the weights (width,) of each.

        Args:
            norm_of: Gives the l2 norms of kernels.
            like: A tensor of the dtype wanted.

        Returns:
            The penalty is the sum over them of weights times norms.
        """
        streams = () if self.links is None else self.links.joint
        alpha = constant(ops.convert_to_tensor(self.alpha), like=like)
        return [(s, alpha * self._joint_reweighting(s, norm_of)) for s in streams]

    def _joint_reweighting(self, stream: Stream, norm_of: NormOf) -> Tensor:
        # Of the root of the mean square, so that it does not depend on the number of writers.
        means = stream.norms(norm_of) / math.sqrt(len(stream.writers))
        return stream.weight * reweighting(means[None], self.reweight)[0]

    def alone(self, norms: Tensor) -> Tensor:
        """0 at the whole kernels whose norm is part of a joint one, 1 elsewhere."""
        alone = np.ones(tuple(norms.shape))
        for first, width in () if self.links is None else self.links.joined:
            alone[-1, first : first + width] = 0
        return constant(alone, like=norms)

    def _require_alone(self) -> None:
        if self.links is not None:
            raise RuntimeError(
                f"This {type(self).__name__} penalises its kernel together with those of other "
                "layers, so there is no step for one of them alone. Use `kss.Proximal`."
            )
