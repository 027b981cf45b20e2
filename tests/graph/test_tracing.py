"""Subclassed models as graphs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import assert_exact_surgery, kernel_shape, use_float64
from keras import layers as L
from keras import ops

import keras_structsparse as kss
from keras_structsparse.surgery.plans import Plan

EXAMPLE = np.random.default_rng(0).normal(size=(2, 7, 6, 2))


class Block(keras.Model):
    """Layers, bare operations and a Python branch on a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.first = L.Conv2D(4, 3, padding="same", name="first")
        self.second = L.Conv2D(4, 3, padding="same", name="second")
        self.head = L.Dense(4, name="head")
        self.squash = True

    def build(self, input_shape: Any) -> None:
        self.built = True

    def call(self, x: Any) -> Any:
        y = ops.relu(self.first(x))
        y = y + self.second(y)
        return self.head(ops.tanh(y) if self.squash else y)


class Branching(Block):
    def call(self, x: Any) -> Any:
        y = super().call(x)
        if isinstance(x, keras.KerasTensor) or float(ops.max(x)) > 1e3:
            return y * 2.0
        return y


class Foreign(Block):
    def call(self, x: Any) -> Any:
        return super().call(ops.convert_to_tensor(np.asarray(x)))


class Loose(Block):
    def __init__(self) -> None:
        super().__init__()
        self.shift = self.add_weight(shape=(4,), name="shift")

    def call(self, x: Any) -> Any:
        return super().call(x) + self.shift


def test_a_subclassed_model_becomes_a_graph_that_surgery_can_read() -> None:
    use_float64()
    subclassed = Block()
    model = kss.traced(subclassed, EXAMPLE)
    np.testing.assert_array_equal(model(EXAMPLE), subclassed(EXAMPLE))
    assert model.get_layer("first") is subclassed.first
    plan = Plan({"first": (3, 0, 0, 3), "second": (3, 0, 0, 3)})
    pruned = assert_exact_surgery(model, plan)
    assert kernel_shape(pruned, "first")[-1] == 2
    with pytest.raises(kss.ModelError, match=r"subclassed.*kss\.traced"):
        kss.prune(subclassed, plan)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Branching, "branches on values"),
        (Foreign, "cannot be traced.*Received"),
        (Loose, "expected all weights to belong to layers.*shift"),
    ],
)
def test_what_cannot_be_traced_is_said(kind: type[Block], words: str) -> None:
    with pytest.raises(kss.ModelError, match=f"(?s)Model '.*{words}"):
        kss.traced(kind(), EXAMPLE.astype("float32"))


def test_only_models_are_traced() -> None:
    with pytest.raises(kss.ModelError, match=r"Expected a keras\.Model. Received: Dense"):
        kss.traced(L.Dense(2), EXAMPLE)
