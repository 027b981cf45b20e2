"""Save, load and export models, and prove that the files need only Keras."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from keras_structsparse._files import write_atomically
from keras_structsparse.errors import ModelError, OutputError

Array = Any
StrPath = str | os.PathLike[str]

SUFFIX = ".keras"
SAVED_MODEL_FILE = "saved_model.pb"


def save_model(model: keras.Model, path: StrPath) -> Path:
    """Save a model as a ``.keras`` file, atomically.

    Args:
        model: The model.
        path: The file, which ends in ``.keras``; an existing one is replaced.

    Returns:
        The path.

    Raises:
        OutputError: The path does not end in ``.keras`` or cannot be written.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> path = save_model(model, Path(tempfile.mkdtemp(), "model.keras"))
        >>> load_model(path).count_params()
        10
    """
    if Path(path).suffix != SUFFIX:
        raise OutputError(f"path: expected a file name that ends in {SUFFIX}. Received: {path}")
    return write_atomically(path, lambda target: model.save(str(target)))


def load_model(path: StrPath, compile: bool = False) -> keras.Model:
    """Load a model from a ``.keras`` file.

    Args:
        path: The file.
        compile: Whether to restore optimizer and loss too.

    Returns:
        The model.

    Raises:
        ModelError: There is no such file, it is no model, or it needs code that is not there.
    """
    file = Path(path)
    expected = f"'{path}': expected a {SUFFIX} file that holds a model"
    if not file.is_file():
        found = "a directory" if file.is_dir() else "nothing: there is no such file"
        raise ModelError(f"{expected}. Received {found}.")
    if file.suffix != SUFFIX:
        raise ModelError(f"{expected}. Received a file that ends in '{file.suffix}'.")
    try:
        model = keras.models.load_model(file, compile=compile)
    except Exception as error:  # whatever a foreign file makes Keras raise
        # Keras says of any file that is no zip archive that it was not found.
        reason = str(error) if "File not found" not in str(error) else "it is no zip archive"
        raise ModelError(f"{expected}. It cannot be loaded: {reason}") from error
    if not isinstance(model, keras.Model):
        raise ModelError(f"{expected}. Received: {type(model).__name__}")
    return model


def export(model: keras.Model, path: StrPath, format: str = "saved_model") -> Path:
    """Export a model's inference for use without Keras, atomically.

    Args:
        model: A built model.
        path: Where to: for "saved_model" a directory. An earlier export there is replaced.
        format: One of :data:`EXPORTERS`.

    Returns:
        The path.

    Raises:
        OutputError: The path holds something else or cannot be written.
        ValueError: ``format`` is unknown.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> path = export(model, Path(tempfile.mkdtemp(), "model"))
        >>> (path / "saved_model.pb").is_file()
        True
    """
    if format not in EXPORTERS:
        raise ValueError(f"format: expected one of {sorted(EXPORTERS)}. Received: {format!r}")
    return EXPORTERS[format](model, Path(path))


def _export_saved_model(model: keras.Model, path: Path) -> Path:
    """A TensorFlow SavedModel with the endpoint ``serve``."""
    # Replacing a directory deletes what is in it.
    if path.exists() and not (_is_saved_model(path) or (path.is_dir() and not any(path.iterdir()))):
        raise OutputError(
            f"path: expected a new directory, or a SavedModel to replace. Received: {path}"
        )

    def write(target: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            model.export(str(target), format="tf_saved_model", verbose=False)

    return write_atomically(path, write)


def _is_saved_model(path: Path) -> bool:
    return (path / SAVED_MODEL_FILE).is_file()


EXPORTERS: Mapping[str, Callable[[keras.Model, Path], Path]] = MappingProxyType(
    {"saved_model": _export_saved_model}
)
"""The export formats: each writes a model to a path."""


# --- the proof that a file needs only Keras ---

_RELOAD = """
import json, sys
sys.modules["keras_structsparse"] = None  # from here on its import fails
try:
    import keras_structsparse
except ImportError:
    pass
else:
    sys.exit("keras_structsparse can be imported: nothing is proved")
import numpy as np

task = json.load(open("task.json", encoding="utf-8"))
arrays = [np.load(f"input_{i}.npy") for i in range(task["inputs"])]
keys = task["keys"]
inputs = arrays[0] if keys is None else dict(zip(keys, arrays)) if keys else arrays

def from_keras(path):
    import keras
    outputs = keras.models.load_model(path, compile=False)(inputs, training=False)
    return [keras.ops.convert_to_numpy(x) for x in keras.tree.flatten(outputs)]

def from_saved_model(path):
    import tensorflow as tf
    constants = tf.nest.map_structure(tf.constant, inputs)
    loaded = tf.saved_model.load(path)  # holds the variables
    return [x.numpy() for x in tf.nest.flatten(loaded.serve(constants))]

for number, path in enumerate(task["paths"]):
    print("loading", path, file=sys.stderr)
    load = from_keras if path.endswith(".keras") else from_saved_model
    outputs = [np.asarray(x).astype("float64") for x in load(path)]
    np.savez(f"outputs_{number}.npz", *outputs)
"""


def check_portable(
    model: keras.Model, paths: Sequence[StrPath], inputs: Any
) -> dict[StrPath, float]:
    """Run saved models where this package cannot be imported, and compare the outputs.

    Args:
        model: The model that was saved.
        paths: ``.keras`` files and SavedModel directories.
        inputs: An array (batch, ...), or a list or a dict of arrays, as the model takes them.

    Returns:
        For each path the largest absolute difference between an output and the model's own,
        relative to the largest absolute value of that output.

    Raises:
        ModelError: A file does not load or run without this package, or gives outputs of other
            shapes; the message ends with what Python said.
    """
    for path in paths:
        if not Path(path).exists():
            raise ModelError(f"paths: expected saved models. Received '{path}', which is not there")
    outputs = keras.tree.flatten(model(inputs, training=False))
    expected = [_float64(output) for output in outputs]
    with tempfile.TemporaryDirectory(prefix="structsparse_") as folder:
        _give_task(Path(folder), paths, inputs)
        _reload(Path(folder))
        return {
            path: _difference(path, expected, Path(folder, f"outputs_{number}.npz"))
            for number, path in enumerate(paths)
        }


def _give_task(folder: Path, paths: Sequence[StrPath], inputs: Any) -> None:
    arrays = keras.tree.flatten(inputs)
    # Keras flattens a dict in the order of its sorted keys.
    keys = sorted(inputs) if isinstance(inputs, Mapping) else []
    for index, array in enumerate(arrays):
        np.save(folder / f"input_{index}.npy", keras.ops.convert_to_numpy(array))
    task = {
        "paths": [os.path.abspath(path) for path in paths],
        "inputs": len(arrays),
        "keys": keys if isinstance(inputs, (Mapping, list, tuple)) else None,
    }
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")


def _reload(folder: Path) -> None:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": keras.backend.backend()}
    # -I: no PYTHON* variables, no user packages, and the directory it runs in is not on the path.
    done = subprocess.run(
        [sys.executable, "-I", "-c", _RELOAD],
        cwd=folder,
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise ModelError(
            "paths: expected files that load and run without keras_structsparse. "
            f"Python ended with code {done.returncode}:\n{tail}"
        )


def _difference(path: StrPath, expected: Sequence[Array], file: Path) -> float:
    with np.load(file) as archive:
        received = [archive[name] for name in archive.files]
    shapes = [x.shape for x in expected], [x.shape for x in received]
    if shapes[0] != shapes[1]:
        raise ModelError(f"'{path}': expected outputs of shapes {shapes[0]}. Received: {shapes[1]}")
    return float(np.max([_relative(a, b) for a, b in zip(expected, received, strict=True)]))


def _relative(expected: Array, received: Array) -> float:
    scale = np.max(np.abs(expected), initial=0.0)
    error = np.max(np.abs(expected - received), initial=0.0)
    return float(error / scale if scale else error)


def _float64(tensor: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(tensor)).astype("float64")
