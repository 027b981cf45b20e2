"""Prove that exported models do not need this package: run them where it cannot be imported."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Array, StrPath
from keras_structsparse.errors import ModelError
from keras_structsparse.graph.last_activations import inverted, kinds
from keras_structsparse.graph.numerics import relative_difference

_RELOAD = """
import json, sys
sys.modules["keras_structsparse"] = None  # from here on its import fails
try:
    import keras_structsparse
except ImportError:
    pass
else:
    sys.exit("keras_structsparse can be imported: nothing is proved")
from pathlib import Path
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

def from_litert(path):
    import tensorflow as tf
    run = tf.lite.Interpreter(model_path=path).get_signature_runner()
    wanted = set(run.get_input_details())  # names of tensors or, in a dict, keys
    names = next(n for n in (task["names"], keys, list(wanted)) if n and set(n) == wanted)
    outputs = run(**dict(zip(names, arrays, strict=True)))
    names = task["outputs"] or [f"output_{i}" for i in range(len(outputs))]
    return [outputs[name] for name in names]

def from_onnx(path):
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {x.name: a for x, a in zip(session.get_inputs(), arrays)})

LOADERS = {".keras": from_keras, ".tflite": from_litert, ".onnx": from_onnx}
for number, path in enumerate(task["paths"]):
    print("loading", path, file=sys.stderr)
    load = LOADERS.get(Path(path).suffix, from_saved_model)
    outputs = [np.asarray(x).astype("float64") for x in load(path)]
    np.savez(f"outputs_{number}.npz", *outputs)
"""


def check_portable(
    model: keras.Model, paths: Sequence[StrPath], inputs: Any, fronts: bool = True
) -> dict[StrPath, float]:
    """Run saved models where this package cannot be imported, and compare the outputs.

    Args:
        model: The model that was saved.
        paths: ``.keras``, ``.tflite`` and ``.onnx`` files, which run in Keras, LiteRT and ONNX
            Runtime, and SavedModel directories.
        inputs: An array (batch, ...), or a list or a dict of arrays, as the model takes them.
        fronts: Whether values in front of a last softmax, sigmoid or tanh are compared as well.

    Returns:
        For each path the largest absolute difference between an output and the model's own,
        relative to the largest absolute value of that output. Behind a last softmax, sigmoid or
        tanh in float32, it is that of the values in front if that is larger.

    Raises:
        ModelError: A file is missing, does not load or run without this package, or gives outputs
            of other shapes; the message ends with what Python raised there.
    """
    for path in paths:
        if not Path(path).exists():
            raise ModelError(
                f"paths: expected saved models. Received '{path}', which does not exist"
            )
    outputs = model(inputs, training=False)
    expected = [_float64(output) for output in keras.tree.flatten(outputs)]
    with tempfile.TemporaryDirectory(prefix="structsparse_") as folder:
        _give_task(Path(folder), model, paths, inputs, outputs)
        _reload(Path(folder))
        last = _kinds(model) if fronts else ()
        return {
            path: _difference(path, expected, Path(folder, f"outputs_{number}.npz"), last)
            for number, path in enumerate(paths)
        }


def _give_task(
    folder: Path,
    model: keras.Model,
    paths: Sequence[StrPath],
    inputs: Any,
    outputs: Any,
) -> None:
    arrays = keras.tree.flatten(inputs)
    for index, array in enumerate(arrays):
        np.save(folder / f"input_{index}.npy", keras.ops.convert_to_numpy(array))
    task = {
        "paths": [os.path.abspath(path) for path in paths],
        "inputs": len(arrays),
        "outputs": _keys(outputs),
        "names": [tensor.name for tensor in model.inputs],
        "keys": _keys(inputs) if isinstance(inputs, (Mapping, list, tuple)) else None,
    }
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")


def _keys(structure: Any) -> list[str]:
    """The keys of a dict in the order in which Keras flattens it; empty for other structures."""
    return sorted(structure) if isinstance(structure, Mapping) else []


def _reload(folder: Path) -> None:
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": keras.backend.backend()}
    # -I: ignores PYTHON* variables and user packages; the working directory is not on the path.
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
        raise ModelError(
            "paths: expected files that load and run without keras_structsparse. "
            f"Python ended with code {done.returncode}: {_reason(done.stderr)}"
        )


def _reason(said: str) -> str:
    """What Python raised, without what native libraries said before; else the last lines."""
    lines = said.strip().splitlines()
    raised = [i for i, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return "\n".join(lines[raised[-1] :][:15] if raised else lines[-15:])


def is_coarse(model: keras.Model) -> bool:
    """Whether a layer of a model computes in half precision or is quantised.

    Examples:
        >>> half = keras.layers.Dense(2, dtype="mixed_bfloat16")
        >>> is_coarse(keras.Sequential([keras.Input((4,)), half]))
        True
    """
    return any(
        layer.compute_dtype in ("float16", "bfloat16") or getattr(layer, "quantization_mode", None)
        for layer in _keras_compat.inner_layers(model)
    )


def _kinds(model: keras.Model) -> Sequence[str]:
    """The last activations, whose outputs tell what is in front unless they are coarse."""
    if is_coarse(model):
        return ()
    with contextlib.suppress(ModelError):
        return kinds(model)
    return ()  # no graph


def _difference(
    path: StrPath, expected: Sequence[Array], file: Path, last: Sequence[str] = ()
) -> float:
    """The largest relative difference between outputs, and behind activations of a kind."""
    with np.load(file) as archive:
        received = [archive[name] for name in archive.files]
    shapes = [x.shape for x in expected], [x.shape for x in received]
    if shapes[0] != shapes[1]:
        raise ModelError(f"'{path}': expected outputs of shapes {shapes[0]}. Received: {shapes[1]}")
    pairs = list(zip(expected, received, strict=True))
    fronts = [
        (inverted(own, kind), inverted(other, kind))
        for (own, other), kind in zip(pairs, last, strict=False)
        if kind
    ]
    return float(np.max([relative_difference(a, b) for a, b in [*pairs, *fronts]]))


def _float64(tensor: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(tensor)).astype("float64")
