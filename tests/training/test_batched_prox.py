"""Serving all layers at once must equal serving each by itself."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from keras_structsparse.regularizers import GroupSparsityRegularizer, KernelCount, KernelSize
from keras_structsparse.training.optimizer.batched_prox import (
    RegularizedKernel,
    proximal_steps,
    subgradients,
)

Array = Any


def member(
    regularizer: GroupSparsityRegularizer, shape: tuple[int, ...], paired: bool, seed: int
) -> RegularizedKernel:
    """A random kernel with a dead kernel and a dead half ring, maybe with a gamma."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=shape)
    kernel[..., 0] = 0
    kernel[0, ..., 1] = 0
    gamma = rng.normal(size=shape[-1])
    gamma[2] = 0
    own = regularizer.bound(weight=1.0 + seed, scale="norm/gamma" if paired else None)
    scale = keras.Variable(gamma, dtype="float64") if paired else None
    return RegularizedKernel(own, keras.Variable(kernel, dtype="float64"), scale)


def adapted(one: RegularizedKernel) -> RegularizedKernel:
    """The kernel with random weights of its groups."""
    norms = one.regularizer.group_norms(one.kernel)
    one.regularizer.group_weights = np.random.default_rng(9).uniform(0.1, 3, tuple(norms.shape))
    return one


def members() -> list[RegularizedKernel]:
    """Layers of all kinds: some fit together, some must be served alone."""
    size = KernelSize(0.2)
    return [
        member(size, (5, 5, 3, 6), False, 0),
        member(size, (5, 5, 2, 4), False, 1),
        member(size, (5, 5, 4, 7), True, 2),
        member(KernelSize(0.1, norm="group_scaled", reweight=0.1), (5, 5, 2, 4), True, 3),
        member(KernelCount(0.3), (3, 3, 2, 5), True, 4),
        member(KernelCount(0.3, reweight=0.2), (7, 5), False, 5),
        member(KernelSize(0.3, norm="linf"), (3, 3, 2, 5), False, 6),
        member(KernelSize(0.3, norm="group_normalized", groups="ring"), (4, 5, 2, 5), False, 7),
        member(KernelCount(0.1, power=2), (3, 3, 2, 4), False, 8),
        adapted(member(size, (5, 5, 3, 6), False, 9)),
        adapted(member(KernelSize(0.1, reweight=0.1), (5, 5, 2, 4), True, 10)),
        adapted(member(KernelCount(0.1), (3, 3, 2, 4), False, 11)),
    ]


def numbers(tensor: Any) -> Array:
    return keras.ops.convert_to_numpy(tensor)


def assert_same_change(found: Any, expected: Any, start: RegularizedKernel) -> None:
    """Equal to rounding, with zeros in the same places; and something changes at all."""
    moved = 0.0
    for mine, theirs, before in zip(found, expected, (start.kernel, start.gamma), strict=True):
        assert (mine is None) == (theirs is None) == (before is None)
        if before is not None:
            np.testing.assert_allclose(numbers(mine), numbers(theirs), atol=1e-12)
            assert np.array_equal(numbers(mine) == 0, numbers(theirs) == 0)
            moved = max(moved, np.abs(numbers(theirs) - numbers(before)).max())
    assert moved > 1e-3, "the control does not fail"


@pytest.mark.parametrize("index", range(12))
def test_proximal_steps(index: int) -> None:
    every = members()
    steps = [0.3 + 0.1 * i for i in range(len(every))]
    one = every[index]
    if one.gamma is None:
        expected = one.regularizer.prox(one.kernel, steps[index]), None
    else:
        expected = one.regularizer.pair_prox(one.kernel, one.gamma, steps[index])
    assert_same_change(proximal_steps(every, steps)[index], expected, one)


@pytest.mark.parametrize("index", range(12))
def test_subgradients(index: int) -> None:
    every = members()
    kernel, gamma = subgradients(every)[index]
    one = every[index]
    if one.gamma is None:
        expected = one.regularizer.subgradient(one.kernel)
    else:
        expected, scale = one.regularizer.pair_subgradient(one.kernel, one.gamma)
        np.testing.assert_allclose(numbers(gamma), numbers(scale), atol=1e-12)
        assert np.abs(numbers(scale)).max() > 1e-3, "the control does not fail"
    np.testing.assert_allclose(numbers(kernel), numbers(expected), atol=1e-12)


def test_one_step_length_per_kernel() -> None:
    one = member(KernelSize(0.2), (5, 5, 3, 6), False, 0)
    steps = np.linspace(0, 1, 6)
    ((kernel, _),) = proximal_steps([one], [steps])
    np.testing.assert_allclose(numbers(kernel), numbers(one.regularizer.prox(one.kernel, steps)))
