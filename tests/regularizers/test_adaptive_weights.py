"""Penalties whose weights come from measurements on a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import chain, random_batch, randomize
from helpers_prox import examples, naive_norms, numpy
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.graph import nested_groups
from keras_structsparse.regularizers import GroupSparsityRegularizer, KernelCount, KernelSize
from keras_structsparse.regularizers.attachment import attach, penalties, regularizers_of
from keras_structsparse.regularizers.saliency import Saliency

LAYERS = {"first": (3, 5), "second": (5, 4)}
"""The sizes and the numbers of the kernels."""


def network() -> keras.Model:
    model = chain(
        L.Conv2D(5, 3, activation="relu", name="first"),
        L.Conv2D(4, 5, activation="relu", name="second"),
        L.GlobalAveragePooling2D(),
        L.Dense(2, name="classes"),
        shape=(12, 12, 2),
    )
    return randomize(model)


def lost(groups: str = "half_ring", seed: int = 0) -> Saliency:
    """Random numbers, among them zeros."""
    rng = np.random.default_rng(seed)
    shapes = {
        name: (len(nested_groups.sizes((size, size), groups)), width)
        for name, (size, width) in LAYERS.items()
    }
    own = {n: rng.exponential(size=s) * (rng.random(s) > 0.2) for n, s in shapes.items()}
    return Saliency({name: values + 1 for name, values in own.items()}, own, groups)


def kernel(model: keras.Model, name: str) -> Any:
    return numpy(model.get_layer(name).kernel).astype(float)


@examples(20)
@given(st.sampled_from(nested_groups.GROUPS), st.integers(0, 99), st.floats(1e-3, 1e3))
def test_groups_are_weighted_by_the_saliency(groups: str, seed: int, unit: float) -> None:
    model, found = network(), lost(groups, seed)
    scaled = Saliency(found.first, {n: unit * x for n, x in found.second.items()}, groups)
    own = penalties(attach(model, KernelSize(0.5, groups=groups), saliency=scaled))
    mean = np.mean(np.concatenate([x[-1] for x in found.second.values()]))
    for name, values in found.second.items():
        norms = naive_norms(kernel(model, name), groups, "l2")
        weights = np.sqrt(mean / (values + 0.01 * mean))
        assert own[name] == pytest.approx(0.5 * (weights * norms).sum(), rel=1e-4)
        assert own[name] != pytest.approx(0.5 * norms.sum(), rel=1e-2)  # the control: no weights


def test_a_group_that_the_loss_does_not_need_vanishes_first() -> None:
    """One step with an alpha between those at which both kernels would vanish."""
    model = network()
    layer = model.get_layer("first")
    ones = np.ones(layer.kernel.shape)
    layer.kernel.assign(ones)
    own = {"first": np.ones((1, 5)), "second": np.ones((1, 4))}
    own["first"][0, 1] = 0.0
    for saliency, alive in ((Saliency(own, own, "kernel"), 4), (None, 5)):
        attach(model, KernelCount(1.0), saliency=saliency)
        length = np.sqrt(ones[..., 0].sum())
        found = numpy(layer.kernel.regularizer.prox(layer.kernel, length / 2))
        assert found.any(axis=(0, 1, 2)).sum() == alive
        assert found[..., 1].any() == (saliency is None)


def test_the_weights_are_saved_with_the_model(tmp_path: Path) -> None:
    model = attach(network(), KernelSize(0.5), saliency=lost(), scale_free=True)
    expected = penalties(model)
    assert expected != pytest.approx(penalties(attach(network(), KernelSize(0.5))))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert penalties(loaded) == pytest.approx(expected)
    again = attach(keras.models.clone_model(model), KernelSize(0.5))
    assert all(own.group_weights is None for own in regularizers_of(again).values())


def test_the_weights_of_another_model_are_not_taken_over() -> None:
    weighted = regularizers_of(attach(network(), KernelSize(0.5), saliency=lost()))
    plain = penalties(attach(network(), KernelSize(0.5)))
    own = weighted["first"]
    assert own.group_weights is not None
    model = attach(network(), own)
    assert all(each.group_weights is None for each in regularizers_of(model).values())
    assert penalties(model) == pytest.approx(plain)
    assert penalties(attach(network(), own, saliency=lost())) != pytest.approx(plain)


def test_a_measured_saliency_fits() -> None:
    """Also of a network whose last convolution computes the outputs: it gets no penalty."""
    model = chain(
        L.Conv2D(4, 3, activation="relu", name="inner"),
        L.Conv2D(2, 1, name="classes"),
        L.GlobalAveragePooling2D(),
    )
    data = random_batch(model), np.ones((13, 2))
    found = kss.saliency(model, data, "mse")
    assert list(regularizers_of(attach(model, KernelSize(1e-3), saliency=found))) == ["inner"]
    with pytest.raises(ValueError, match="saliency: layer 'classes': expected numbers of"):
        attach(model, KernelSize(1e-3), layers=["classes"], saliency=found)


@examples(20)
@given(st.floats(1e-3, 1e3))
def test_a_scale_free_penalty_does_not_change_with_the_scales(scale: float) -> None:
    """The same function, with one layer multiplied and the next one divided by a number."""
    model, other = network(), network()
    for name, factor in (("first", scale), ("second", 1 / scale)):
        layer = other.get_layer(name)
        layer.kernel.assign(numpy(layer.kernel) * factor)
        if name == "first":
            layer.bias.assign(numpy(layer.bias) * factor)
    inputs = random_batch(model)
    np.testing.assert_allclose(model(inputs), other(inputs), rtol=1e-3, atol=1e-4)
    found = [penalties(attach(m, KernelSize(0.5), scale_free=True)) for m in (model, other)]
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    if abs(np.log(scale)) > 0.1:  # the control
        plain = [penalties(attach(m, KernelSize(0.5))) for m in (model, other)]
        assert plain[0] != pytest.approx(plain[1], rel=1e-2)


def test_behind_a_normalization_the_lengths_are_those_of_gamma() -> None:
    model = chain(L.Conv2D(4, 3, use_bias=False, name="conv"), L.BatchNormalization(name="norm"))
    norm = model.get_layer("norm")
    for gamma, value in ((1.0, 4.0), (5.0, 4.0)):
        norm.gamma.assign(np.full(4, gamma))
        attach(model, KernelCount(1.0), scale_free=True)
        assert penalties(model)["conv"] == pytest.approx(value, rel=1e-5)


def of_first(values: Any) -> Saliency:
    return Saliency({"first": values}, {"first": values}, "half_ring")


BAD: dict[str, tuple[GroupSparsityRegularizer, dict[str, Any], str]] = {
    "other groups": (KernelCount(), {"saliency": lost()}, "regularizer's groups, 'kernel'"),
    "other layers": (
        KernelSize(),
        {"saliency": Saliency({"x": [[1.0]]}, {"x": [[1.0]]}, "half_ring")},
        r"layers of the model. Received: \['x'\]",
    ),
    "other numbers": (
        KernelSize(),
        {"saliency": of_first(np.ones((2, 5)))},
        r"layer 'first': expected numbers of the shape \(3, 5\). Received: \(2, 5\)",
    ),
    "zeros": (
        KernelSize(),
        {"saliency": of_first(np.zeros((3, 5)))},
        "expected numbers above 0",
    ),
    "coupled": (KernelSize(), {"saliency": lost(), "coupled": True}, "coupled: expected False"),
    "counted": (kss.MultiplyAdds(), {"saliency": lost()}, "Expected saliency=None"),
    "counted, scaled": (kss.MultiplyAdds(), {"scale_free": True}, "scale_free=False"),
    "no flag": (KernelSize(), {"scale_free": 1}, "scale_free: expected True or False"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused(name: str) -> None:
    regularizer, options, message = BAD[name]
    model = network()
    with pytest.raises(ValueError, match=message):
        attach(model, regularizer, **options)
    assert not regularizers_of(model)


def test_kernels_of_zeros_have_no_scale() -> None:
    model = network()
    model.get_layer("first").kernel.assign(np.zeros((3, 3, 2, 5)))
    with pytest.raises(ValueError, match="scale_free: layer 'first': expected kernels"):
        attach(model, KernelSize(), scale_free=True)


def test_a_saliency_is_what_kss_measures() -> None:
    with pytest.raises(TypeError, match="saliency: expected what"):
        attach(network(), KernelSize(), saliency={"first": 1.0})  # type: ignore[arg-type]
