"""Models that were saved, loaded or cloned have the penalties that they had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_habits import saved_as
from helpers_prox import numpy
from helpers_training import compiled, images, network
from keras import layers as L
from keras import optimizers as O

import keras_structsparse as kss
from keras_structsparse.regularizers.alpha import distinct_alphas
from keras_structsparse.regularizers.attachment import penalties

Array = Any


def residual(rng: np.random.Generator) -> keras.Model:
    """A random residual network, of which some kernels have an L2 penalty and some a norm."""
    inputs = keras.Input((6, 6, 2))

    def conv(x: Any, name: str) -> Any:
        l2 = keras.regularizers.L2(0.1) if rng.random() < 0.3 else None
        x = L.Conv2D(4, 3, padding="same", name=name, kernel_regularizer=l2)(x)
        return L.BatchNormalization(name=f"{name}_norm")(x) if rng.random() < 0.6 else x

    x = conv(inputs, "stem")
    for index in range(int(rng.integers(1, 3))):
        x = L.Add()([x, conv(L.ReLU()(conv(x, f"in{index}")), f"out{index}")])
    x = L.GlobalAveragePooling2D()(L.ReLU()(x))
    outputs = L.Dense(3, activation="softmax")(x)
    if rng.random() < 0.3:  # the same behind one more model
        inner = keras.Model(inputs, outputs, name="inner")
        inputs = keras.Input((6, 6, 2))
        outputs = inner(inputs)
    return keras.Model(inputs, outputs)


def penalized(rng: np.random.Generator) -> keras.Model:
    model, kind = residual(rng), rng.integers(3)
    if kind == 0:
        return kss.attach(model, kss.MultiplyAdds(1e-3))
    return kss.attach(model, kss.KernelSize(0.01, reweight=0.1), coupled=bool(kind == 1))


def cloned(model: keras.Model, folder: Path) -> keras.Model:
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


AGAIN = {".keras": saved_as("m.keras"), ".h5": saved_as("m.h5"), "clone": cloned}


def check_alike(model: keras.Model, again: keras.Model, order: int) -> None:
    """The same penalties and losses, whichever is asked for first, and one alpha."""
    found: dict[int, Any] = {}
    for index in (order, 1 - order):
        found[index] = penalties(again) if index else [float(numpy(loss)) for loss in again.losses]
    assert found[0] == pytest.approx([float(numpy(loss)) for loss in model.losses], rel=1e-5)
    assert found[1] == pytest.approx(penalties(model), rel=1e-5)
    (alpha,) = distinct_alphas(kss.regularizers_of(again).values())
    assert alpha is not distinct_alphas(kss.regularizers_of(model).values())[0]
    alpha.assign(0.0)
    assert kss.penalty(again) == 0.0 < kss.penalty(model), "the control"


def check(seed: int, folder: Path) -> None:
    rng = np.random.default_rng(seed)
    model = penalized(rng)
    name = sorted(AGAIN)[seed % 3]
    check_alike(model, AGAIN[name](model, folder), int(rng.integers(2)))


def test_copies_have_the_penalties_of_the_original(tmp_path: Path) -> None:
    for seed in range(9):
        check(seed, tmp_path)


@pytest.mark.slow
def test_many_copies_have_the_penalties_of_the_original(tmp_path: Path) -> None:
    for seed in range(9, 300):
        check(seed, tmp_path)


@pytest.mark.parametrize("name", AGAIN)
def test_copies_train_like_the_original(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    model = penalized(rng)
    x, y = rng.normal(size=(32, 6, 6, 2)).astype("float32"), rng.integers(0, 3, 32)
    again = AGAIN[name](model, tmp_path)
    for each in (model, again):
        each.compile(kss.Proximal(O.SGD(0.1)), "sparse_categorical_crossentropy")
        start = each.get_weights()
        each.train_on_batch(x, y)
        assert any(np.any(a != b) for a, b in zip(start, each.get_weights(), strict=True))
    for left, right in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)
    found = kss.plan(again, tau=0.0).sizes
    assert found == kss.plan(model, tau=0.0).sizes


def test_an_alpha_that_was_assigned_after_loading_counts(tmp_path: Path) -> None:
    stack = [L.Conv2D(2, 3, name=f"c{index}") for index in range(3)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *stack])
    model = saved_as("m.keras")(kss.attach(model, kss.KernelSize(0.1)), tmp_path)
    model.get_layer("c1").kernel.regularizer.alpha.assign(0.5)
    (alpha,) = distinct_alphas(kss.regularizers_of(model).values())
    assert float(numpy(alpha)) == 0.5


def test_regularizers_of_a_constructor_keep_their_own_alphas() -> None:
    """The control: what was not loaded is not joined."""
    stack = [L.Conv2D(2, 3, kernel_regularizer=kss.KernelSize(0.1)) for _ in range(2)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *stack])
    assert len(distinct_alphas(kss.regularizers_of(model).values())) == 2


def test_a_wrapper_of_two_equal_networks_binds_each_to_its_own() -> None:
    first = penalized(np.random.default_rng(3))
    second = keras.models.clone_model(first)

    class Pair(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = first, second

        def call(self, inputs: Any) -> Any:
            return self.first(inputs) + self.second(inputs)

    pair = Pair()
    pair(np.zeros((1, 6, 6, 2), "float32"))
    for weight in second.weights:
        weight.assign(2.0 * weight)
    expected = kss.penalty(first) + kss.penalty(second)
    l2 = [r.beside for r in kss.regularizers_of(first).values() if r.beside is not None]
    if not l2:
        assert float(numpy(sum(pair.losses))) == pytest.approx(expected, rel=1e-5)
    assert kss.penalty(first) != pytest.approx(kss.penalty(second), rel=1e-2)


def test_a_compiled_model_in_an_hdf5_file_goes_on(tmp_path: Path) -> None:
    """Keras builds the optimizer of such a file for no variables at first."""
    model = kss.attach(network(), kss.KernelSize(0.07))
    compiled(model, kss.Proximal(O.SGD(0.1)))
    model.fit(*images(), verbose=0)
    model.save(tmp_path / "m.h5")
    back = keras.models.load_model(tmp_path / "m.h5")
    assert isinstance(back.optimizer, kss.Proximal)
    assert kss.penalty(back) == pytest.approx(kss.penalty(model))
    back.fit(*images(), epochs=6, verbose=0)
    assert kss.penalty(back) < 0.9 * kss.penalty(model)
