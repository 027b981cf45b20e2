"""Inputs with masked steps, which show whether two networks treat masks alike."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import keras
import numpy as np

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Array


def with_masked_steps(model: keras.Model, arrays: Sequence[Array], seed: int) -> list[Array]:
    """Copies of inputs in which steps along the second axis are masked.

    Args:
        model: The model; of its masking layers the values that mask a step.
        arrays: Inputs, the samples first.
        seed: Decides which steps are masked: the last ones of some samples, single ones of others,
            in turn by each of the values. The last sample has none, and every one keeps a step.

    Returns:
        The inputs. The steps are the same ones in all inputs.
    """
    values = _mask_values(model)
    results = []
    for array in arrays:
        rng, changed = np.random.default_rng(seed), np.array(array)
        steps = array.shape[1] if array.ndim > 1 else 1
        for sample in range(len(array) - 1):
            value = values[sample // 2 % len(values)] if array.dtype.kind == "f" else 0
            keep = int(rng.integers(1, max(steps, 2)))
            which = np.arange(keep, steps) if sample % 2 == 0 else rng.permutation(steps)[keep:]
            if array.ndim > 1:
                changed[sample, which] = value
        results.append(changed)
    return results


def _mask_values(model: keras.Model) -> list[float]:
    """What masks a step of the inputs: of all layers that say so, or zero."""
    found = [getattr(layer, "mask_value", None) for layer in _keras_compat.inner_layers(model)]
    numbers = [float(value) for value in found if isinstance(value, Real)]
    return list(dict.fromkeys(numbers)) or [0.0]
