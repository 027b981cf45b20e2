"""Calibrate the cost model of surgery on this machine.

Small networks are timed in turns. The model ``time = overhead + a * multiply_adds + b *
elements_written + c * operations`` is fitted to the times, once for each of several block sizes,
with widths rounded up to blocks. The block of the best fit, ``b / a`` and ``c / a`` are the costs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
from keras import layers

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.errors import CostsError
from keras_structsparse.graph.channels.costs import Costs, filled
from keras_structsparse.graph.prunable_layers import ModelLike, PrunableLayers, graph_of
from keras_structsparse.profiling.latency import latency
from keras_structsparse.profiling.profile import profile

Stage = Callable[[Tensor], Tensor]
"""Some layers that keep the shape of a feature map."""

MAPS = ((7, 64), (14, 16), (14, 40), (14, 64), (28, 8), (28, 20), (28, 32))
"""Side and channels of the feature maps of the networks."""

BLOCKS = (1, 4, 8, 16, 32)
"""Candidates for the number of kernels that the runtime computes at once."""

DEPTHS = (2, 8)
"""Numbers of stages: two depths separate the cost of a network from that of a layer."""


@dataclass(frozen=True)
class Calibration:
    """Measured costs.

    Attributes:
        costs: The cost model for surgery, for one example in a batch of ``batch_size``.
        nanoseconds: The time of one multiply-add, in nanoseconds.
        error: Root mean square of the relative errors of the fitted times.
        batch_size: Number of examples per batch.
        backend: The timed backend.
        networks: Number of timed networks.
    """

    costs: Costs
    nanoseconds: float
    error: float
    batch_size: int
    backend: str
    networks: int

    def to_json(self) -> str:
        """The costs as JSON text, which :meth:`Costs.from_json` reads, with the measurement."""
        return self.costs.to_json(
            batch_size=self.batch_size,
            backend=self.backend,
            nanoseconds_per_multiply_add=self.nanoseconds,
            relative_error_of_fit=self.error,
        )

    def __str__(self) -> str:
        return (
            f"{self.backend}, batches of {self.batch_size}: a multiply-add takes "
            f"{self.nanoseconds:.3g} ns; an element written as long as {self.costs.move:.3g} of "
            f"them, an operation as long as {self.costs.start:.3g} per example; kernels are "
            f"computed {self.costs.block} at once (relative error of the fit "
            f"{100 * self.error:.0f} %, {self.networks} networks)"
        )


def calibrate(batch_size: int = 1, repeats: int = 20) -> Calibration:
    """Measure the costs of operations on this machine with the current backend.

    Args:
        batch_size: Number of examples per batch, as the pruned network will be used.
        repeats: Runs of each network. The first quartile of its times is used, since other load on
            the machine can only increase them.

    Returns:
        The costs and the error of the fit.

    Raises:
        CostsError: The times do not grow with the multiply-adds: the machine is too busy.
        ValueError: ``batch_size`` or ``repeats`` is not a whole number >= 1.
    """
    found = networks()
    rows = latency(found, (batch_size,), repeats)
    seconds = np.array([row.quartiles[0] / 1e3 for row in rows])
    return calibrated(list(found.values()), seconds, batch_size, keras.backend.backend())


def calibrated(
    found: Sequence[keras.Model], seconds: Array, batch_size: int, backend: str
) -> Calibration:
    """Fit the cost model to times that may have been measured on another machine.

    Args:
        found: The networks, those of :func:`networks`.
        seconds: The time of one batch for each network, in seconds (networks,).
        batch_size: Number of examples per batch.
        backend: The name of the runtime.

    Returns:
        The costs and the error of the fit.

    Raises:
        CostsError: The times do not grow with the multiply-adds: the machine is too busy.
    """
    read = [PrunableLayers.of(model) for model in found]
    fits = {
        block: fit(np.array([_counts(model, batch_size, block) for model in read]), seconds)
        for block in BLOCKS
    }
    block = min(fits, key=lambda block: fits[block][1])
    coefficients, error = fits[block]
    _, work, move, start = (float(coefficient) for coefficient in coefficients)
    if not work:
        raise CostsError(
            "calibrate: expected times that grow with the multiply-adds. Received times that do "
            "not: the machine is too busy. Try again, or with more repeats."
        )
    return Calibration(
        costs=Costs(move / work, start / work / batch_size, block),
        nanoseconds=1e9 * work,
        error=error,
        batch_size=batch_size,
        backend=backend,
        networks=len(found),
    )


def fit(counts: Array, seconds: Array) -> tuple[Array, float]:
    """Nonnegative least squares for the relative errors of ``counts @ coefficients``.

    Args:
        counts: The features of each network (networks, features).
        seconds: The times (networks,).

    Returns:
        The coefficients (features,), all >= 0, and the root mean square of the relative errors.

    Examples:
        >>> counts = np.array([[1.0, 0.0], [1.0, 2.0], [1.0, 4.0]])
        >>> coefficients, error = fit(counts, np.array([1, 2, 3]))
        >>> coefficients.round(6).tolist(), round(error, 6)
        ([1.0, 0.5], 0.0)
    """
    relative = counts / seconds[:, None]
    best = np.zeros(counts.shape[1]), 1.0
    # There are few features, so all choices of the nonzero coefficients are tried.
    for used in itertools.product((False, True), repeat=counts.shape[1]):
        chosen = np.flatnonzero(used)
        solution = np.linalg.lstsq(relative[:, chosen], np.ones(len(seconds)), rcond=None)[0]
        coefficients = np.zeros(counts.shape[1])
        coefficients[chosen] = solution
        error = float(np.sqrt(np.mean((relative @ coefficients - 1) ** 2)))
        if (coefficients >= 0).all() and error < best[1]:
            best = coefficients, error
    return best


def _counts(model: ModelLike, batch_size: int, block: int) -> tuple[float, ...]:
    """The features of a run of a network: 1, multiply-adds, elements written, and operations.

    The multiply-adds are those of convolutions with widths rounded up to multiples of ``block``.
    """
    network = graph_of(model)
    written = sum(
        math.prod(side or 1 for side in network.shapes[call.outputs[0]][1:])
        for call in network.calls
    )
    work = sum(
        layer.multiply_adds // layer.kernels * filled(layer.kernels, block)
        for layer in profile(model).layers
    )
    return 1.0, float(batch_size * work), float(batch_size * written), float(len(network.calls))


# --- the networks: chains of one stage ---


def networks() -> Mapping[str, keras.Model]:
    """The networks that :func:`calibrate` times, by name."""
    return {
        f"{name}, {side}x{side}x{width}, {depth} stages": _chain(stage, side, width, depth)
        for name, stage in STAGES.items()
        for side, width in MAPS
        for depth in DEPTHS
    }


def _chain(stage: Stage, side: int, width: int, depth: int) -> keras.Model:
    inputs = keras.Input((side, side, width))
    tensor = inputs
    for _ in range(depth):
        tensor = stage(tensor)
    return keras.Model(inputs, tensor)


def _convolution(size: int, tensor: Tensor, share: int = 1) -> Tensor:
    return layers.Conv2D(tensor.shape[-1] // share, size, padding="same")(tensor)


def _parts(tensor: Tensor) -> Tensor:
    """A layer that surgery has split by size."""
    return layers.Concatenate()([_convolution(size, tensor, share=2) for size in (3, 1)])


def _padding(tensor: Tensor) -> Tensor:
    return layers.Cropping2D(1)(layers.ZeroPadding2D(1)(tensor))


STAGES: dict[str, Stage] = {
    "1x1": partial(_convolution, 1),
    "3x3": partial(_convolution, 3),
    "5x5": partial(_convolution, 5),
    "3x3 and 1x1": _parts,
    "padding and cropping": _padding,
}
