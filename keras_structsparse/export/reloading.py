"""Prove before a long training that what it makes can be saved, and loaded again."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_structsparse._records import shortened
from keras_structsparse._typing import Array
from keras_structsparse.errors import ModelError, OutputError
from keras_structsparse.export.formats import SUFFIX
from keras_structsparse.graph.functional_graph import input_structure
from keras_structsparse.graph.model_files.loading import load_model
from keras_structsparse.graph.numerics import relative_difference
from keras_structsparse.graph.scope_names import check_names
from keras_structsparse.surgery.verification import random_inputs

TOLERANCE = 1e-3
"""Relative difference of outputs that can be rounding, also where TensorFloat-32 is used."""


def check_reloads(model: keras.Model, argument: str) -> int:
    """Save a model, load it, and compare the outputs of both.

    The random numbers that are drawn later are those that would be drawn without this call.

    Args:
        model: A built model.
        argument: What the caller's user knows the model as.

    Returns:
        The size of its file in bytes.

    Raises:
        ModelError: It cannot be saved, its file cannot be loaded, as with a ``Lambda`` layer, or
            the loaded model computes something else, as with a layer whose ``get_config`` lacks an
            argument. Or TensorFlow cannot scope a name in it.
        OutputError: There is no room for its file.

    Examples:
        >>> layers = [keras.layers.Conv2D(2, 3), keras.layers.Lambda(lambda x: 2 * x)]
        >>> check_reloads(keras.Sequential([keras.Input((8, 8, 1)), *layers]), "build")
        Traceback (most recent call last):
        ...
        keras_structsparse.errors.ModelError: build: expected a model that can be saved and ...
    """
    check_names(model, argument)
    drawn = random.getstate()
    try:
        return _check(model, argument)
    finally:  # Initializers of the loaded layers draw their seeds from it, as a training does.
        random.setstate(drawn)


def _check(model: keras.Model, argument: str) -> int:
    expected = f"{argument}: expected a model that can be saved and loaded again"
    with tempfile.TemporaryDirectory(prefix="structsparse_") as folder:
        file = Path(folder, f"model{SUFFIX}")
        try:
            model.save(str(file))
            loaded = load_model(file)
        except OSError as error:  # a full disk says nothing of the model
            raise OutputError(
                f"{file}: expected a path that can be written. Received: {error}"
            ) from error
        except Exception as error:  # of any layer's get_config and from_config
            reason = str(error).partition("cannot be loaded: ")[2] or str(error)
            raise ModelError(f"{expected}. Received: {' '.join(reason.split())[:300]}") from error
        if not _differ(model, loaded):
            return file.stat().st_size
    raise ModelError(
        f"{expected} with the same outputs. Received: {shortened(model.name)}, whose file computes "
        "something else; does a layer's get_config lack an argument?"
    )


def _differ(model: keras.Model, loaded: keras.Model) -> bool:
    """Whether outputs differ; unknown ones of models without a graph, or random ones, do not."""
    try:
        arrays = random_inputs(model, 2, 0)
    except ModelError:
        return False
    structure = input_structure(model)
    first, again, other = (_outputs(each, structure, arrays) for each in (model, model, loaded))
    if any(not np.array_equal(a, b, equal_nan=True) for a, b in zip(first, again, strict=True)):
        return False
    return any(
        np.isfinite(a).all() and not relative_difference(a, b) <= TOLERANCE
        for a, b in zip(first, other, strict=True)
    )


def _outputs(model: keras.Model, structure: object, arrays: list[Array]) -> list[Array]:
    tensors = [
        keras.ops.convert_to_tensor(array.astype(keras.backend.standardize_dtype(given.dtype)))
        for array, given in zip(arrays, model.inputs, strict=True)
    ]
    outputs = model(keras.tree.pack_sequence_as(structure, tensors), training=False)
    return [
        np.asarray(keras.ops.convert_to_numpy(output)).astype("float64")
        for output in keras.tree.flatten(outputs)
    ]
