"""Compiled networks and easy data for the tests of ``kss.shrink``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from helpers_shrink import NETWORKS

import keras_structsparse as kss

Array = Any
CROSS = "sparse_categorical_crossentropy"


def easy(model: keras.Model, examples: int = 48) -> tuple[Array, Array]:
    """Inputs with two classes that a mean tells."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(examples, *model.input_shape[1:])).astype("float32")
    labels = (x.reshape(examples, -1).mean(axis=1) > 0).astype("int64")
    return x + labels.reshape(-1, *[1] * (x.ndim - 1)).astype("float32"), labels


def ready(name: str, **options: Any) -> tuple[keras.Model, tuple[Array, Array]]:
    """A network with an optimizer that has a state, and its data."""
    keras.utils.set_random_seed(1)
    model = NETWORKS[name]()
    # A few steps are faster than the compilation of one.
    options = {"loss": CROSS, "metrics": ["accuracy"], "run_eagerly": True, **options}
    model.compile(optimizer=keras.optimizers.Adam(0.01), **options)
    data = easy(model)
    if options["loss"] == CROSS:
        model.fit(*data, epochs=1, batch_size=24, verbose=0)
    return model, data


def shrunk(model: keras.Model, data: Any, validation: Any = None, **options: Any) -> Any:
    """Shrink in two epochs of two steps, unless the options say otherwise."""
    if not {"params", "latency", "max_drop"} & set(options):
        options.setdefault("multiply_adds", 0.5)
    options = {"epochs": 2, "batch_size": 24, "verbose": 0, **options}
    return kss.shrink(model, data, validation, **options)


def values(variables: Sequence[keras.Variable]) -> list[Array]:
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


class Killed(keras.callbacks.Callback):
    """Ctrl-C at the end of an epoch, or at its first batch."""

    def __init__(self, epoch: int, at_batch: bool = False) -> None:
        super().__init__()
        self.epoch, self.at_batch, self.now = epoch, at_batch, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.at_batch and self.now == self.epoch:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch:
            raise KeyboardInterrupt


class Batches(keras.utils.PyDataset):
    """Batches as they are given."""

    def __init__(self, batches: Sequence[tuple[Any, ...]]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self.batches[index]
