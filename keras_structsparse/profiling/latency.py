"""The latency of networks on this machine, measured in turns."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse._validation import count, positive_int
from keras_structsparse.errors import ModelError
from keras_structsparse.profiling.memory import check_memory

Inputs = Any
"""Arrays in the structure that a model takes."""

Run = Callable[[], Any]

MOST_REPEATS = 100_000
"""Timed batches; more would not end."""

WARM_UP = 3
"""Runs before the timed ones, which include the compilation."""


@dataclass(frozen=True)
class Latency:
    """The latency of one network at one batch size.

    Attributes:
        name: The name that the caller gave to the network.
        batch_size: Number of examples per batch.
        median: The median time, in milliseconds per batch.
        quartiles: The first and the third quartile, in milliseconds per batch.
        repeats: Number of timed batches.
    """

    name: str
    batch_size: int
    median: float
    quartiles: tuple[float, float]
    repeats: int


def latency(
    models: Mapping[str, keras.Model],
    batch_sizes: Sequence[int] = (1, 128),
    repeats: int = 30,
    input_shape: Sequence[int] | None = None,
) -> tuple[Latency, ...]:
    """Time the compiled inference of networks, in turns in this process.

    The speed of a machine drifts, so every round runs each network once, and each round starts
    with another network. A run includes the transfer of inputs and outputs between host and device.
    The first runs, which compile the network, are not timed.

    Args:
        models: The networks by name, with one input or several.
        batch_sizes: Numbers of examples per batch.
        repeats: Number of timed batches for each network and batch size.
        input_shape: (height, width, channels), for networks of one input that leave them open.

    Returns:
        A row for each batch size and network, in the given order.

    Raises:
        ModelError: A model is not built, or a size of its input is open.
        ValueError: ``repeats`` or a batch size is not a whole number >= 1, or more than would ever
            end or fit into the memory, or there are no models.

    Examples:
        >>> inputs = keras.Input((4,))
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
        >>> (row,) = latency({"dense": model}, batch_sizes=(2,), repeats=3)
        >>> row.name, row.batch_size, row.quartiles[0] <= row.median <= row.quartiles[1]
        ('dense', 2, True)
    """
    if not models:
        raise ValueError("models: expected at least one model by name. Received none.")
    count("repeats", repeats, MOST_REPEATS)
    for size in batch_sizes:
        positive_int("batch_sizes", size)
    rows: list[Latency] = []
    for size in batch_sizes:
        runs = [compiled(m, random_inputs(n, m, size, input_shape)) for n, m in models.items()]
        times = timed_in_turns(runs, repeats)
        rows += [
            latency_row(name, size, column) for name, column in zip(models, times.T, strict=True)
        ]
    return tuple(rows)


def latency_row(name: str, batch_size: int, seconds: Array) -> Latency:
    """The median and the quartiles of times.

    Args:
        name: The name of the network.
        batch_size: Number of examples per batch.
        seconds: The time of each batch, in seconds (repeats,).
    """
    low, median, high = (float(t) for t in np.percentile(1e3 * seconds, [25, 50, 75]))
    return Latency(name, batch_size, median, (low, high), len(seconds))


def timed_in_turns(runs: Sequence[Run], repeats: int) -> Array:
    """The times of runs in turns, in seconds (repeats, runs).

    Each round runs each once, and begins with another one. The first runs are not timed.

    Args:
        runs: What to run.
        repeats: Number of rounds.
    """
    for run in runs:
        for _ in range(WARM_UP):
            run()
    seconds = np.zeros((repeats, len(runs)))
    for turn in range(repeats):
        for place in range(len(runs)):
            index = (turn + place) % len(runs)
            start = time.perf_counter()
            runs[index]()
            seconds[turn, index] = time.perf_counter() - start
    return seconds


# --- inputs ---


def random_inputs(
    name: str,
    model: keras.Model,
    batch_size: int,
    input_shape: Sequence[int] | None = None,
) -> Inputs:
    """Random inputs in the structure that the model takes; the same numbers at every call.

    Args:
        name: The name of the model, for errors.
        model: A built model.
        batch_size: Number of examples.
        input_shape: (height, width, channels), for models of one input that leave them open.

    Raises:
        ModelError: The model is not built, or a size of its input is open.
    """
    if not getattr(model, "inputs", None):
        raise ModelError(f"models['{name}']: expected a built model. Received: {model!r}")
    # A Sequential has no `input` before it has been called as a layer.
    single = isinstance(model, keras.Sequential)
    structure = model.inputs[0] if single else model.input
    rng = np.random.default_rng(0)

    def sample(tensor: Any) -> Array:
        shape = _example_shape(name, tensor, input_shape)
        # In float64, as they are drawn.
        size = 8 * batch_size * math.prod(shape)
        check_memory(size, f"{batch_size} inputs of shape {shape}", "batch_sizes")
        values = rng.random((batch_size, *shape))
        return values.astype(keras.backend.standardize_dtype(tensor.dtype))

    return keras.tree.map_structure(sample, structure)


def _example_shape(name: str, tensor: Any, input_shape: Sequence[int] | None) -> tuple[int, ...]:
    known = tuple(tensor.shape[1:])
    shape = known if input_shape is None else tuple(input_shape)
    fits = len(shape) == len(known) and all(
        isinstance(side, int) and fixed in (None, side)
        for side, fixed in zip(shape, known, strict=True)
    )
    if not fits:
        raise ModelError(
            f"models['{name}']: expected inputs of known size. Received input_shape={shape} for an "
            f"input of shape {known}; pass input_shape=(height, width, channels) that fits it."
        )
    return shape


# --- one compiled run, by backend ---


def compiled(model: keras.Model, inputs: Inputs) -> Run:
    """The compiled inference of a model on inputs, on the backend of Keras.

    Args:
        model: The model.
        inputs: Arrays in the structure that the model takes.
    """
    return _COMPILERS.get(keras.backend.backend(), _eager)(model, inputs)


def _tensorflow(model: keras.Model, inputs: Inputs) -> Run:
    import tensorflow as tf

    signature = keras.tree.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), inputs)
    call = tf.function(lambda x: model(x, training=False), input_signature=[signature])
    call.get_concrete_function()
    return lambda: _to_host(call(keras.tree.map_structure(tf.constant, inputs)))


def _jax(model: keras.Model, inputs: Inputs) -> Run:
    import jax

    state = [v.value for v in model.trainable_variables]
    fixed = [v.value for v in model.non_trainable_variables]
    call = jax.jit(lambda s, f, x: model.stateless_call(s, f, x, training=False)[0])
    return lambda: _to_host(call(state, fixed, inputs))


def _torch(model: keras.Model, inputs: Inputs) -> Run:
    import torch

    def run() -> Any:
        with torch.no_grad():
            return _to_host(model(inputs, training=False))

    return run


def _eager(model: keras.Model, inputs: Inputs) -> Run:
    return lambda: _to_host(model(inputs, training=False))


def _to_host(outputs: Any) -> Any:
    """Copy outputs to the host, which waits until the device has finished."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


_COMPILERS: dict[str, Callable[[keras.Model, Inputs], Run]] = {
    "tensorflow": _tensorflow,
    "jax": _jax,
    "torch": _torch,
}
