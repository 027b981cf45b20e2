"""Layers that are made of other layers become models, if that hides nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    assert_exact_surgery,
    assert_same_function,
    kernel_shape,
    random_batch,
    random_plan,
    randomize,
    use_float64,
)
from keras import layers as L
from keras import ops

from keras_structsparse.errors import ModelError
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.inlining import opened
from keras_structsparse.graph.prunable_layers import kernel_layers
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan, plan
from keras_structsparse.surgery.provenance import notes

Tensor = Any


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


class Inner(L.Layer):
    """A convolution, a normalisation, an activation."""

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__(**options)
        self.width = width
        self.conv = L.Conv2D(width, 3, padding="same", name="conv")
        self.norm = L.BatchNormalization(name="norm")

    def build(self, shape: tuple[int, ...]) -> None:
        self.conv.build(shape)
        self.norm.build((*shape[:-1], self.width))

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        return ops.relu(self.norm(self.conv(x), training=training))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


class Outer(Inner):
    """The same, after an inner layer of that kind, with a shortcut."""

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__(width, **options)
        self.inner = Inner(width, name="inner")

    def build(self, shape: tuple[int, ...]) -> None:
        self.inner.build(shape)
        super().build((*shape[:-1], self.width))

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        y = self.inner(x, training=training)
        return {"sum": y + super().call(y, training=training)}


class Shifted(Inner):
    """With a weight of its own."""

    def build(self, shape: tuple[int, ...]) -> None:
        super().build(shape)
        self.shift = self.add_weight(shape=(self.width,), name="shift")

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        return super().call(x, training=training) + self.shift


class Noisy(Inner):
    """Something else in training."""

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        y = super().call(x, training=training)
        return y * 2.0 if training else y


class Branching(Inner):
    """A decision by values."""

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        y = super().call(x, training=training)
        return y if ops.max(x) > 0.0 else -y

    def compute_output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], self.width)


class Drawing(Inner):
    """A number drawn anew for every call."""

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        noise = float(np.random.default_rng().normal())
        return super().call(x, training=training) * noise


class Sized(Inner):
    """The size of the batch is built in."""

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        y = super().call(x, training=training)
        return ops.reshape(y, (ops.shape(x)[0], *y.shape[1:]))


class Strict(Inner):
    """The outer layer of one that cannot be made from its configuration."""

    class Part(Shifted):
        """Takes no options, and cannot be opened."""

        def __init__(self) -> None:
            super().__init__(4)

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__(width, **options)
        self.part = Strict.Part()

    def build(self, shape: tuple[int, ...]) -> None:
        self.part.build(shape)
        super().build((*shape[:-1], 4))

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        return super().call(self.part(x, training=training) ** 2.0, training=training)


def network(kind: type[Inner], **options: Any) -> keras.Model:
    inputs = keras.Input((7, 6, 2))
    x = L.Conv2D(6, 3, name="first")(inputs)
    x = kind(4, name="block", **options)(x)
    x = x["sum"] if isinstance(x, dict) else x
    return randomize(keras.Model(inputs, L.Dense(2, "tanh")(L.Conv2D(3, 3)(x))))


@pytest.mark.parametrize("kind", [Inner, Outer])
def test_convolutions_inside_are_seen_and_pruned(kind: type[Inner], tmp_path: Path) -> None:
    model = network(kind)
    wide = opened(model)
    assert_same_function(model, wide, random_batch(model), tolerance=0.0)
    assert {id(w) for w in wide.weights} == {id(w) for w in model.weights}
    assert "block/conv" in kernel_layers(functional_graph.read(wide))
    assert "block/conv" not in kernel_layers(functional_graph.read(model))
    assert ("block/inner/conv" in plan(wide).sizes) == (kind is Outer)
    pruned = assert_exact_surgery(wide, random_plan(wide, 3), realize="crop")
    assert notes(pruned) == ()
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_function(pruned, loaded, random_batch(model), tolerance=0.0)


def test_a_plan_for_a_convolution_inside() -> None:
    sizes = [3, 0, 0, 2]
    chosen = Plan({"block/conv": sizes, "block/inner/conv": sizes})
    pruned = assert_exact_surgery(opened(network(Outer)), chosen)
    assert kernel_shape(pruned, "block_conv")[-1] < 4
    assert kernel_shape(pruned, "block_inner_conv")[-1] < 4


@pytest.mark.parametrize("kind", [Shifted, Noisy, Branching, Drawing, Sized, Strict])
def test_what_would_change_stays_whole(kind: type[Inner]) -> None:
    model = network(kind)
    calls = {type(call.operation) for call in functional_graph.read(opened(model)).calls}
    assert kind in calls


def test_layers_called_twice_or_in_training_stay_whole() -> None:
    inputs = keras.Input((7, 6, 4))
    twice, train = Inner(4, name="twice"), Inner(4, name="train")
    x = train(twice(twice(inputs)), training=True)
    model = randomize(keras.Model(inputs, x))
    assert [type(call.operation) for call in functional_graph.read(opened(model)).calls] == [
        Inner
    ] * 3


def test_layers_that_convert_stay_whole() -> None:
    model = network(Inner, dtype="float32")
    assert Inner in {type(call.operation) for call in functional_graph.read(opened(model)).calls}


def test_nested_models_are_searched() -> None:
    inputs = keras.Input((7, 6, 2), name="a")
    body = keras.Sequential([keras.Input((7, 6, 2)), Inner(4, name="block")], name="body")
    model = randomize(keras.Model({"a": inputs}, [body(inputs), inputs]))
    wide = opened(model)
    assert "body/block/conv" in kernel_layers(functional_graph.read(wide))
    assert_same_function(model, wide, random_batch(model), tolerance=0.0)


def test_models_without_a_graph_are_refused() -> None:
    with pytest.raises(ModelError, match="Expected a keras"):
        opened(Inner(4))


def test_without_opening_the_note_is_that_there_is_no_rule() -> None:
    pruned = prune(network(Inner), Plan({"first": [3, 0, 3, 3, 3, 3]}))
    assert any("no rule for its type" in note for note in notes(pruned))


class Pyramid(Inner):
    """Resizes, as a layer that trains unless told otherwise, before it normalises."""

    def call(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return ops.relu(self.norm(L.Resizing(4, 4)(self.conv(x))))


def test_a_layer_that_trains_by_default_does_not_keep_its_surroundings_closed() -> None:
    model = keras.Sequential([keras.Input((8, 8, 2)), Pyramid(6, name="pyramid")])
    randomize(model)
    twin = opened(model)
    assert [call.name for call in functional_graph.read(twin).layers()][:1] == ["pyramid/conv"]
    batch = random_batch(model)
    found, expected = twin(batch, training=False), model(batch, training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert np.abs(model(batch, training=True) - expected).max() > 1e-3, "the control"
