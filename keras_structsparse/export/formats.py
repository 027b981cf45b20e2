"""Save and load models, and write them in the formats of other runtimes."""

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

from keras_structsparse._files import quoted, unlisted, write_atomically, write_manifest
from keras_structsparse._typing import StrPath
from keras_structsparse.errors import OutputError
from keras_structsparse.export import litert
from keras_structsparse.export.quantization import Quantization, litert_options, quantize_onnx
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.model_files.contents import SUFFIXES
from keras_structsparse.graph.model_files.loading import load_model as load_model

SUFFIX = ".keras"


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


@dataclass(frozen=True)
class Exporter:
    """How a format is written.

    Attributes:
        suffix: The ending of the file's name; empty for a directory.
        write: Writes a model to a path that does not exist, its numbers as they are or quantised.
        needs: The modules that write the format, and those that run the result.
    """

    suffix: str
    write: Callable[[keras.Model, Path, Quantization | None], None]
    needs: tuple[str, ...]


def export(
    model: keras.Model,
    path: StrPath,
    format: str = "saved_model",
    quantization: Quantization | None = None,
) -> Path:
    """Export a model for inference without Keras, atomically, as it is and without a check.

    :func:`keras_structsparse.export` also folds batch normalisations and runs the result.

    Args:
        model: A built model.
        path: A directory for "saved_model", a file ``*.tflite`` for "litert", ``*.onnx`` for
            "onnx". An existing file is replaced; a directory only if it is empty or holds nothing
            but an earlier export.
        format: One of :data:`EXPORTERS`.
        quantization: How numbers are stored, of a mode that the format has; None as they are.

    Returns:
        The path.

    Raises:
        ModelError: For "onnx": the model has no graph; for "litert": a layer does not run there,
            or not in 8 bits.
        OutputError: The path has another ending, holds something else, or cannot be written.
        RuntimeError: A module that the format needs is not installed.
        ValueError: ``format`` is unknown.

    Examples:
        >>> import tempfile
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> path = export(model, Path(tempfile.mkdtemp(), "model"))
        >>> (path / "saved_model.pb").is_file()
        True
    """
    check_path(path, format)
    check_installed(format)
    check_layers(model, format)
    return write_atomically(
        path, lambda target: EXPORTERS[format].write(model, target, quantization)
    )


def check_path(path: StrPath, format: str) -> None:
    """Raise unless a model can be exported to a path without the loss of anything else.

    Raises:
        OutputError: The path has another ending than the format's, or holds something that is not
            an earlier export.
        ValueError: ``format`` is unknown.
    """
    target, suffix = Path(path), _exporter(format).suffix
    if not suffix:
        _check_no_suffix_of_another(target, format)
        return _check_directory(target)
    expected = f"path: expected a file name that ends in {suffix}"
    if target.suffix != suffix:
        raise OutputError(f"{expected}. Received: {path}")
    if target.is_dir():
        raise OutputError(f"{expected}. Received a directory: {path}")


def _check_no_suffix_of_another(path: Path, format: str) -> None:
    """A directory called x.onnx is hardly meant: readers choose the format by the suffix."""
    if path.suffix in SUFFIXES:
        raise OutputError(
            f"path: expected a directory for the format {format!r}. Received: {path}, the name of "
            "a file that holds a Keras model"
        )
    for other, exporter in EXPORTERS.items():
        if exporter.suffix and path.suffix == exporter.suffix:
            raise OutputError(
                f"path: expected a directory for the format {format!r}. Received: {path}, the name "
                f"of a file for format={other!r} (--format {other})"
            )


def _check_directory(path: Path) -> None:
    expected = "path: expected a new or empty directory, or one that holds nothing but an export"
    if path.exists() and not path.is_dir():
        raise OutputError(f"{expected}. Received a file: {path}")
    if held := unlisted(path):
        raise OutputError(f"{expected}. Received: {path}, which holds {quoted(held)}")


def _exporter(format: str) -> Exporter:
    if format not in EXPORTERS:
        raise ValueError(f"format: expected one of {sorted(EXPORTERS)}. Received: {format!r}")
    return EXPORTERS[format]


def check_installed(format: str) -> None:
    """Raise unless a format can be written and run here.

    Raises:
        RuntimeError: A module is not installed.
        ValueError: ``format`` is unknown.
    """
    needs = _exporter(format).needs
    missing = [module for module in needs if importlib.util.find_spec(module) is None]
    if missing:
        extra = "onnx" if format == "onnx" else "tensorflow"
        raise RuntimeError(
            f"format: expected {', '.join(needs)} to be installed for '{format}'. Received: "
            f"{missing[0]} is not installed; pip install 'keras-structsparse[{extra}]'"
        )


def check_layers(model: keras.Model, format: str) -> None:
    """Raise if a format is known not to run a layer of a model.

    Raises:
        ModelError: There is such a layer.
    """
    if format == "litert":
        litert.check_loops(model)


def _write_saved_model(model: keras.Model, path: Path, quantization: Quantization | None) -> None:
    """A TensorFlow SavedModel with the endpoint ``serve``, and a list of its files."""
    assert quantization is None, "a SavedModel has no such mode"
    _write(model, path, "tf_saved_model")
    write_manifest(path)


def _write_litert(model: keras.Model, path: Path, quantization: Quantization | None) -> None:
    """A file for LiteRT, formerly TensorFlow Lite."""
    try:
        _write(model, path, "litert", **litert_options(model, quantization))
    except Exception as error:
        if refusal := litert.refusal(model, error):
            raise refusal from error
        raise


def _write_onnx(model: keras.Model, path: Path, quantization: Quantization | None) -> None:
    """A file for ONNX Runtime and others."""
    # Without a signature, Keras requires that the model has been called.
    specs = [keras.tree.map_structure(_spec, functional_graph.input_structure(model))]
    _write(model, path, "onnx", input_signature=specs)
    if quantization is not None:
        quantize_onnx(path, quantization)


def _spec(tensor: Any) -> keras.InputSpec:
    return keras.InputSpec(dtype=tensor.dtype, shape=(None, *tensor.shape[1:]), name=tensor.name)


def _write(model: keras.Model, target: Path, format: str, **options: Any) -> None:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of converters that use what numpy has deprecated
        model.export(str(target), format=format, verbose=False, **options)


EXPORTERS: Mapping[str, Exporter] = MappingProxyType(
    {
        "litert": Exporter(".tflite", _write_litert, ("tensorflow",)),
        "onnx": Exporter(".onnx", _write_onnx, ("onnx", "tf2onnx", "onnxruntime")),
        "saved_model": Exporter("", _write_saved_model, ("tensorflow",)),
    }
)
"""The export formats."""
