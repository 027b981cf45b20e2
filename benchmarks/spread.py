"""Two ways to spread the channels of a narrow tensor: pad a zero channel and take, or a 1x1 kernel.

    python benchmarks/spread.py > benchmarks/results/spread.txt

Both put c/2 channels at their places among c. They run in turns in one process, compiled, with the
median over the rounds; beside them a 3x3 convolution of c channels, for scale.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

ROUNDS = 60
SHAPES = [(1, 28, 16), (128, 28, 16), (1, 14, 64), (128, 14, 64), (1, 32, 32), (64, 56, 64)]

Tensor = Any


def contenders(batch: int, side: int, channels: int) -> dict[str, Callable[[], Tensor]]:
    """The compiled functions to time, by name."""
    rng = np.random.default_rng(0)
    half = channels // 2
    wide = tf.constant(rng.normal(size=(batch, side, side, channels)).astype("float32"))
    narrow = tf.constant(rng.normal(size=(batch, side, side, half)).astype("float32"))
    places = [i // 2 if i % 2 else half for i in range(channels)]
    spread = np.zeros((1, 1, half, channels), "float32")
    for target, source in enumerate(places):
        if source < half:
            spread[0, 0, source, target] = 1.0
    kernel = tf.constant(rng.normal(size=(3, 3, channels, channels)).astype("float32"))
    one = tf.constant(spread)

    def take() -> Tensor:
        return ops.take(ops.pad(narrow, [[0, 0]] * 3 + [[0, 1]]), places, axis=-1)

    def product() -> Tensor:
        return ops.conv(narrow, one, 1, "same")

    def convolution() -> Tensor:
        return ops.conv(wide, kernel, 1, "same")

    np.testing.assert_array_equal(take(), product())
    return {f.__name__: tf.function(f) for f in (take, product, convolution)}


def medians(functions: dict[str, Callable[[], Tensor]]) -> dict[str, float]:
    """Median microseconds of each function, run in turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS + 3):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(1e6 * (time.perf_counter() - start))
    return {name: float(np.median(values[3:])) for name, values in times.items()}


def main() -> None:
    """Print the table."""
    print(f"keras {keras.__version__}, tensorflow {tf.__version__}, {platform.machine()}, us")
    print(f"{'batch':>5} {'map':>7} {'c':>3} {'take':>8} {'1x1':>8} {'ratio':>6} {'3x3 conv':>9}")
    for batch, side, channels in SHAPES:
        found = medians(contenders(batch, side, channels))
        ratio = found["take"] / found["product"]
        print(
            f"{batch:>5} {side:>3}x{side:<3} {channels:>3} {found['take']:>8.0f} "
            f"{found['product']:>8.0f} {ratio:>6.2f} {found['convolution']:>9.0f}"
        )


if __name__ == "__main__":
    main()
