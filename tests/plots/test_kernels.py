"""Figures of one kernel, in the numbers behind the artists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import keras_structsparse as kss
from keras_structsparse import plots

KERNEL = np.random.default_rng(0).normal(size=(5, 5, 3, 1)).astype("float32")


def numbers(axes: Any) -> list[int]:
    return [int(text.get_text()) for text in axes.texts]


def test_every_entry_has_the_number_of_its_first_group() -> None:
    half, ring, kernel = plots.groups_figure(3).axes
    assert numbers(half) == [1, 1, 1, 1, 3, 2, 1, 2, 2]
    assert numbers(ring) == [1, 1, 1, 1, 2, 1, 1, 1, 1]
    assert numbers(kernel) == [1] * 9
    assert kernel.get_title("left") == "kernel, 1 group"


def test_shades_are_those_of_the_proximal_step() -> None:
    penalty = kss.KernelSize(1.0)
    figure = plots.shrinking_figure(KERNEL, penalty, (0.0, 0.7, 100.0), title="title")
    for axes, step in zip(figure.axes, (0.0, 0.7, 100.0), strict=True):
        expected = np.linalg.norm(np.asarray(penalty.prox(KERNEL, step)), axis=(2, 3))
        np.testing.assert_allclose(axes.images[0].get_array(), expected, rtol=1e-6)
    assert figure.axes[-1].get_title("left") == "step 100, size 0"
    assert numbers(figure.axes[-1]) == [0] * 25
    assert not figure.axes[0].texts


@pytest.mark.parametrize(
    ("penalty", "size"),
    [(kss.KernelCount(1.0), 5), (kss.KernelSize(1.0), 3), (kss.KernelSize(1.0, groups="ring"), 3)],
)
def test_the_size_is_that_of_the_support(penalty: Any, size: int) -> None:
    kernel = np.zeros_like(KERNEL)
    kernel[1:4, 1:4] = 1.0
    axes = plots.shrinking_figure(kernel, penalty, [0.0]).axes[0]
    assert axes.get_title("left") == f"step 0, size {size}"


def test_lines_are_norms_of_groups() -> None:
    penalty, steps = kss.KernelSize(1.0, groups="ring"), [0.0, 0.5, 1.0]
    axes = plots.path_figure(KERNEL, penalty, steps).axes[0]
    found = np.array([line.get_ydata() for line in axes.lines])
    expected = [np.asarray(penalty.group_norms(penalty.prox(KERNEL, t)))[:, 0] for t in steps]
    np.testing.assert_allclose(found.T, expected, rtol=1e-6)
    assert found.shape == (3, 3)


@pytest.mark.parametrize("draw", [plots.shrinking_figure, plots.path_figure])
def test_one_kernel_and_steps_are_needed(draw: Any) -> None:
    penalty = kss.KernelSize(1.0)
    with pytest.raises(ValueError, match=r"one kernel.*shape \(3, 3, 1, 2\) and 1 steps"):
        draw(np.ones((3, 3, 1, 2)), penalty, [1.0])
    with pytest.raises(ValueError, match="0 steps"):
        draw(KERNEL, penalty, [])


def test_unknown_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="'circle'"):
        plots.groups_figure(3, ["circle"])
    with pytest.raises(ValueError, match="kinds: expected"):
        plots.groups_figure(3, [])
