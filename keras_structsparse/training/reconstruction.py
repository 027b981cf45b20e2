"""What removed entries computed, taken over by the entries that are kept: least squares.

A kernel computes ``w p`` from a window ``p`` of what its layer reads. Entries ``R`` are lost if
they are removed, or if what they read becomes constant. Once the mean of ``w_R p_R`` is part of the
bias, the kept entries ``K`` take over what they can predict of the rest:

    d = (C_KK + a I)^-1 C_KR w_R

with the covariance ``C`` of the windows over the training data. It is the same for all kernels of a
layer, and ``K`` for all kernels of one size. The ridge ``a`` holds back what few windows do not
show for sure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.channel_groups import Writers
from keras_structsparse.graph.functional_graph import Call
from keras_structsparse.graph.kernel_axes import (
    KERNELS,
    axes_of,
    kernel_of,
    plain_kernel,
    plain_shape,
)
from keras_structsparse.graph.nested_groups import masked_kernel
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.group_selection import Sizes
from keras_structsparse.training.input_windows import window_means, window_moments
from keras_structsparse.training.mean_shifts import Offset, offset_of

RIDGE = 0.5
"""``a``, in units of the mean variance of the kept entries."""

LARGEST = 2304
"""The largest number of entries of a kernel: the covariance has the square of it."""


@dataclass(frozen=True, eq=False)
class Moments:
    """The windows that a layer reads, over the training data.

    Attributes:
        mean: The means (entries,).
        covariance: The covariance (entries, entries).
    """

    mean: Array
    covariance: Array


def taken_over(moments: Moments, lost: Array, kept: Array) -> Array:
    """The change of the kept entries that predicts best what the lost ones computed.

    Args:
        moments: Those of the windows.
        lost: The entries that are lost (entries, kernels), 0 elsewhere.
        kept: Which entries of each kernel can change (entries, kernels).

    Returns:
        The change (entries, kernels), 0 where nothing is kept.

    Examples:
        >>> together = Moments(np.zeros(2), np.ones((2, 2)))  # two inputs that are always equal
        >>> lost, kept = np.array([[0.0], [3.0]]), np.array([[True], [False]])
        >>> taken_over(together, lost, kept).ravel().round(2).tolist()  # 3 without the ridge
        [2.0, 0.0]
    """
    change = np.zeros(lost.shape)
    missing = moments.covariance @ lost
    patterns, members = np.unique(kept, axis=1, return_inverse=True)
    for number, pattern in enumerate(patterns.T):
        own, kernels = np.flatnonzero(pattern), np.flatnonzero(members.ravel() == number)
        covariance = moments.covariance[np.ix_(own, own)].astype(float)
        ridge = RIDGE * np.trace(covariance) / max(len(own), 1)
        if ridge > 0:
            covariance = covariance + ridge * np.eye(len(own))
            change[np.ix_(own, kernels)] = np.linalg.solve(
                covariance, missing[np.ix_(own, kernels)]
            )
    return change


class Reconstruction:
    """Measures what layers read, and corrects their kept entries when others are lost.

    Left out are layers without a place for a constant, those whose kernels are not plain or read
    only some of the channels, and those with kernels of more than `LARGEST` entries.

    Args:
        found: The prunable layers of the network.

    Attributes:
        found: Likewise.
    """

    def __init__(self, found: PrunableLayers) -> None:
        self.found = found
        self._layers: dict[str, keras.Layer] = {}
        self._offsets: dict[str, Offset] = {}
        for call in found.graph.layers():
            offset = offset_of(found, call) if _is_plain(call) else None
            if offset is not None and kernel_of(call.operation).trainable:
                self._layers[call.name], self._offsets[call.name] = call.operation, offset
        writers = found.channels.writers(list(found.layers))
        reads = {c.name: c.inputs[0] for c in found.graph.layers() if c.name in self._layers}
        self._writers = {name: writers[tensor] for name, tensor in reads.items()}
        self._moments_of = window_moments(found, self._layers)
        self._means_of = window_means(found, self._layers)
        self._moments: dict[str, Moments] = {}
        self._inputs: Any = None

    def measure(self, batches: Iterable[tuple[Any, ...]]) -> None:
        """Measure the windows in the network as it is.

        Args:
            batches: Batches of inputs and more.
        """
        if not self._layers:
            return
        sums: dict[str, tuple[Array, Array]] = {}
        count = 0
        for batch in batches:
            self._inputs, count = batch[0], count + 1
            for name, (mean, second) in self._moments_of.predict_on_batch(batch[0]).items():
                means, seconds = sums.get(name, (0.0, 0.0))
                sums[name] = means + mean, seconds + second
        for name, (means, seconds) in sums.items():
            mean = means / count
            self._moments[name] = Moments(mean, seconds / count - np.outer(mean, mean))

    def correct(self, kernels: Mapping[str, Array], before: Sizes, sizes: Sizes) -> None:
        """Correct the kept entries, after others were removed and their means were moved.

        Args:
            kernels: The kernels (*spatial, in, out) that have changed since :meth:`measure`, as
                they were.
            before: The sizes of all kernels, as they were.
            sizes: The sizes of all kernels now.
        """
        if not self._layers:
            return
        now = self._means_of.predict_on_batch(self._inputs)
        for name, layer in self._layers.items():
            kernel = plain_kernel(layer)
            flat = kernel.reshape(-1, kernel.shape[-1])
            old = kernels.get(name, kernel).reshape(flat.shape)
            constant = self._constant_entries(name, sizes, len(flat))
            changed = constant & ~self._constant_entries(name, before, len(flat))
            lost = old - flat + np.where(changed[:, None], flat, 0.0)
            if not lost.any():
                continue
            kept = _kept_entries(layer, sizes.get(name)) & ~constant[:, None]
            moments = self._moments[name]
            change = taken_over(moments, lost, kept)
            drift = np.where(changed, moments.mean - now[name], 0.0)
            shift = drift @ flat - moments.mean @ change
            kernel_of(layer).assign((flat + change).reshape(kernel.shape))
            self._offsets[name].add(np.where(kept.any(axis=0), shift, 0.0))

    def _constant_entries(self, name: str, sizes: Sizes, entries: int) -> Array:
        """Which entries of the kernels of a layer read a constant."""

        def is_dead(kernels: Writers) -> bool:
            return bool(kernels) and all(n in sizes and sizes[n][j] == 0 for n, j in kernels or ())

        channels = np.array([is_dead(kernels) for kernels in self._writers[name]], bool)
        return np.tile(channels, entries // len(channels))


def _is_plain(call: Call) -> bool:
    """Whether every kernel of a layer reads windows of all channels."""
    layer = call.operation
    if type(layer) not in KERNELS or axes_of(layer).layout != "plain":
        return False
    return getattr(layer, "groups", 1) == 1 and math.prod(plain_shape(layer)[:-1]) <= LARGEST


def _kept_entries(layer: keras.Layer, sizes: Array | None) -> Array:
    """Which entries of the kernels of a layer are kept (entries, kernels)."""
    shape = plain_shape(layer)
    ones = np.ones(shape, bool)
    if sizes is not None:
        ones = masked_kernel(ones, np.asarray(sizes).tolist())
    return ones.reshape(-1, shape[-1])
