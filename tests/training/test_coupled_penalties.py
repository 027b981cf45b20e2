"""Penalties over several layers: their slopes and steps against their definitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from helpers_coupled import (
    SCALES,
    SHAPES,
    SHARES,
    effective,
    joint_links,
    network,
    partial_links,
    reading_links,
    total,
    values,
)
from helpers_prox import Array, gradient, numpy

from keras_structsparse.graph import nested_groups
from keras_structsparse.regularizers import (
    GroupSparsityRegularizer,
    KernelCount,
    KernelSize,
    MultiplyAdds,
)
from keras_structsparse.regularizers.coupling import ChannelGroup, CouplingSpec
from keras_structsparse.training.optimizer.batched_prox import (
    RegularizedKernel,
    proximal_steps,
    subgradients,
)

JOINED: list[tuple[GroupSparsityRegularizer, Mapping[str, CouplingSpec]]] = [
    (KernelCount(0.2), joint_links()),
    (KernelSize(0.2), joint_links()),
    (KernelSize(0.2), partial_links()),
    (KernelSize(0.02, norm="group_scaled", groups="ring"), joint_links("group_scaled")),
    (KernelCount(0.9, norm="group_normalized"), joint_links("group_normalized")),
    (KernelSize(0.4, reweight=0.5), joint_links()),
]
READING: list[tuple[GroupSparsityRegularizer, Mapping[str, CouplingSpec]]] = [
    (MultiplyAdds(1e-3), reading_links()),
    (MultiplyAdds(1e-4, norm="group_scaled", groups="ring"), reading_links()),
    (MultiplyAdds(1e-2, norm="group_normalized", groups="kernel"), reading_links()),
    (MultiplyAdds(1e-3, reweight=0.1), reading_links()),
]


def results(members: list[RegularizedKernel], changes: list[Any]) -> dict[str, Array]:
    """Changes by path of the variable."""
    found = {}
    for member, (kernel, gamma) in zip(members, changes, strict=True):
        found[member.path] = numpy(kernel)
        if gamma is not None:
            found[str(member.regularizer.scale)] = numpy(gamma)
    return found


@pytest.mark.parametrize(("regularizer", "links"), [*JOINED, *READING])
@pytest.mark.parametrize("dead", [0.0, 0.3])
def test_the_slopes_are_those_of_the_sum_of_all_values(
    regularizer: GroupSparsityRegularizer, links: Mapping[str, CouplingSpec], dead: float
) -> None:
    given = values(1, dead)
    members = network(regularizer, links, given)
    closed = results(members, subgradients(members))
    paths = list(given)
    automatic = gradient(lambda *tensors: total(members, paths, tensors), *given.values())
    for path, expected in zip(paths, automatic, strict=True):
        np.testing.assert_allclose(closed[path], expected, rtol=1e-9, atol=1e-12)
    # The direction of a paired kernel does not count where only whole kernels do.
    moved = {path for path, found in zip(paths, automatic, strict=True) if np.any(found**2 > 1e-6)}
    assert moved >= {"b", "c", "a/gamma", "d/gamma"}, "the control does not fail"


@pytest.mark.parametrize(("regularizer", "links"), READING)
def test_multiply_adds_take_the_step_of_a_group_lasso_with_these_slopes(
    regularizer: GroupSparsityRegularizer, links: Mapping[str, CouplingSpec]
) -> None:
    """The reweighted step: what else the slope depends on is held as it was."""
    given = values(2)
    members, step = network(regularizer, links, given), 0.7
    v, found = effective(given), effective(results(members, proximal_steps(members, [step] * 4)))
    slopes = norm_slopes(regularizer, links, v)
    for name, kernel in v.items():
        expected = kernel
        for n, mask in enumerate(group_masks(name, regularizer)):
            norms = np.sqrt((expected**2 * mask).sum(axis=(0, 1, 2)))
            shrunk = np.maximum(0, 1 - step * slopes[name][n] / np.maximum(norms, 1e-300))
            expected = np.where(mask, expected * shrunk, expected)
        np.testing.assert_allclose(found[name], expected, atol=1e-12)
    assert any(np.abs(found[name] - v[name]).max() > 0.05 for name in v)


def group_masks(name: str, regularizer: GroupSparsityRegularizer) -> Array:
    *shape, channels, _ = SHAPES[name]
    masks = nested_groups.masks(tuple(shape), regularizer.groups).reshape(-1, *shape, 1, 1)
    return np.broadcast_to(masks, (len(masks), *shape, channels, 1)).astype(bool)


def norm_slopes(
    regularizer: GroupSparsityRegularizer, links: Mapping[str, CouplingSpec], v: Mapping[str, Array]
) -> dict[str, Array]:
    """Central differences of Omega3 in every l2 norm, all other norms and the weights fixed."""
    norms, factors = {}, {}
    for name, kernel in v.items():
        masks = group_masks(name, regularizer)
        norms[name] = np.sqrt(((kernel**2) * masks).sum(axis=(1, 2, 3)))
        m = masks.sum(axis=(1, 2, 3))
        factors[name] = (
            m.astype(float)
            ** ({"l2": 0.0, "group_scaled": 0.5, "group_normalized": -0.5}[regularizer.norm])
        )
    scaled = {name: norms[name] * factors[name] for name in v}
    alpha, h, found = float(regularizer.alpha.numpy()), 1e-4, {}
    for name in v:
        found[name] = np.zeros_like(norms[name])
        for place in np.ndindex(norms[name].shape):
            ends = []
            for sign in (1, -1):
                moved = {**norms, name: norms[name].copy()}
                moved[name][place] += sign * h
                now = {n: moved[n] * factors[n] for n in v}
                ends.append(omega3(links, now, scaled, regularizer.reweight))
            found[name][place] = alpha * (ends[0] - ends[1]) / (2 * h)
    return found


def omega3(
    links: Mapping[str, CouplingSpec],
    norms: Mapping[str, Array],
    at: Mapping[str, Array],
    eps: float,
) -> float:
    """Equation (34) from group norms, layer by layer, with the weights that norms ``at`` have."""
    result = 0.0
    for name, own in norms.items():
        width = links[name].constant
        for stream in links[name].reads:
            joint, before = (stream_norms(stream, given) for given in (norms, at))
            width += stream.weight * (counting_weights(before[None], eps) * joint).sum()
        sizes = (counting_weights(at[name], eps) * own).sum(axis=0)
        result += SHARES[name] * width * (sizes**2).sum()
    return float(result)


def stream_norms(stream: ChannelGroup, norms: Mapping[str, Array]) -> Array:
    parts = [norms[w.kernel][-1][w.first : w.first + stream.width] for w in stream.writers]
    return np.sqrt(np.sum(np.square(parts), axis=0))


def counting_weights(norms: Array, eps: float) -> Array:
    if not eps:
        return np.ones_like(norms)
    m = (norms[-1] ** 2).sum() / norms[-1].sum()
    return (1 + eps) * m / (norms + eps * m)


def definition(
    regularizer: GroupSparsityRegularizer,
    links: Mapping[str, CouplingSpec],
    v: Mapping[str, Array],
    steps: Any,
) -> tuple[dict[str, Array], Any]:
    """The joint prox in the solver's words: its minimiser, and the objective as a function."""
    z = {n: cp.Variable((kernel[..., 0].size, kernel.shape[-1])) for n, kernel in v.items()}
    flat = {n: kernel.reshape(-1, kernel.shape[-1]) for n, kernel in v.items()}
    alpha = float(regularizer.alpha.numpy())
    terms = [cp.sum_squares(z[n] - flat[n]) / (2 * steps[n]) for n in v]
    power = {"l2": 0.0, "group_scaled": 0.5, "group_normalized": -0.5}[regularizer.norm]
    for n in v:
        ranges = links[n].joined if n in links else ()
        joined = {first + i for first, width in ranges for i in range(width)}
        for g, mask in enumerate(masks := group_masks(n, regularizer).reshape(-1, z[n].shape[0])):
            weight = alpha * SHARES[n] * mask.sum() ** power
            for j in range(z[n].shape[1]):
                if g < len(masks) - 1 or j not in joined:
                    terms.append(weight * cp.norm2(z[n][mask, j]))
    for stream in (s for link in links.values() for s in link.joint):
        for c in range(stream.width):
            whole = cp.hstack([z[w.kernel][:, w.first + c] for w in stream.writers])
            terms.append(alpha * stream.weight * cp.norm2(whole))
    problem = cp.Problem(cp.Minimize(sum(terms)))
    problem.solve(solver=cp.CLARABEL)

    def objective(x: Mapping[str, Array]) -> float:
        for n in v:
            z[n].value = x[n].reshape(flat[n].shape)
        return float(problem.objective.value)

    return {n: z[n].value.reshape(v[n].shape) for n in v}, objective


@pytest.mark.parametrize(("regularizer", "links"), JOINED[:5])
@pytest.mark.parametrize("steps", [(1.0, 1.0, 1.0, 1.0), (1.0, 0.3, 2.0, 0.5)])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:Solution may be inaccurate:UserWarning")
def test_the_joint_step_is_the_solvers_minimum(
    regularizer: GroupSparsityRegularizer,
    links: Mapping[str, CouplingSpec],
    steps: tuple[float, ...],
    seed: int,
) -> None:
    given = weakened(links, values(seed))
    members = network(regularizer, links, given)
    v = effective(given)
    ours = effective(results(members, proximal_steps(members, list(steps))))
    theirs, objective = definition(regularizer, links, v, dict(zip(SHAPES, steps, strict=True)))
    assert objective(ours) <= objective(theirs) + 1e-8
    for name in v:
        np.testing.assert_allclose(ours[name], theirs[name], atol=2e-4)
    assert_joined_kernels_die_together(links, ours)
    # Negative control: a slightly shorter step is told apart.
    moved = {n: ours[n] + 3e-3 * (v[n] - ours[n]) for n in v}
    assert objective(moved) > objective(theirs) + 1e-8


def weakened(links: Mapping[str, CouplingSpec], given: Mapping[str, Array]) -> dict[str, Array]:
    """Every second joint channel is weak in all its layers, the others are not."""
    found = {path: value.copy() for path, value in given.items()}
    for stream in (s for link in links.values() for s in link.joint):
        for w in stream.writers:
            found[w.scale or w.kernel][..., w.first : w.first + stream.width : 2] *= 0.005
    return found


def assert_joined_kernels_die_together(
    links: Mapping[str, CouplingSpec], kernels: Mapping[str, Array]
) -> None:
    dead = []
    for stream in (s for link in links.values() for s in link.joint):
        for c in range(stream.width):
            alive = {bool(kernels[w.kernel][..., w.first + c].any()) for w in stream.writers}
            assert len(alive) == 1
            dead.append(alive == {False})
    assert any(dead)
    assert not all(dead)


def test_the_penalty_of_equal_norms_is_that_of_the_separate_kernels() -> None:
    given = values(0)
    for name, path in SCALES.items():
        given[name] /= np.sqrt((given[name] ** 2).sum(axis=(0, 1, 2)))
        if path is not None:
            given[path] = np.ones(SHAPES[name][-1])
    for norm in ("l2", "group_normalized", "group_scaled"):
        regularizer = KernelSize(0.3, norm=norm, reweight=0.2)
        joint, apart = (
            float(total(network(regularizer, links, given), list(given), list(given.values())))
            for links in (joint_links(norm), {})
        )
        assert joint == pytest.approx(apart, rel=1e-12)
    given["b"][..., 0] = 0
    unequal = [
        float(total(network(KernelCount(0.3), links, given), list(given), list(given.values())))
        for links in (joint_links(), {})
    ]
    assert abs(unequal[0] - unequal[1]) > 1e-3, "the control does not fail"


def test_a_joined_kernel_has_no_step_alone() -> None:
    one = network(KernelCount(0.1), joint_links(), values(0))[1]
    for call in (one.regularizer.subgradient, lambda k: one.regularizer.prox(k, 1.0)):
        with pytest.raises(RuntimeError, match="together with those of other layers"):
            call(one.kernel)


def test_without_its_variables_a_joint_penalty_says_what_to_do() -> None:
    regularizer = KernelCount(0.1).bound(links=joint_links()["a"])
    with pytest.raises(RuntimeError, match=r"'a'.*kss\.attach.*kss\.Proximal"):
        regularizer(np.ones(SHAPES["a"]))
