"""A rule that a user registers reaches penalties, budgets and surgery alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse import surgery

Array = Any

WIDTH = 8


class Halve(L.Layer):
    """Halves every channel; surgery cannot know that without a rule."""

    def call(self, inputs: Any) -> Any:
        return inputs * 0.5


class Unknown(Halve):
    """The same, for which no rule is registered: the control."""


def flow(site: surgery.Site) -> surgery.Flow:
    (inputs,) = site.inputs
    return surgery.Flow(inputs.passed(value=0.5 * inputs.value))


def build(site: surgery.Site, wanted: Array, pieces: Sequence[Any]) -> surgery.Piece:
    (piece,) = pieces
    return surgery.Piece(Halve(name=site.layer_name)(piece.tensor), piece.order)


surgery.register(surgery.Rule(flow, build), Halve)


def network(halve: type[L.Layer]) -> keras.Model:
    """Two convolutions whose sum, once halved, a third one reads."""
    options = {"padding": "same", "use_bias": False}
    inputs = keras.Input((8, 8, 3))
    a, b = (L.Conv2D(WIDTH, 3, name=name, **options)(inputs) for name in ("a", "b"))
    x = L.Add(name="sum")([halve(name="halve_a")(a), halve(name="halve_b")(b)])
    x = L.Conv2D(4, 3, name="reader", **options)(x)
    return keras.Model(inputs, L.Dense(2, name="head")(L.GlobalAveragePooling2D()(x)))


def joined(model: keras.Model) -> int:
    """How many kernels of `a` share a group with another layer's."""
    found = kss.regularizers_of(kss.attach(model, kss.KernelCount(0.1), coupled=True))["a"]
    return 0 if found.links is None else sum(width for _, width in found.links.joined)


def lasting(model: keras.Model) -> float:
    """The channels that `reader` reads and `MultiplyAdds` takes for constant, over its places."""
    links = kss.regularizers_of(kss.attach(model, kss.MultiplyAdds(1e-6)))["reader"].links
    assert links is not None
    return links.constant / 64


def left_by_surgery(model: keras.Model) -> float:
    plan = kss.Plan({name: [3] * 4 + [0] * 4 for name in ("a", "b")})
    return kss.compare(model, kss.prune(model, plan)).multiply_adds_fraction


def budget(model: keras.Model, target: float) -> float:
    """The share of the multiply-adds that a training with a budget ends with."""
    kss.attach(model, kss.KernelCount(0.1), ["a", "b"])
    model.compile(kss.Proximal(keras.optimizers.SGD(0.01, momentum=0.9)), "mse")
    callback = kss.TargetMultiplyAdds(target)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 8, 8, 3)), rng.normal(size=(64, 2))
    model.fit(x.astype("float32"), y, batch_size=16, epochs=6, verbose=0, callbacks=[callback])
    assert callback.reached is not None
    return callback.reached


def test_a_registered_rule_reaches_the_coupled_groups() -> None:
    assert joined(network(Halve)) == WIDTH
    assert joined(network(Unknown)) == 0


def test_a_registered_rule_reaches_the_penalty_on_multiply_adds() -> None:
    assert lasting(network(Halve)) == 0
    assert lasting(network(Unknown)) == WIDTH


def test_a_registered_rule_reaches_surgery() -> None:
    assert left_by_surgery(network(Halve)) == pytest.approx(0.5, abs=1e-3)
    assert left_by_surgery(network(Unknown)) > 0.9


def test_a_registered_rule_reaches_the_budget() -> None:
    assert budget(network(Halve), 0.4) == pytest.approx(0.4, abs=0.05)
    # Kernels of zeros are cropped to one entry, but their channels are kept.
    assert budget(network(Unknown), 0.4) > 0.6


class Mixed(L.Layer):
    """A 1x1 layer whose rule needs an invertible matrix, and writes into what it is given."""

    def build(self, input_shape: tuple[int, ...]) -> None:
        width = input_shape[-1]
        self.matrix = self.add_weight(shape=(width, width), initializer="identity", name="matrix")

    def call(self, inputs: Any) -> Any:
        return inputs @ self.matrix


def mixed_flow(site: surgery.Site) -> surgery.Flow:
    matrix = site.weights["matrix"]
    matrix[0, 0] = matrix[0, 0] + 0.0
    assert np.isfinite(np.linalg.inv(matrix + np.eye(len(matrix)))).all()
    assert abs(matrix - np.diag(np.diag(matrix))).max() <= 1
    return surgery.Flow(site.inputs[0])


surgery.register(surgery.Rule(mixed_flow, build), Mixed)


def test_a_rule_sees_weights_as_its_layer_has_them() -> None:
    inputs = keras.Input((8, 8, 3))
    a, b = (Mixed()(L.Conv2D(4, 3, name=name)(inputs)) for name in ("a", "b"))
    model = keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(a + b)))
    before = [weight.copy() for weight in model.get_weights()]
    assert kss.plan(model, 0.0, coupled=True).widths["a"] == 4
    assert all(map(np.array_equal, before, model.get_weights()))
