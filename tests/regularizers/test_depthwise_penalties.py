"""Penalties on depthwise layers: what `attach` gives them, and what training makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_depthwise import inverted_residual, random_block
from helpers_models import randomize, use_float64
from helpers_prox import naive_norms, numpy
from helpers_seeds import seeds
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.graph.kernel_axes import plain_kernel
from keras_structsparse.training.optimizer.regularized_variables import (
    current_values,
    regularized_kernels,
)

Array = Any


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def effective(model: keras.Model, name: str = "depthwise", norm: str = "") -> Array:
    """The norms (groups, kernels) of effective kernels, from their definition."""
    kernel = plain_kernel(model.get_layer(name))
    norms = naive_norms(kernel, "half_ring", "l2")
    return norms / norms[-1] * np.abs(numpy(model.get_layer(norm).gamma)) if norm else norms


def block(multiplier: int = 1, normalize: bool = True) -> keras.Model:
    i = keras.Input((8, 8, 3))
    options = {"padding": "same", "depth_multiplier": multiplier, "name": "depthwise"}
    x = L.DepthwiseConv2D(3, **options)(L.Conv2D(6, 1, activation="relu", name="expand")(i))
    x = L.BatchNormalization(name="norm")(x) if normalize else x
    x = L.Conv2D(4, 1, name="project")(L.ReLU()(x))
    return randomize(keras.Model(i, L.Dense(2, name="head")(L.GlobalAveragePooling2D()(x))))


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("normalize", [True, False])
def test_every_output_channel_has_a_kernel(multiplier: int, normalize: bool) -> None:
    model = kss.attach(block(multiplier, normalize), kss.KernelSize(0.5))
    found = kss.regularizers_of(model)
    assert list(found) == ["expand", "depthwise", "project"]
    assert found["depthwise"].layout == "depthwise"
    assert model.get_layer("depthwise").depthwise_regularizer is found["depthwise"]
    expected = 0.5 * effective(model, norm="norm" if normalize else "").sum()
    kernel = model.get_layer("depthwise").kernel
    assert float(found["depthwise"].penalty(kernel)) == pytest.approx(expected, rel=1e-12)
    assert kss.plan(model, 1e9).sizes["depthwise"] == (0,) * 6 * multiplier


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_step_is_that_of_the_plain_kernels(multiplier: int, norm: str, normalize: bool) -> None:
    model = kss.attach(block(multiplier, normalize), kss.KernelSize(3.0, norm=norm))
    layer, gamma = model.get_layer("depthwise"), None
    own, plain = layer.kernel.regularizer, kss.KernelSize(3.0, norm=norm)
    kernel = plain_kernel(layer)
    if normalize:
        gamma = model.get_layer("norm").gamma
        ours, scale = own.pair_prox(layer.kernel, gamma, 0.05)
        theirs, expected = plain.pair_prox(kernel, gamma, 0.05)
        np.testing.assert_allclose(numpy(scale), numpy(expected), atol=1e-12)
        slopes = (own.pair_subgradient(layer.kernel, gamma), plain.pair_subgradient(kernel, gamma))
        turned, expected = (numpy(kernels).ravel() for kernels, _ in slopes)
        np.testing.assert_allclose(turned, expected, atol=1e-12)
    else:
        ours, theirs = own.prox(layer.kernel, 0.05), plain.prox(kernel, 0.05)
    assert tuple(ours.shape) == tuple(layer.kernel.shape)
    np.testing.assert_allclose(numpy(ours).ravel(), numpy(theirs).ravel(), atol=1e-12)
    assert np.abs(numpy(ours) - numpy(layer.kernel)).max() > 1e-3


def test_the_optimizer_sees_plain_kernels_with_their_scales() -> None:
    model = kss.attach(block(2), kss.KernelSize(0.1))
    items = {item.path: item for item in regularized_kernels(model.trainable_variables)}
    found = current_values(items[model.get_layer("depthwise").kernel.path])
    assert tuple(found.kernel.shape) == (3, 3, 1, 12)
    assert found.gamma is not None
    assert tuple(found.gamma.shape) == (12,)
    assert found.regularizer.layout == "plain"


@pytest.mark.parametrize("normalize", [True, False])
def test_training_removes_weak_depthwise_kernels(normalize: bool) -> None:
    keras.utils.set_random_seed(0)
    model = kss.attach(block(2, normalize), kss.KernelSize(1.0), "depthwise")
    weak, layer = np.arange(12) < 4, model.get_layer("depthwise")
    if normalize:
        gamma = model.get_layer("norm").gamma
        gamma.assign(np.where(weak, 1e-3, 1.0))
    else:
        layer.kernel.assign(layer.kernel * np.where(weak, 1e-3, 1.0).reshape(6, 2))
    model.compile(kss.Proximal(keras.optimizers.SGD(0.01)), "mse", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 3))
    model.fit(x, np.zeros((8, 2)), epochs=2, verbose=0)
    assert np.array_equal(np.array(kss.plan(model, 0.0).sizes["depthwise"]) == 0, weak)
    pruned = kss.prune(model, tau=0.0)
    np.testing.assert_allclose(numpy(pruned(x)), numpy(model(x)), atol=1e-10)
    assert pruned.get_layer("depthwise").kernel.shape[-2] == 4


def test_multiply_adds_count_one_input_for_each_depthwise_kernel() -> None:
    model = kss.attach(block(), kss.MultiplyAdds(1.0))
    found, sizes = kss.regularizers_of(model), effective(model, norm="norm")
    kernel = model.get_layer("depthwise").kernel
    expected = 64 * np.square(sizes.sum(axis=0)).sum()
    assert float(found["depthwise"].penalty(kernel)) == pytest.approx(expected)
    project = model.get_layer("project").kernel
    own = np.square(effective(model, "project")).sum()
    width = sizes[-1].sum()  # the channels that it reads are those of the depthwise kernels
    assert float(found["project"].penalty(project)) == pytest.approx(64 * width * own)
    again = keras.models.model_from_json(model.to_json())
    assert kss.regularizers_of(again)["depthwise"].layout == "depthwise"


def test_a_stream_that_a_depthwise_layer_writes_is_coupled() -> None:
    i = keras.Input((8, 8, 3))
    x = L.Conv2D(5, 1, name="stem")(i)
    y = L.BatchNormalization()(L.DepthwiseConv2D(5, padding="same", name="depthwise")(x))
    x = L.Conv2D(4, 1, name="mix")(L.Add()([x, L.ReLU()(y)]))
    model = randomize(keras.Model(i, L.Dense(2)(L.GlobalAveragePooling2D()(x))))
    kss.attach(model, kss.KernelCount(0.1), coupled=True)
    links = kss.regularizers_of(model)["stem"].links
    assert links is not None
    (joint,) = links.joint
    assert [w.layout for w in joint.writers] == ["plain", "depthwise"]
    own = np.sqrt(np.square(naive_norms(plain_kernel(model.get_layer("stem")), "kernel", "l2")))
    gamma = np.abs(numpy(model.layers[3].gamma))
    expected = joint.weight * 0.1 * np.sqrt(own[0] ** 2 + gamma**2).sum()
    stem = model.get_layer("stem").kernel
    assert float(kss.regularizers_of(model)["stem"].penalty(stem)) == pytest.approx(expected)


def test_a_saved_model_keeps_the_penalty(tmp_path: Path) -> None:
    model = kss.attach(inverted_residual("relu"), kss.KernelSize(0.01, reweight=0.1))
    before = kss.penalty(model)
    model.save(tmp_path / "model.keras")
    assert kss.penalty(keras.models.load_model(tmp_path / "model.keras")) == pytest.approx(before)
    assert before > 0


@pytest.mark.parametrize("seed", seeds(6))
def test_penalties_of_random_blocks_are_those_of_their_norms(seed: int) -> None:
    model = kss.attach(random_block(seed), kss.KernelSize(1.0))
    layer = model.get_layer("depthwise")
    regularizer = layer.kernel.regularizer
    if regularizer.scale is None:
        norms = naive_norms(plain_kernel(layer), "half_ring", "l2")
        assert float(regularizer.penalty(layer.kernel)) == pytest.approx(norms.sum())
    tau = float(kss.penalty(model))
    assert set(kss.plan(model, tau).sizes["depthwise"]) == {0}
