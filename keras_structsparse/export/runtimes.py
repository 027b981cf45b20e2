"""The latency of networks in the runtimes that they are exported for, measured in turns."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras

from keras_structsparse._validation import MOST_THREADS, count, one_of, positive_int, set_checked
from keras_structsparse.export import formats
from keras_structsparse.graph.batch_norm_folding import folded
from keras_structsparse.graph.training_only import without_training_layers
from keras_structsparse.profiling.latency import (
    MOST_REPEATS,
    Inputs,
    Latency,
    Run,
    compiled,
    latency_row,
    random_inputs,
    timed_in_turns,
)


def _of_keras(model: keras.Model, inputs: Inputs, threads: int) -> Run:
    """The backend of Keras, with the threads that it was started with."""
    return compiled(model, inputs)


def _of_onnx_runtime(model: keras.Model, inputs: Inputs, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # Otherwise the threads of the network before stay busy for a while, waiting for work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with _exported(model, "onnx") as path:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    arrays = keras.tree.flatten(inputs)
    feed = {x.name: array for x, array in zip(session.get_inputs(), arrays, strict=True)}
    return lambda: session.run(None, feed)


def _of_litert(model: keras.Model, inputs: Inputs, threads: int) -> Run:
    import tensorflow as tf

    with _exported(model, "litert") as path, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the interpreter has moved to another package
        network = tf.lite.Interpreter(model_content=path.read_bytes(), num_threads=threads)
    arrays = keras.tree.flatten(inputs)
    places = _places(network, [tensor.name for tensor in model.inputs])
    for place, array in zip(places, arrays, strict=True):
        network.resize_tensor_input(place, array.shape)
    network.allocate_tensors()
    made = [each["index"] for each in network.get_output_details()]

    def run() -> Any:
        for place, array in zip(places, arrays, strict=True):
            network.set_tensor(place, array)
        network.invoke()
        return [network.get_tensor(index) for index in made]

    return run


def _places(network: Any, names: list[str]) -> list[int]:
    """The indices of the input tensors of a LiteRT network, in the order of the model's inputs."""
    found = network.get_signature_runner().get_input_details()
    # Names are those of the model's inputs, or count the arguments.
    ordered = names if set(names) == set(found) else sorted(found)
    return [found[name]["index"] for name in ordered]


@contextlib.contextmanager
def _exported(model: keras.Model, format: str) -> Iterator[Path]:
    """A file of a model, while it is read."""
    with tempfile.TemporaryDirectory(prefix="structsparse_") as folder:
        target = Path(folder, f"model{formats.EXPORTERS[format].suffix}")
        yield formats.export(model, target, format)


RUNTIMES: Mapping[str, Callable[[keras.Model, Inputs, int], Run]] = MappingProxyType(
    {"keras": _of_keras, "litert": _of_litert, "onnxruntime": _of_onnx_runtime}
)
"""The runtimes: how to get from a model, inputs and a number of threads to a function to time."""

_FORMATS = {"litert": "litert", "onnxruntime": "onnx"}


@dataclass(frozen=True)
class Runtime:
    """Where a network will run.

    Attributes:
        name: "onnxruntime", "litert", or "keras": the backend of Keras in this process.
        threads: Number of threads of a run; "keras" has those that its backend was started with.
        batch_size: Number of examples in a run.

    Raises:
        ValueError: An attribute is out of its range.
    """

    name: str = field(default="onnxruntime", metadata={"choices": tuple(RUNTIMES)})
    threads: int = 1
    batch_size: int = 1

    def __post_init__(self) -> None:
        set_checked(
            self,
            name=one_of("runtime", self.name, tuple(RUNTIMES)),
            threads=count("threads", self.threads, MOST_THREADS),
            batch_size=positive_int("batch_size", self.batch_size),
        )

    def check_installed(self) -> None:
        """Raise unless the runtime is installed.

        Raises:
            RuntimeError: A module is missing.
        """
        if self.name in _FORMATS:
            formats.check_installed(_FORMATS[self.name])

    def started(self, name: str, model: keras.Model) -> Run:
        """A run of a network on random inputs, as it is exported: normalisations are folded.

        Args:
            name: The name of the network, for errors.
            model: The network. The sizes of its inputs are known.

        Raises:
            ModelError: The size of an input is open, or the runtime does not have a layer.
            RuntimeError: The runtime is not installed.
        """
        self.check_installed()
        inputs = random_inputs(name, model, self.batch_size)
        return RUNTIMES[self.name](_as_exported(model), inputs, self.threads)

    def latency(self, models: Mapping[str, keras.Model], repeats: int = 30) -> tuple[Latency, ...]:
        """Time networks in turns, as they are exported: with folded batch normalisations.

        Args:
            models: The networks by name. The sizes of their inputs are known.
            repeats: Number of timed runs of each network.

        Returns:
            A row for each network, in the given order.

        Raises:
            ModelError: The size of an input is open, or the runtime does not have a layer.
            RuntimeError: The runtime is not installed.
            ValueError: ``repeats`` is not a whole number >= 1, or there are no models.

        Examples:
            >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
            >>> (row,) = Runtime("keras").latency({"small": model}, repeats=3)
            >>> row.name, row.median > 0
            ('small', True)
        """
        if not models:
            raise ValueError("models: expected at least one model by name. Received none.")
        count("repeats", repeats, MOST_REPEATS)
        runs = [self.started(name, model) for name, model in models.items()]
        columns = timed_in_turns(runs, repeats).T
        return tuple(
            latency_row(name, self.batch_size, times)
            for name, times in zip(models, columns, strict=True)
        )

    def __str__(self) -> str:
        threads = "" if self.name == "keras" else f", {self.threads} threads"
        return f"{self.name}, batches of {self.batch_size}{threads}"


def _as_exported(model: keras.Model) -> keras.Model:
    return without_training_layers(folded(model))[0]
