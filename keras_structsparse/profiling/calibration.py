"""What operations cost on this machine, for the cost model of surgery.

Small networks are timed in turns, and ``time = overhead + a multiply_adds + b elements_written +
c operations`` is fitted to them, with the kernels of convolutions counted in blocks of several
sizes: the one that explains the times best counts. Surgery needs it, ``b / a`` and ``c / a``.
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
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.channels.costs import Costs, filled
from keras_structsparse.profiling.latency import latency
from keras_structsparse.profiling.profile import profile

Stage = Callable[[Tensor], Tensor]

MAPS = ((7, 64), (14, 16), (14, 40), (14, 64), (28, 8), (28, 20), (28, 32))
"""Sides and channels of the maps that the networks work on."""

BLOCKS = (1, 4, 8, 16, 32)
"""Numbers of kernels that may be computed at once."""

DEPTHS = (2, 8)
"""Stages of a network: with two depths, starting a network and starting a layer come apart."""


@dataclass(frozen=True)
class Calibration:
    """Measured costs.

    Attributes:
        costs: What surgery takes, for one example in a batch of ``batch_size``.
        nanoseconds: The time of one multiply-add.
        error: Root mean square of the relative error of the fitted times.
        batch_size: Examples in a batch.
        backend: The backend that was timed.
        networks: Number of networks that were timed.
    """

    costs: Costs
    nanoseconds: float
    error: float
    batch_size: int
    backend: str
    networks: int

    def to_json(self) -> str:
        """The costs, and how they were measured, as :meth:`Costs.from_json` reads them."""
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
    """Measure what operations cost on this machine with the current backend.

    Args:
        batch_size: Examples in a batch: the one that the pruned network will run with.
        repeats: Runs of each network; the quarter of the fastest counts, as other load only adds.

    Returns:
        The costs and how well they explain the times.

    Raises:
        CostsError: The times do not grow with the multiply-adds: the machine is too busy.
        ValueError: ``batch_size`` or ``repeats`` is no whole number >= 1.
    """
    found = networks()
    rows = latency(found, (batch_size,), repeats)
    seconds = np.array([row.quartiles[0] / 1e3 for row in rows])
    return calibrated(list(found.values()), seconds, batch_size, keras.backend.backend())


def calibrated(
    found: Sequence[keras.Model], seconds: Array, batch_size: int, backend: str
) -> Calibration:
    """The costs that explain measured times, wherever these were measured.

    Args:
        found: The networks, those of :func:`networks`.
        seconds: The time of each for a batch (networks,).
        batch_size: Examples in a batch.
        backend: What ran them.

    Returns:
        The costs and how well they explain the times.

    Raises:
        CostsError: The times do not grow with the multiply-adds: the machine is too busy.
    """
    fits = {
        block: fit(np.array([_counts(model, batch_size, block) for model in found]), seconds)
        for block in BLOCKS
    }
    block = min(fits, key=lambda block: fits[block][1])
    prices, error = fits[block]
    _, work, move, start = (float(price) for price in prices)
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
    """Prices >= 0 with the least relative error of ``counts @ prices``.

    Args:
        counts: How often each network pays each price (networks, prices).
        seconds: The times (networks,).

    Returns:
        The prices, and the root mean square of the relative error.

    Examples:
        >>> prices, error = fit(np.array([[1.0, 0.0], [1.0, 2.0], [1.0, 4.0]]), np.array([1, 2, 3]))
        >>> prices.round(6).tolist(), round(error, 6)
        ([1.0, 0.5], 0.0)
    """
    relative = counts / seconds[:, None]
    best = np.zeros(counts.shape[1]), 1.0
    # Few prices: the best choice of those that are not 0 is found by trying all.
    for used in itertools.product((False, True), repeat=counts.shape[1]):
        chosen = np.flatnonzero(used)
        prices = np.zeros(counts.shape[1])
        prices[chosen] = np.linalg.lstsq(relative[:, chosen], np.ones(len(seconds)), rcond=None)[0]
        error = float(np.sqrt(np.mean((relative @ prices - 1) ** 2)))
        if (prices >= 0).all() and error < best[1]:
            best = prices, error
    return best


def _counts(model: keras.Model, batch_size: int, block: int) -> tuple[float, ...]:
    """What a run of a network pays for: itself, multiply-adds, elements written, operations.

    The multiply-adds are those of convolutions whose kernels fill their blocks.
    """
    network = functional_graph.read(model)
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
    """The networks that are timed, by name."""
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
    """A layer split by size."""
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
