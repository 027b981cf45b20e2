"""What the penalty of one layer must know of other layers, as values that can be serialised.

A regularizer is called with its own kernel alone and is saved with its layer. So it names the
other variables that it depends on by their paths, and is bound to the variables later (see
`cross_layer`). The field names below are keys of saved configurations: they must not change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import keras
from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers._ops import largest, safe_sqrt, zeros_to_ones

PLAIN = "plain"
"""The order of axes of most kernels: (*spatial, in, out)."""


@dataclass(frozen=True)
class Writer:
    """Consecutive kernels of one layer, which write consecutive channels.

    Attributes:
        kernel: Path of the kernel variable.
        scale: Path of the batch-normalisation gamma paired with the kernel, or None.
        first: Index of the first kernel.
        layout: The order of the axes of the variable, a key of `kernel_layouts.LAYOUTS`.
    """

    kernel: str
    scale: str | None = None
    first: int = 0
    layout: str = PLAIN


NormOf = Callable[[Writer], Tensor]
"""Maps a writer to the norms (kernels,) of all whole kernels of its layer."""


@dataclass(frozen=True)
class ChannelGroup:
    """Consecutive channels that one or several layers write.

    Several layers write the same channels if their outputs are added, as in a residual stream.

    Attributes:
        writers: For each layer the kernels that write the channels: the c-th writes the c-th.
        width: Number of channels.
        weight: Factor of each channel in the penalty.
    """

    writers: tuple[Writer, ...]
    width: int
    weight: float

    def parts(self, norm_of: NormOf) -> list[Tensor]:
        """For each writer the norms (width,) of its kernels."""
        return [norm_of(w)[w.first : w.first + self.width] for w in self.writers]

    def norms(self, norm_of: NormOf) -> Tensor:
        """For each channel the joint norm (width,) of all kernels that write it.

        The joint norm is 0 if and only if all kernels that write the channel are 0.

        Examples:
            >>> channels = ChannelGroup((Writer("a"), Writer("b")), 2, 1.0)
            >>> norms = {"a": ops.array([3.0, 0.0]), "b": ops.array([4.0, 0.0])}
            >>> [float(x) for x in channels.norms(lambda writer: norms[writer.kernel])]
            [5.0, 0.0]
        """
        return joint_norms(self.parts(norm_of))

    def slopes(self, norm_of: NormOf, weights: Tensor) -> list[Tensor]:
        """For each writer the derivative (width,) of `sum_c weights_c norms_c` in its norms."""
        parts = self.parts(norm_of)
        norms = joint_norms(parts)
        divisors = zeros_to_ones(norms)
        return [weights * (part / divisors) for part in parts]


def joint_norms(parts: Sequence[Tensor]) -> Tensor:
    """Norm of the concatenation of several vectors, from their norms; float64 if any is."""
    like = next((p for p in parts if keras.backend.standardize_dtype(p.dtype) == "float64"), None)
    like = parts[0] if like is None else like
    stacked = ops.stack([ops.cast(part, like.dtype) for part in parts])
    unit = largest(stacked, axis=0)
    return safe_sqrt(ops.sum(ops.square(stacked / unit), axis=0)) * unit


@dataclass(frozen=True)
class CouplingSpec:
    """All that the penalty of one layer must know of other layers.

    Attributes:
        reads: For MultiplyAdds (34), the channels that the layer reads; their weights are
            multiply-adds.
        constant: For MultiplyAdds, the multiply-adds of channels that no regularized kernel writes.
        joint: For `coupled=True`, the channels whose joint groups belong to this layer's penalty.
        joined: (first, width) of this layer's kernels that are part of any joint group.
    """

    reads: tuple[ChannelGroup, ...] = ()
    constant: float = 0.0
    joint: tuple[ChannelGroup, ...] = ()
    joined: tuple[tuple[int, int], ...] = ()

    @property
    def paths(self) -> frozenset[str]:
        """Paths of all variables that the penalty depends on through this value."""
        writers = [w for channels in (*self.reads, *self.joint) for w in channels.writers]
        return frozenset(p for w in writers for p in (w.kernel, w.scale) if p is not None)

    def to_config(self) -> dict[str, Any]:
        """Convert to plain lists and dictionaries, which :meth:`from_config` reads.

        Examples:
            >>> channels = ChannelGroup((Writer("a"), Writer("b")), 2, 1.0)
            >>> spec = CouplingSpec(joint=(channels,), joined=((0, 2),))
            >>> CouplingSpec.from_config(spec.to_config()) == spec
            True
        """
        config = asdict(self)
        for channels in (*config["reads"], *config["joint"]):
            for writer in channels["writers"]:
                if writer["layout"] == PLAIN:  # files of version 0.1 do not have it
                    del writer["layout"]
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Create the value from what :meth:`to_config` returned."""
        return cls(
            reads=_channel_groups(config["reads"]),
            constant=float(config["constant"]),
            joint=_channel_groups(config["joint"]),
            joined=tuple((int(first), int(width)) for first, width in config["joined"]),
        )


def _channel_groups(configs: Sequence[Mapping[str, Any]]) -> tuple[ChannelGroup, ...]:
    return tuple(
        ChannelGroup(tuple(Writer(**w) for w in c["writers"]), int(c["width"]), float(c["weight"]))
        for c in configs
    )


def joint_weight(weights: Sequence[float]) -> float:
    """Weight of a joint norm, such that it equals the weighted norms if these are all equal."""
    return math.fsum(weights) / math.sqrt(len(weights))
