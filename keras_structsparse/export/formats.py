"""Save, load and export models."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras

from keras_structsparse._files import write_atomically
from keras_structsparse._typing import StrPath
from keras_structsparse.errors import ModelError, OutputError
from keras_structsparse.graph import functional_graph

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

    Examples:
        >>> import tempfile
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


@dataclass(frozen=True)
class Exporter:
    """How a format is written.

    Attributes:
        suffix: How the name of the file ends; empty for a directory.
        write: Writes a model to a path.
        needs: The modules that it takes, and those that run the result.
    """

    suffix: str
    write: Callable[[keras.Model, Path], Path]
    needs: tuple[str, ...]


def export(model: keras.Model, path: StrPath, format: str = "saved_model") -> Path:
    """Export a model's inference for use without Keras, atomically.

    Args:
        model: A built model.
        path: Where to: for "saved_model" a directory, for "litert" a file whose name ends in
            ``.tflite``, for "onnx" in ``.onnx``. An earlier export there is replaced.
        format: One of :data:`EXPORTERS`.

    Returns:
        The path.

    Raises:
        ModelError: For "onnx": the model has no graph.
        OutputError: The path has another ending, holds something else or cannot be written.
        RuntimeError: A module that the format needs is not installed.
        ValueError: ``format`` is unknown.

    Examples:
        >>> import tempfile
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> path = export(model, Path(tempfile.mkdtemp(), "model"))
        >>> (path / "saved_model.pb").is_file()
        True
    """
    if format not in EXPORTERS:
        raise ValueError(f"format: expected one of {sorted(EXPORTERS)}. Received: {format!r}")
    check_installed(format)
    return EXPORTERS[format].write(model, Path(path))


def check_installed(format: str) -> None:
    """Raise unless a format can be written and run here.

    Raises:
        RuntimeError: A module is not installed.
    """
    missing = [m for m in EXPORTERS[format].needs if importlib.util.find_spec(m) is None]
    if missing:
        extra = "onnx" if format == "onnx" else "tensorflow"
        raise RuntimeError(
            f"format: expected {' and '.join(EXPORTERS[format].needs)} for '{format}'. Received: "
            f"{missing[0]} is not installed; pip install 'keras-structsparse[{extra}]'"
        )


def _export_saved_model(model: keras.Model, path: Path) -> Path:
    """A TensorFlow SavedModel with the endpoint ``serve``."""
    # Replacing a directory deletes what is in it.
    if path.exists() and not (_is_saved_model(path) or (path.is_dir() and not any(path.iterdir()))):
        raise OutputError(
            f"path: expected a new directory, or a SavedModel to replace. Received: {path}"
        )

    return write_atomically(path, lambda target: _written(model, target, "tf_saved_model"))


def _is_saved_model(path: Path) -> bool:
    return (path / SAVED_MODEL_FILE).is_file()


def _export_litert(model: keras.Model, path: Path) -> Path:
    """A file for LiteRT, once TensorFlow Lite."""
    _check_suffix(path, "litert")
    return write_atomically(path, lambda target: _written(model, target, "litert"))


def _export_onnx(model: keras.Model, path: Path) -> Path:
    """A file for ONNX Runtime and others."""
    _check_suffix(path, "onnx")
    # Without it, Keras wants the model to have been called.
    specs = [keras.tree.map_structure(_spec, functional_graph.input_structure(model))]
    return write_atomically(
        path, lambda target: _written(model, target, "onnx", input_signature=specs)
    )


def _spec(tensor: Any) -> keras.InputSpec:
    return keras.InputSpec(dtype=tensor.dtype, shape=(None, *tensor.shape[1:]), name=tensor.name)


def _check_suffix(path: Path, format: str) -> None:
    suffix = EXPORTERS[format].suffix
    if path.suffix != suffix:
        raise OutputError(f"path: expected a file name that ends in {suffix}. Received: {path}")


def _written(model: keras.Model, target: Path, format: str, **options: Any) -> None:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of converters that use what numpy has deprecated
        model.export(str(target), format=format, verbose=False, **options)


EXPORTERS: Mapping[str, Exporter] = MappingProxyType(
    {
        "litert": Exporter(".tflite", _export_litert, ("tensorflow",)),
        "onnx": Exporter(".onnx", _export_onnx, ("tf2onnx", "onnxruntime")),
        "saved_model": Exporter("", _export_saved_model, ("tensorflow",)),
    }
)
"""The export formats."""
