"""Thresholds and penalties measure kernels alike: NumPy's norms equal the differentiable ones."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_prox import Array, examples, numpy, random_kernel
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse.regularizers.effective_kernels import effective_norms
from keras_structsparse.regularizers.group_norms import group_norms
from keras_structsparse.surgery.thresholds import threshold_norms

shapes = st.sampled_from([(5, 5, 2, 6), (4, 4, 1, 6), (3, 2, 3, 6), (7, 2, 6), (5, 6)])
kinds = st.sampled_from(["half_ring", "ring", "kernel"])
seeds = st.integers(0, 999)


def assert_close(ours: Array, theirs: Array) -> None:
    np.testing.assert_allclose(ours, numpy(theirs), rtol=1e-12, atol=1e-14)


def random_pair(shape: tuple[int, ...], seed: int) -> tuple[Array, Array]:
    """A kernel with dead kernels and a gamma, which is 0 for the first kernel."""
    gamma = np.random.default_rng(seed).normal(size=shape[-1])
    gamma[0] = 0.0
    return random_kernel(shape, seed, dead=0.2), gamma


@examples(40)
@given(shapes, kinds, seeds)
def test_norms_of_effective_kernels_agree(shape: tuple[int, ...], kind: str, seed: int) -> None:
    kernel, gamma = random_pair(shape, seed)
    ours = threshold_norms(kernel, gamma, kind)
    assert_close(ours, effective_norms(kernel, gamma, kind, "l2"))


@examples(40)
@given(shapes, kinds, seeds)
def test_norms_of_plain_kernels_agree(shape: tuple[int, ...], kind: str, seed: int) -> None:
    kernel, _ = random_pair(shape, seed)
    ours = threshold_norms(kernel, None, kind)
    assert_close(ours, group_norms(kernel, kind, "l2"))


def test_the_kernel_length_and_other_norms_make_a_difference() -> None:
    """The control: the norms of other kernels, or another norm, are found to differ."""
    kernel, gamma = random_pair((5, 5, 2, 6), 0)
    ours = threshold_norms(kernel, gamma, "half_ring")
    for other in (
        effective_norms(kernel, 1.001 * gamma, "half_ring", "l2"),
        effective_norms(kernel, gamma, "half_ring", "group_normalized"),
        group_norms(kernel, "half_ring", "l2"),
    ):
        with pytest.raises(AssertionError):
            assert_close(ours, other)
