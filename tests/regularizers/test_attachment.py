"""Regularizers on models: the loss contains the penalty, wherever it came from."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import chain, random_batch, randomize
from keras import layers as L

from keras_structsparse.errors import ModelError
from keras_structsparse.graph import onednn
from keras_structsparse.regularizers import GroupSparsityRegularizer, KernelCount, KernelSize
from keras_structsparse.regularizers.attachment import attach, regularizers_of
from keras_structsparse.regularizers.effective_kernels import effective_kernel

Array = Any

ALPHA = 0.25


def network(regularizer: GroupSparsityRegularizer | None = None) -> keras.Model:
    return chain(
        L.Conv2D(4, 3, padding="same", name="first", kernel_regularizer=regularizer),
        L.Conv2D(3, 5, strides=2, name="second", kernel_regularizer=regularizer),
        L.BatchNormalization(name="norm"),
        L.GlobalAveragePooling2D(),
        L.Dense(2, name="classes"),
        shape=(12, 12, 2),
    )


def data(model: keras.Model) -> tuple[Array, Array]:
    return random_batch(model, samples=8).astype("float32"), np.ones((8, 2), "float32")


def step(model: keras.Model) -> float:
    """The loss of one step of training that changes no weight."""
    return float(model.fit(*data(model), verbose=0).history["loss"][0])


def compiled(model: keras.Model) -> keras.Model:
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def given_to_the_constructor() -> tuple[keras.Model, GroupSparsityRegularizer]:
    regularizer = KernelSize(ALPHA)
    return compiled(network(regularizer)), regularizer


def attached_to_a_built_model() -> tuple[keras.Model, GroupSparsityRegularizer]:
    regularizer = KernelSize(ALPHA)
    return compiled(attach(network(), regularizer)), regularizer


def attached_after_training() -> tuple[keras.Model, GroupSparsityRegularizer]:
    model, regularizer = compiled(network()), KernelSize(ALPHA)
    model.fit(*data(model), verbose=0)
    model.evaluate(*data(model), verbose=0)
    return attach(model, regularizer), regularizer


def attached_twice() -> tuple[keras.Model, GroupSparsityRegularizer]:
    model, _ = attached_to_a_built_model()
    step(model)
    regularizer = KernelSize(ALPHA)
    return attach(attach(model, KernelCount(7.0)), regularizer), regularizer


def penalty(model: keras.Model, effective: bool) -> float:
    """The penalty from its definition: a KernelSize of its own on every kernel."""
    own, total = KernelSize(ALPHA), 0.0
    for name in ("first", "second"):
        kernel = model.get_layer(name).kernel
        if effective and name == "second":
            kernel = effective_kernel(kernel, model.get_layer("norm").gamma)
        total += float(own(kernel))
    return total


@pytest.mark.parametrize(
    ("make", "effective"),
    [
        (given_to_the_constructor, False),
        (attached_to_a_built_model, True),
        (attached_after_training, True),
        (attached_twice, True),
    ],
)
def test_the_loss_of_training_contains_the_penalty(
    make: Callable[[], tuple[keras.Model, GroupSparsityRegularizer]], effective: bool
) -> None:
    model, regularizer = make()
    trained, evaluated = step(model), model.evaluate(*data(model), verbose=0)
    # No compile in between: alpha is a variable.
    regularizer.alpha.assign(0.0)
    expected = pytest.approx(penalty(model, effective), rel=1e-4)
    assert evaluated - model.evaluate(*data(model), verbose=0) == expected
    assert trained - step(model) == expected
    assert penalty(model, effective) > 0.5


def test_setting_the_attribute_would_change_nothing() -> None:
    """The trap that attach exists for; the control of the test above."""
    model = compiled(network())
    before = step(model)
    model.get_layer("first").kernel_regularizer = KernelSize(ALPHA)
    assert step(model) == before
    attach(model, KernelSize(ALPHA))
    assert step(model) > before + 0.5


def test_attaching_returns_the_model_and_leaves_its_weights() -> None:
    model = network()
    before = model.get_weights()
    assert attach(model, KernelSize(ALPHA)) is model
    np.testing.assert_equal(model.get_weights(), before)


def test_all_layers_share_alpha_and_nothing_else() -> None:
    regularizer = KernelSize(ALPHA, norm="linf")
    model = attach(network(), regularizer)
    found = regularizers_of(model)
    assert list(found) == ["first", "second"]
    assert all(r.alpha is regularizer.alpha and r.norm == "linf" for r in found.values())
    assert len({id(r) for r in (*found.values(), regularizer)}) == 3
    assert found["first"].scale is None
    assert found["second"].scale == model.get_layer("norm").gamma.path
    assert regularizers_of(network()) == {}


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("uniform", (1.0, 1.0)),
        ("params", (2 * 9, 4 * 25)),
        ("multiply_adds", (12 * 12 * 2 * 9, 4 * 4 * 4 * 25)),
    ],
)
def test_shares_follow_the_cost_of_a_kernel_and_have_mean_1(
    weights: str, expected: tuple[float, float]
) -> None:
    found = regularizers_of(attach(network(), KernelSize(ALPHA), weights=weights))
    shares = np.array([r.weight for r in found.values()])
    np.testing.assert_allclose(shares, np.array(expected) / np.mean(expected))
    assert shares.mean() == pytest.approx(1.0)


def test_layers_choose_what_is_regularized() -> None:
    model = attach(network(), KernelSize(ALPHA), layers=["second", "classes"])
    assert list(regularizers_of(model)) == ["second", "classes"]
    assert list(regularizers_of(attach(network(), KernelSize(ALPHA), "first"))) == ["first"]


def test_nested_layers_have_long_names() -> None:
    block = keras.Sequential([keras.Input((9, 9, 2)), L.Conv2D(2, 3, name="conv")], name="block")
    inputs = keras.Input((9, 9, 2))
    model = attach(keras.Model(inputs, block(inputs)), KernelSize(ALPHA), ["block/conv"])
    assert list(regularizers_of(model)) == ["block/conv"]
    assert len(model.losses) == 1


@pytest.mark.parametrize("layers", [["other"], ["first", "norm"], ["frist"], [3], "norm"])
def test_layers_that_cannot_be_regularized_are_refused(layers: Any) -> None:
    model = network()
    with pytest.raises(ValueError, match=r"layers: expected names of.*Received: ") as error:
        attach(model, KernelSize(ALPHA), layers)
    assert repr(layers if isinstance(layers, str) else layers[-1]) in str(error.value)
    assert regularizers_of(model) == {}


def test_transposed_kernels_are_refused_by_type() -> None:
    model = chain(L.Conv2D(2, 3), L.Conv2DTranspose(2, 3, name="other"))
    refused = r"layers: expected.*not transposed.*'other', a Conv2DTranspose"
    with pytest.raises(ValueError, match=refused):
        attach(model, KernelSize(ALPHA), ["other"])
    assert "other" not in regularizers_of(attach(model, KernelSize(ALPHA)))


def test_an_empty_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one name"):
        attach(network(), KernelSize(ALPHA), [])


@pytest.mark.parametrize("regularizer", [keras.regularizers.L2(0.1), "l2", None, KernelSize])
def test_other_regularizers_are_refused(regularizer: Any) -> None:
    with pytest.raises(TypeError, match="regularizer: expected one of keras_structsparse"):
        attach(network(), regularizer)


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weights: expected.*Received: 'flops'"):
        attach(network(), KernelSize(ALPHA), weights="flops")


def test_a_normalisation_without_scale_is_refused_by_name() -> None:
    model = chain(L.Conv2D(2, 3, name="conv"), L.BatchNormalization(scale=False, name="flat"))
    with pytest.raises(ModelError, match=r"'conv'.*'flat'.*scale=False.*kss\.with_scales"):
        attach(model, KernelSize(ALPHA))
    assert model.losses == []


def test_multiply_adds_need_a_known_size() -> None:
    model = chain(L.Conv2D(2, 3, name="conv"), shape=(None, None, 2))
    with pytest.raises(ModelError, match=r"'conv'.*params"):
        attach(model, KernelSize(ALPHA), weights="multiply_adds")
    assert len(attach(model, KernelSize(ALPHA), weights="params").losses) == 1


class Subclassed(keras.Model):
    def call(self, inputs: Any) -> Any:
        return inputs


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: chain(L.Dense(2)), "no convolutions"),
        (lambda: chain(L.Conv2D(2, 3, groups=2)), "no convolutions"),
        (lambda: Subclassed(), "Subclassed"),
        (lambda: keras.Sequential([L.Conv2D(2, 3)]), "not built"),
        (lambda: "model.keras", "Received: str"),
    ],
)
def test_models_without_convolutions_or_graph_are_refused(
    make: Callable[[], Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        attach(make(), KernelSize(ALPHA))


def test_attaching_again_replaces() -> None:
    model = attach(attach(network(), KernelCount(1.0)), KernelSize(ALPHA), ["first"])
    found = regularizers_of(model)
    assert type(found["first"]) is KernelSize
    assert type(found["second"]) is KernelCount
    assert len(model.losses) == 2


def test_a_saved_model_can_be_attached_to_again(tmp_path: Any) -> None:
    model = randomize(attach(network(), KernelSize(ALPHA)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    attach(loaded, KernelSize(ALPHA))
    assert float(sum(loaded.losses)) == pytest.approx(float(sum(model.losses)))
    assert float(sum(model.losses)) > 0.5


def test_a_layer_whose_training_may_crash_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(onednn, "_USED", {keras.backend.backend(): lambda: True})
    model = chain(L.Conv2D(4, 3), L.Conv2D(4, 1, strides=2, name="shortcut"))
    with pytest.warns(UserWarning, match="'shortcut': strided 1x1 .* may crash"):
        attach(model, KernelCount(ALPHA))
