"""Proximal steps against an independent convex solver."""

from __future__ import annotations

import functools
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from helpers_prox import Array, naive_norms, numpy, random_kernel

from keras_structsparse._typing import Tensor
from keras_structsparse.graph import nested_groups
from keras_structsparse.regularizers import norm_factors
from keras_structsparse.regularizers.prox import prox_chain, prox_squared

TIGHT = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas", "tol_ktratio"), 1e-10)
KERNELS, MANY_KERNELS = 20, 300
NEAR = 1e-4
"""The objective is strongly convex: half this squared is what the solver's may still be off by."""
CASES = [((3, 3, 1), "half_ring"), ((4, 4, 1), "half_ring"), ((5, 5, 2), "ring"), ((6, 2), "ring")]

# CLARABEL says so when it stops short of tolerances this tight; how short is checked below.
pytestmark = pytest.mark.filterwarnings("ignore:Solution may be inaccurate:UserWarning")


def norm_of(entries: cp.Expression, norm: str) -> cp.Expression:
    """The norms of equations (12), (25) and (29), in the solver's words."""
    m = entries.size
    factor = {"l2": 1.0, "linf": 1.0, "group_normalized": m**-0.5, "group_scaled": m**0.5}[norm]
    return factor * (cp.norm_inf(entries) if norm == "linf" else cp.norm2(entries))


@functools.cache
def problem(shape: tuple[int, ...], how: str, norm: str, power: int = 1, kernels: int = 1) -> Any:
    """The definition of the prox, with the kernel and the steps as parameters."""
    masks = nested_groups.masks(shape[:-1], how).astype(bool)
    entries = (masks.shape[1] * shape[-1], kernels)
    z, v = cp.Variable(entries), cp.Parameter(entries)
    steps = cp.Parameter(len(masks), nonneg=True)
    sums = [
        sum(
            step * norm_of(z[np.repeat(mask, shape[-1]), j], norm)
            for step, mask in zip(steps, masks, strict=True)
        )
        for j in range(kernels)
    ]
    penalty = cp.square(sum(sums)) if power == 2 else sum(sums)
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(z - v) + penalty)), z, v, steps


def solve(kernel: Array, how: str, norm: str, steps: Array, power: int = 1) -> tuple[Array, Any]:
    """The solver's z for the given kernels together, and the objective as a function."""
    shape, kernels = kernel.shape[:-1], kernel.shape[-1]
    definition, z, v, weights = problem(shape, how, norm, power, kernels)
    v.value, weights.value = kernel.reshape(-1, kernels), steps
    definition.solve(solver=cp.CLARABEL, **TIGHT)
    solution = z.value.reshape(kernel.shape)

    def objective(x: Array) -> float:
        z.value = x.reshape(-1, kernels)
        return float(definition.objective.value)

    return solution, objective


def disagreements(ours: Array, theirs: Array, how: str, objective: Any) -> list[str]:
    """What is wrong with our minimiser, judged by the solver's."""
    left, solved = (naive_norms(each, how, "linf") for each in (ours, theirs))
    # Groups that stay may be tiny: the solver's is then as tiny, but not lost.
    zeros = np.where(left == 0, solved >= NEAR, solved < np.minimum(left / 2, NEAR))
    return [
        *(["objective"] if objective(ours) > objective(theirs) + 1e-8 else []),
        *(["minimiser"] if np.abs(ours - theirs).max() > NEAR else []),
        *(["zeros"] if zeros.any() else []),
    ]


def pruning_steps(kernels: Array, how: str, norm: str) -> Array:
    """Steps (groups,), falling inwards, long enough to remove a third of all entries."""
    steps = np.linspace(1.0, 0.3, len(nested_groups.sizes(kernels.shape[:-2], how)))
    for length in 0.1 * 1.2 ** np.arange(50):
        z = numpy(prox_chain(kernels, how, norm, length * steps[:, None]))
        if np.mean(z == 0) > 1 / 3:
            break
    return length * steps


def backwards(kernel: Array, how: str, norm: str, steps: Array) -> Array:
    """The same thresholds in the wrong order, from the whole kernel to its outermost ring."""
    for n in range(len(steps))[::-1]:
        only = np.where(np.arange(len(steps)) == n, steps, 0.0)[:, None]
        kernel = numpy(prox_chain(kernel, how, norm, only))
    return kernel


@pytest.mark.parametrize(
    "amount", [KERNELS, pytest.param(MANY_KERNELS, marks=pytest.mark.slow)], ids=["some", "many"]
)
@pytest.mark.parametrize("norm", norm_factors.NORMS)
@pytest.mark.parametrize(("shape", "how"), CASES)
def test_the_chain_of_thresholds_is_the_solvers_minimum(
    shape: tuple[int, ...], how: str, norm: str, amount: int
) -> None:
    kernels = random_kernel((*shape, amount), dead=0.05)
    steps = pruning_steps(kernels, how, norm)
    ours = numpy(prox_chain(kernels, how, norm, steps[:, None]))
    assert 0.3 < np.mean(ours == 0) < 0.7
    wrong = backwards(kernels, how, norm, steps)
    found = []
    for j in range(amount):
        one = slice(j, j + 1)
        theirs, objective = solve(kernels[..., one], how, norm, steps)
        assert disagreements(ours[..., one], theirs, how, objective) == []
        found += disagreements(wrong[..., one], theirs, how, objective)
        # Negative control: a step a thousandth too short is told apart.
        moved = ours[..., one] + 1e-3 * (kernels[..., one] - ours[..., one])
        if np.abs(moved - ours[..., one]).max() > 1e-4:
            assert "objective" in disagreements(moved, theirs, how, objective)
    assert found, "the wrong order must be told apart"


@pytest.mark.parametrize("norm", norm_factors.NORMS)
@pytest.mark.parametrize("power", [1, 2])
def test_kernel_count_is_the_solvers_minimum(norm: str, power: int) -> None:
    for seed in range(6):
        kernels = random_kernel((2, 2, 1, 5), seed)
        steps = np.array([0.4])
        ours = numpy(_kernel_count(kernels, norm, steps, power))
        theirs, objective = solve(kernels, "kernel", norm, steps, power)
        assert disagreements(ours, theirs, "kernel", objective) == []
        assert disagreements(0.99 * ours, theirs, "kernel", objective)


def _kernel_count(kernels: Array, norm: str, steps: Array, power: int) -> Tensor:
    if power == 1:
        return prox_chain(kernels, "kernel", norm, steps)
    return prox_squared(kernels, "kernel", norm, 1.0, steps, per="layer")


@pytest.mark.parametrize("norm", norm_factors.NORMS)
def test_squared_sizes_are_the_solvers_minimum(norm: str) -> None:
    kernels = random_kernel((3, 3, 1, 10))
    steps = np.array([0.2, 0.3, 0.1])
    ours = numpy(prox_squared(kernels, "half_ring", norm, 1.0, steps[:, None]))
    for j in range(10):
        one = slice(j, j + 1)
        theirs, objective = solve(kernels[..., one], "half_ring", norm, steps, power=2)
        assert disagreements(ours[..., one], theirs, "half_ring", objective) == []
        assert disagreements(0.99 * ours[..., one], theirs, "half_ring", objective)
