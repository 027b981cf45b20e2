"""Rules for layers of KerasHub, which is not installed: a layer of the same name and function."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from helpers_models import assert_exact_surgery, kernel_shape, randomize, use_float64
from keras import layers as L

from keras_structsparse.surgery.plans import Plan

Tensor = Any


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


@keras.saving.register_keras_serializable("keras_hub", "HGNetV2LearnableAffineBlock")
class Affine(L.Layer):
    """One factor and one offset for all channels."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.scale = self.add_weight(shape=(), name="scale")
        self.bias = self.add_weight(shape=(), name="bias")

    def call(self, x: Tensor) -> Tensor:
        return self.scale * x + self.bias


class Other(Affine):
    """Not the layer that has the name."""


@pytest.mark.parametrize(("kind", "kept"), [(Affine, 4), (Other, 6)])
def test_constants_go_through_a_learnable_affine_block(kind: type[Affine], kept: int) -> None:
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(6, 3, name="first")(inputs)
    x = kind(name="affine")(x)
    x = L.Conv2D(4, 3, name="second")(L.ReLU()(x))
    model = keras.Model(inputs, x)
    randomize(model)
    pruned = assert_exact_surgery(model, Plan({"first": (3, 0, 3, 0, 3, 3)}), realize="crop")
    assert kernel_shape(pruned, "first")[-1] == kept
