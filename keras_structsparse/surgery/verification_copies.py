"""What verification compares: copies in float64, their outputs, and plans that must differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.kernel_axes import plain_kernel
from keras_structsparse.graph.numerics import relative_difference
from keras_structsparse.graph.prunable_layers import kernel_layers
from keras_structsparse.surgery.plans import Plan


def in_float64(model: keras.Model) -> keras.Model:
    """A copy of a model that computes in float64.

    Raises:
        RuntimeError: The backend computes in float32 only.
    """
    check_backend()
    return copy_model(model, double_dtype)


def check_backend() -> None:
    """Raise RuntimeError if the backend computes in float32 only."""
    probe = keras.ops.ones((), dtype="float64")
    if keras.backend.standardize_dtype(probe.dtype) != "float64":
        raise RuntimeError(
            "verify: the backend computes in float32 only. With JAX, set JAX_ENABLE_X64=1."
        )


def double_dtype(layer: keras.Layer) -> dict[str, str]:
    """The dtype to change; integer inputs keep theirs, since they may be indices."""
    whole = isinstance(layer, keras.layers.InputLayer) and "float" not in str(layer.dtype)
    return {} if whole else {"dtype": "float64"}


def outputs_of(
    models: Sequence[keras.Model], inputs: Sequence[Array], training: bool | None = False
) -> list[Array]:
    """All outputs of some networks of the same inputs.

    Args:
        models: The networks.
        inputs: One array per input.
        training: As the networks are called. Unless it is given, a layer called with
            ``training=True`` would put the layers after it in training mode.
    """
    packed = keras.tree.pack_sequence_as(functional_graph.input_structure(models[0]), inputs)
    outputs = keras.tree.flatten([model(packed, training=training) for model in models])
    return [keras.ops.convert_to_numpy(tensor) for tensor in outputs]


def largest_difference(expected: Sequence[Array], found: Sequence[Array]) -> float:
    """The largest relative difference of the outputs; infinite if any entry is not finite."""
    worst = np.max([relative_difference(a, b) for a, b in zip(expected, found, strict=True)])
    return float(worst) if np.isfinite(worst) else float("inf")


def controls(model: keras.Model, plan: Plan) -> Iterator[Plan]:
    """The plan with one more kernel removed, the largest one of each layer in turn."""
    for name, layer in kernel_layers(functional_graph.read(model)).items():
        kernel = plain_kernel(layer)
        base = max(kernel.shape[:-2], default=1)
        sizes = list(plan.sizes.get(name, [base] * kernel.shape[-1]))
        lengths = np.abs(kernel).sum(axis=tuple(range(kernel.ndim - 1))) * (np.array(sizes) > 0)
        if lengths.any():
            sizes[int(np.argmax(lengths))] = 0
            yield Plan({**plan.sizes, name: sizes})
