"""A sweep of seconds: two alphas on some of the digits."""

from __future__ import annotations

import functools
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import keras

from keras_structsparse.data import datasets
from keras_structsparse.data.datasets import Dataset, Split
from keras_structsparse.sweeps import Run, Settings, sweep
from keras_structsparse.training.recipes import Recipe

SETTINGS = Settings(
    "two convolutions",
    "600 digits",
    alphas=(0.002, 0.008),
    taus=(0.0, 0.1, 0.3, 0.5),
    recipe=Recipe(epochs=5, batch_size=16),
    max_drop=1.0,
)
LARGEST = 10_000
"""Bytes: more than a record has, and less than a network."""


def build() -> keras.Model:
    """Two convolutions with batch normalisation."""
    inputs = x = keras.Input((8, 8, 1))
    for index in (1, 2):
        x = keras.layers.Conv2D(6, 3, padding="same", use_bias=False, name=f"conv{index}")(x)
        x = keras.layers.BatchNormalization(momentum=0.8, name=f"norm{index}")(x)
        x = keras.layers.ReLU(name=f"relu{index}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(10, "softmax", name="head")(x))


@functools.cache
def dataset() -> Dataset:
    """Some of scikit-learn's digits."""
    whole = datasets.load("digits", validation=0.2, seed=0)

    def some(part: Split, count: int) -> Split:
        return Split(part.x[:count], part.y[:count])

    parts = some(whole.train, 600), some(whole.validation, 100), some(whole.test, 100)
    return Dataset("digits", *parts, whole.classes, whole.shape)


def points(run: Run) -> list[tuple[Any, dict[str, Any]]]:
    """What a run has found, without the times."""
    return [(found.trial, asdict(found.point)) for found in run.found()]


def started(
    folder: Path,
    *flags: str,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """The small sweep in a process of its own; the prefix is a command that runs it elsewhere."""
    script = Path(__file__)
    path = os.pathsep.join([str(script.parent), *sys.path])
    return subprocess.Popen(
        [*prefix, sys.executable, str(script), str(folder), *flags],
        env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        stdout=stdout,
        stderr=stderr,
    )


def main(folder: str, *flags: str) -> None:
    """Run the sweep in a process of its own.

    Flags: "seeds" for three of them, to be compared; "mirrored"; "full" for a disk without space.
    """
    import tensorflow as tf
    from helpers_mirrored import two_devices

    strategy = two_devices() if "mirrored" in flags else None
    tf.config.experimental.enable_op_determinism()
    if "full" in flags:  # No file can get larger than this, as on a disk without space.
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))
    settings = replace(SETTINGS, seeds=(0, 1, 2)) if "seeds" in flags else SETTINGS
    sweep(build, dataset(), settings, folder, strategy)


if __name__ == "__main__":
    main(*sys.argv[1:])
