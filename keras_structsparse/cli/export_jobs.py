"""What the command ``export`` does: fold, check, write, run what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import typer

from keras_structsparse._files import write_atomically
from keras_structsparse.cli import console
from keras_structsparse.errors import ModelError
from keras_structsparse.export import clean_process
from keras_structsparse.export import formats as exporting
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.batch_norm_folding import folded
from keras_structsparse.surgery.verification import random_inputs, verify_folding

PORTABLE = 1e-2
"""Largest relative difference of an export that is taken for rounding, in half precision too."""


def export(model: keras.Model, path: Path, format: str, fold: bool = True) -> None:
    """Export a model, run the export in another process, and only then put it in place.

    Args:
        model: The model.
        path: Where to write.
        format: One of :data:`keras_structsparse.export.formats.EXPORTERS`.
        fold: Whether to fold batch normalisations first.

    Raises:
        ModelError: Folding changes the outputs, or the export does not run by itself or computes
            something else than the model.
        RuntimeError: A module that the format needs is not installed.
    """
    exporting.check_installed(format)
    plain = fold_verified(model) if fold else model
    found: list[float] = []

    def write(target: Path) -> None:
        exporting.export(plain, target, format)
        found.append(_difference(model, target))

    write_atomically(path, write)
    typer.echo(f"relative difference, run without this package: {found[0]:.1e}")
    typer.echo(f"saved {path} ({console.size_of(path):,} bytes)")


def fold_verified(model: keras.Model) -> keras.Model:
    """The model with batch normalisations folded, after a check.

    It is left as it is if there are none, or if the check can see nothing: the outputs of a network
    that was never trained may be the same for every input.

    Raises:
        ModelError: The outputs differ.
    """
    plain = folded(model)
    count = _normalizations(model) - _normalizations(plain)
    if not count:
        return model
    result = verify_folding(model)
    if not result.error <= result.tolerance:
        raise ModelError(f"{result}. Nothing is written; --no-fold goes on all the same")
    if not result.passed:
        typer.echo(f"not folded; {result}")
        return model
    typer.echo(f"folded {count} batch normalisations; {result}")
    return plain


def _normalizations(model: keras.Model) -> int:
    calls = functional_graph.read(model).layers()
    return sum(isinstance(call.operation, keras.layers.BatchNormalization) for call in calls)


def _difference(model: keras.Model, path: Path) -> float:
    inputs = keras.tree.pack_sequence_as(functional_graph.input_structure(model), _images(model))
    difference = clean_process.check_portable(model, [path], inputs)[path]
    if not difference <= PORTABLE:
        raise ModelError(
            f"export: expected outputs that differ from the model's by at most {PORTABLE:g}. "
            f"Received a relative difference of {difference:.1e}; nothing is written"
        )
    return difference


def _images(model: keras.Model) -> list[Any]:
    """Random inputs in [0, 1], as images are: larger ones would saturate a softmax."""
    arrays = random_inputs(model, samples=16, seed=0)
    return [
        np.clip(array / 4 + 0.5, 0, 1).astype(keras.backend.standardize_dtype(tensor.dtype))
        for array, tensor in zip(arrays, model.inputs, strict=True)
    ]
