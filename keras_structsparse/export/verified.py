"""Export a model, with a check of every step: folding, writing, and running what was written."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_structsparse._files import write_atomically
from keras_structsparse._typing import Array, StrPath
from keras_structsparse.errors import ModelError
from keras_structsparse.export import clean_process, formats
from keras_structsparse.export.quantization import Quantization
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.batch_norm_folding import folded
from keras_structsparse.graph.training_only import without_training_layers
from keras_structsparse.surgery.verification import Verification, random_inputs, verify_folding

ALLOWED_DIFFERENCE = 3e-3
"""Largest relative difference that can be rounding, on GPUs with TensorFloat-32 too."""

ALLOWED_IF_COARSE = 1e-2
"""The same for layers in half precision and quantised ones."""

DOUBTFUL = 0.2
"""Relative difference of a quantised network that is worth a warning."""

_SAMPLES = 16


@dataclass(frozen=True)
class Exported:
    """What an export has done.

    Attributes:
        path: The file or directory that was written.
        format: Its format.
        size: Its size in bytes.
        difference: Largest difference between an output of the exported network, run in a process
            without this package, and that of the given model, relative to the largest absolute
            value of that output. Behind a last softmax, sigmoid or tanh, which may be saturated, it
            is that of the values in front if that is larger.
        folded: Names of the batch normalisations that were folded; empty if there were none, or if
            they were left as they are.
        folding: The float64 comparison of the folded network with the given one. None if nothing
            could be folded or ``fold=False``.
        left_out: Names of the layers that act in training only, such as dropout and random
            augmentation: the exported network does not have them.
        quantized: "int8" or "dynamic"; None for numbers as they are. Then the difference is that of
            the outputs only, and for "int8" on some of the representative inputs.
    """

    path: Path
    format: str
    size: int
    difference: float
    folded: tuple[str, ...]
    folding: Verification | None
    left_out: tuple[str, ...] = ()
    quantized: str | None = None

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        if self.folding is not None:
            done = f"folded {len(self.folded)} batch normalisations"
            yield f"{done if self.folded else 'not folded'}; {self.folding}"
        if self.left_out:
            yield f"left out, as they act in training only: {', '.join(self.left_out)}"
        how = f", in 8 bits ({self.quantized})" if self.quantized else ""
        yield f"relative difference, run without this package{how}: {self.difference:.1e}"
        yield f"saved {self.path} ({self.size:,} bytes)"


def export(
    model: keras.Model,
    path: StrPath,
    format: str = "saved_model",
    quantize: str | None = None,
    representative: Any = None,
    fold: bool = True,
) -> Exported:
    """Export a model for inference without Keras and without this package, and check the result.

    Batch normalisations are folded into the layers beside them. The folded network is compared
    with the given one in float64, with a control: a network with one more kernel removed must
    differ. If the control shows no difference, as in some networks that were never trained, the
    model is exported unfolded. Layers that act in training only, such as dropout and random
    augmentation, are left out. The written file is run in another process, where this package
    cannot be imported, on 16 random inputs in [0, 1]. Only then is it put in place. Differences
    behind a last softmax, sigmoid or tanh are seen also where random inputs saturate it.

    With ``quantize="int8"`` weights and activations have 8 bits, the former with a scale for each
    output channel; inputs and outputs stay as they are. The file is four times smaller, and on most
    processors of phones faster. The ranges of the activations are those on ``representative``, so
    these must be like the inputs of later, with the same preprocessing. With ``"dynamic"`` the
    weights have 8 bits, and no data are needed. A quantised network is not equal to the given one;
    how far it is, is measured and returned. Compare the accuracy on data of your own.

    Args:
        model: A functional or a built Sequential model.
        path: A directory for "saved_model", a file ``*.tflite`` for "litert", ``*.onnx`` for
            "onnx". An existing file is replaced; a directory only if it is empty or holds nothing
            but an earlier export.
        format: "saved_model", "litert" or "onnx".
        quantize: "int8" for "litert" and "onnx", or "dynamic" for "litert"; None for numbers as
            they are.
        representative: For "int8" inputs as the network gets them: an array (examples, ...), arrays
            nested as its inputs, or a ``tf.data.Dataset`` or ``keras.utils.PyDataset`` of batches
            ``(inputs, ...)``. Up to 200 examples are used: of arrays evenly spaced ones.
        fold: Whether to fold batch normalisations.

    Returns:
        What was done.

    Raises:
        ModelError: The model has no graph, folding changes its outputs, the format does not have
            what a layer needs, or the written file does not run by itself or computes something
            else; or ``representative`` does not fit the model. Nothing is written.
        OutputError: The path has another ending, holds something else, or cannot be written.
        RuntimeError: A module that the format needs is not installed; or the backend cannot
            compute in float64, which the check of the folding needs.
        ValueError: ``format`` is unknown or does not have ``quantize``, or ``representative`` is
            missing or of no use.

    Warns:
        UserWarning: The outputs of the quantised network differ by more than a fifth.

    Examples:
        >>> import tempfile
        >>> stack = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(name="norm")]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *stack])
        >>> done = export(model, Path(tempfile.mkdtemp(), "model"))
        >>> done.folded, done.difference < 1e-5
        (('norm',), True)
    """
    formats.check_path(path, format)
    formats.check_installed(format)
    if isinstance(model, keras.Model):
        formats.check_layers(model, format)
    quantization = Quantization.of(model, format, quantize, representative)
    plain, names, check = _folded(model) if fold else (model, (), None)
    plain, left_out = without_training_layers(plain)
    inputs = _inputs(model, quantization)
    differences: list[float] = []

    def write(target: Path) -> None:
        formats.export(plain, target, format, quantization)
        differences.append(_checked_difference(model, target, inputs, quantization))

    write_atomically(path, write)
    done = Path(path), format, _size(Path(path)), differences[0], names, check, left_out, quantize
    return Exported(*done)


def _folded(model: keras.Model) -> tuple[keras.Model, tuple[str, ...], Verification | None]:
    """Fold batch normalisations if a check in float64 says that this changes nothing.

    Returns:
        The model to export, names of the folded layers, and the check. The model is the given one
        if there is nothing to fold, or if the check's control shows no difference.
    """
    plain = folded(model)
    names = tuple((_normalizations(model) - _normalizations(plain)).elements())
    if not names:
        return model, (), None
    check = verify_folding(model)
    if not check.error <= check.tolerance:  # NaN as well
        raise ModelError(
            f"fold: expected a folded network that equals the model. Received: {check}. Nothing is "
            "written; fold=False (--no-fold) exports the model unfolded"
        )
    return (plain, names, check) if check.passed else (model, (), check)


def _normalizations(model: keras.Model) -> Counter[str]:
    """How often each batch normalisation is called, by name."""
    calls = functional_graph.read(model).layers()
    normalization = keras.layers.BatchNormalization
    return Counter(c.operation.name for c in calls if isinstance(c.operation, normalization))


def _inputs(model: keras.Model, quantization: Quantization | None) -> Any:
    """Random inputs in [0, 1], as images are, some of them dark: large ones saturate a softmax.

    Measured activations have another range on them, so then some of the measured inputs are taken.
    """
    structure = functional_graph.input_structure(model)
    if quantization is not None and quantization.examples:
        return keras.tree.pack_sequence_as(structure, quantization.batch(_SAMPLES))
    arrays = [
        (_darkened(np.clip(array / 4 + 0.5, 0, 1)) if array.dtype.kind == "f" else array).astype(
            keras.backend.standardize_dtype(tensor.dtype)
        )
        for array, tensor in zip(random_inputs(model, _SAMPLES, 0), model.inputs, strict=True)
    ]
    return keras.tree.pack_sequence_as(structure, arrays)


def _darkened(array: Array) -> Array:
    """The samples times 1, 1/2, 1/4 and 1/8 in turn."""
    shares = 0.5 ** (np.arange(len(array)) % 4)
    return array * shares.reshape(-1, *[1] * (array.ndim - 1))


def _checked_difference(
    model: keras.Model, path: Path, inputs: Any, quantization: Quantization | None
) -> float:
    exact = quantization is None
    difference = clean_process.check_portable(model, [path], inputs, fronts=exact)[path]
    if quantization is not None:
        return _warned_of(difference, quantization)
    allowed = ALLOWED_IF_COARSE if clean_process.is_coarse(model) else ALLOWED_DIFFERENCE
    if not difference <= allowed:  # NaN as well
        raise ModelError(
            "export: expected outputs that differ from the model's by at most "
            f"{allowed:g}. Received a relative difference of {difference:.1e}; nothing "
            "is written"
        )
    return difference


def _warned_of(difference: float, quantization: Quantization) -> float:
    if not np.isfinite(difference):
        raise ModelError("quantize: expected finite outputs. Received others; nothing is written")
    if difference > DOUBTFUL:
        warnings.warn(
            f"export: the outputs of the network in 8 bits ({quantization.mode}) differ by "
            f"{difference:.0%} of the largest one; measure its accuracy",
            stacklevel=2,
        )
    return difference


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
