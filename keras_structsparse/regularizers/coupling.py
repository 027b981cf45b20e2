"""What the penalty of one kernel must know of others, as values that a configuration can hold.

A regularizer is called with its own kernel alone, and is saved with its layer. So it names the
other variables that it needs by their paths, and is told later which variables these are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import keras
from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers._ops import safe_sqrt


@dataclass(frozen=True)
class Writer:
    """Consecutive kernels of one layer.

    Attributes:
        kernel: Path of the kernel's variable.
        scale: Path of the batch-normalisation gamma that it is paired with, or None.
        first: Index of the first kernel.
    """

    kernel: str
    scale: str | None = None
    first: int = 0


NormOf = Callable[[Writer], Tensor]
"""From a writer to the norms of all kernels of its layer, (kernels,)."""


@dataclass(frozen=True)
class Stream:
    """Channels that several layers write together, because their outputs are added.

    Attributes:
        writers: One run of kernels per layer; the c-th of each write the c-th channel.
        width: Number of channels.
        weight: What a channel counts.
    """

    writers: tuple[Writer, ...]
    width: int
    weight: float

    def parts(self, norm_of: NormOf) -> list[Tensor]:
        """For each writer the norms (width,) of its kernels."""
        return [norm_of(w)[w.first : w.first + self.width] for w in self.writers]

    def norms(self, norm_of: NormOf) -> Tensor:
        """For each channel the norm of all kernels that write it, (width,).

        It is zero where all of them are: the number of other channels is the size of the union of
        what the writers keep.

        Examples:
            >>> stream = Stream((Writer("a"), Writer("b")), 2, 1.0)
            >>> norms = {"a": ops.array([3.0, 0.0]), "b": ops.array([4.0, 0.0])}
            >>> [float(x) for x in stream.norms(lambda writer: norms[writer.kernel])]
            [5.0, 0.0]
        """
        return joint_norms(self.parts(norm_of))

    def pulls(self, norm_of: NormOf, weights: Tensor) -> list[Tensor]:
        """For each writer the derivative (width,) of the weighted sum of the norms."""
        parts = self.parts(norm_of)
        norms = joint_norms(parts)
        ratios = ops.where(norms > 0, weights / ops.where(norms > 0, norms, 1.0), 0.0)
        return [ratios * part for part in parts]


def joint_norms(parts: Sequence[Tensor]) -> Tensor:
    """The norm of several vectors put together, from their norms."""
    like = next((p for p in parts if keras.backend.standardize_dtype(p.dtype) == "float64"), None)
    like = parts[0] if like is None else like
    squares = [ops.square(ops.cast(part, like.dtype)) for part in parts]
    return safe_sqrt(sum(squares[1:], squares[0]))


@dataclass(frozen=True)
class Links:
    """All that the penalty of one layer must know of other layers.

    Attributes:
        reads: The streams that the layer reads; the weight of each counts multiply-adds.
        constant: Multiply-adds for what the layer reads and no kernel writes.
        joint: The streams whose joint penalty is part of this layer's.
        joined: (first, width) of the layer's kernels that are part of any joint penalty.
    """

    reads: tuple[Stream, ...] = ()
    constant: float = 0.0
    joint: tuple[Stream, ...] = ()
    joined: tuple[tuple[int, int], ...] = ()

    @property
    def paths(self) -> frozenset[str]:
        """The variables that the values of these links depend on."""
        writers = [w for stream in (*self.reads, *self.joint) for w in stream.writers]
        return frozenset(p for w in writers for p in (w.kernel, w.scale) if p is not None)

    def to_config(self) -> dict[str, Any]:
        """Plain lists and dictionaries, which :meth:`from_config` reads.

        Examples:
            >>> links = Links(joint=(Stream((Writer("a"), Writer("b")), 2, 1.0),), joined=((0, 2),))
            >>> Links.from_config(links.to_config()) == links
            True
        """
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The links that :meth:`to_config` described."""
        return cls(
            reads=_streams(config["reads"]),
            constant=float(config["constant"]),
            joint=_streams(config["joint"]),
            joined=tuple((int(first), int(width)) for first, width in config["joined"]),
        )


def _streams(configs: Sequence[Mapping[str, Any]]) -> tuple[Stream, ...]:
    return tuple(
        Stream(tuple(Writer(**w) for w in c["writers"]), int(c["width"]), float(c["weight"]))
        for c in configs
    )


def share_of(weights: Sequence[float]) -> float:
    """The weight of a joint norm that equals the weighted norms where all these are equal."""
    return math.fsum(weights) / math.sqrt(len(weights))
