"""Reading, copying and rebuilding graphs of every structure that Keras has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    assert_same_function,
    chain,
    difference,
    random_batch,
    randomize,
    use_float64,
)
from keras import layers as L

from keras_structsparse.errors import ModelError
from keras_structsparse.graph import cloning, functional_graph
from keras_structsparse.graph.rebuilding import rebuild
from keras_structsparse.regularizers import KernelSize


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def functional() -> keras.Model:
    inputs = keras.Input((6, 6, 2), name="image")
    x = L.Conv2D(3, 3, padding="same", name="conv")(inputs)
    y = L.ReLU(name="relu")(x)
    return keras.Model(inputs, L.Add(name="sum")([x, y]))


def sequential() -> keras.Model:
    return chain(L.Conv2D(3, 3, name="conv"), L.Flatten(name="flat"), L.Dense(2, name="head"))


def deferred() -> keras.Model:
    model = keras.Sequential([L.Conv2D(3, 3, name="conv"), L.Flatten(name="flat")])
    model(np.zeros((1, 6, 6, 2)))
    return model


def nested() -> keras.Model:
    block = keras.Sequential([keras.Input((6, 6, 2)), L.Conv2D(2, 3, name="conv")], name="block")
    outer_inputs = keras.Input((6, 6, 2))
    outer = keras.Model(outer_inputs, block(outer_inputs), name="outer")
    inputs = keras.Input((6, 6, 2))
    return keras.Model(inputs, L.ReLU(name="relu")(outer(inputs)))


def nested_twice() -> keras.Model:
    block = keras.Sequential(
        [keras.Input((6, 6, 2)), L.Conv2D(2, 3, padding="same", name="conv")], name="block"
    )
    inputs = keras.Input((6, 6, 2))
    return keras.Model(inputs, block(block(inputs)))


def shared() -> keras.Model:
    inputs, conv = keras.Input((6, 6, 2)), L.Conv2D(2, 3, padding="same", name="conv")
    return keras.Model(inputs, conv(conv(inputs)))


def lists() -> keras.Model:
    left, right = keras.Input((6, 6, 2), name="left"), keras.Input((6, 6, 2), name="right")
    total = L.Subtract(name="minus")([right, left])
    return keras.Model([left, right], [L.ReLU(name="relu")(total), total])


def dicts() -> keras.Model:
    b, a = keras.Input((6, 6, 2), name="b"), keras.Input((6, 6, 2), name="a")
    total = L.Subtract(name="minus")([a, b])
    return keras.Model({"b": b, "a": a}, {"z": total, "y": L.Dense(2, name="dense")(b)})


def bare() -> keras.Model:
    inputs = keras.Input((6, 6, 2))
    x = L.Dense(2, name="dense")(inputs)
    return keras.Model(inputs, keras.ops.concatenate([x * 2.0, inputs], axis=-1))


def scaled() -> keras.Model:
    return chain(L.Dense(2, name="dense"), L.Lambda(lambda x: 3 * x + 1, name="lambda"))


NAMES: dict[Callable[[], keras.Model], set[str]] = {
    functional: {"conv", "relu", "sum"},
    sequential: {"conv", "flat", "head"},
    deferred: {"conv", "flat"},
    nested: {"outer/block/conv", "relu"},
    nested_twice: {"block/conv"},
    shared: {"conv"},
    lists: {"minus", "relu"},
    dicts: {"minus", "dense"},
    bare: {"dense", "multiply", "concatenate"},
    scaled: {"dense", "lambda"},
}
every = pytest.mark.parametrize("build", NAMES, ids=lambda build: build.__name__)


@every
def test_reading_names_every_call_and_knows_every_shape(build: Callable[[], keras.Model]) -> None:
    model = build()
    network = functional_graph.read(model)
    assert {call.name for call in network.calls} == NAMES[build]
    assert [network.shapes[i] for i in network.inputs] == [tuple(t.shape) for t in model.inputs]
    assert [network.shapes[i] for i in network.outputs] == [tuple(t.shape) for t in model.outputs]


@every
def test_calls_come_after_those_they_read(build: Callable[[], keras.Model]) -> None:
    network = functional_graph.read(build())
    known = set(network.inputs)
    for call in network.calls:
        assert known.issuperset(call.inputs)
        assert known.isdisjoint(call.outputs)
        known.update(call.outputs)
    assert known.issuperset(network.outputs)


def test_readers_are_the_calls_that_read() -> None:
    network = functional_graph.read(functional())
    conv, relu, total = network.calls
    assert network.readers[conv.outputs[0]] == (relu, total)
    assert total.outputs[0] not in network.readers
    assert not any(map(network.is_shared, network.calls))


@pytest.mark.parametrize("build", [shared, nested_twice])
def test_a_shared_layer_has_two_calls_and_counts_once(build: Callable[[], keras.Model]) -> None:
    network = functional_graph.read(build())
    first, second = network.calls
    assert first.operation is second.operation
    assert second.inputs == first.outputs
    assert network.is_shared(first)
    assert list(network.layers()) == [first]


@every
def test_a_copy_computes_the_same_with_weights_of_its_own(
    build: Callable[[], keras.Model],
) -> None:
    model = randomize(build())
    twin, inputs = cloning.copy_model(model), random_batch(model)
    assert_same_function(model, twin, inputs)
    if twin.weights:
        before = model.get_weights()
        randomize(twin, seed=1)
        assert difference(model, twin, inputs) > 1e-3
        np.testing.assert_equal(model.get_weights(), before)


@every
def test_rebuilding_from_clones_computes_the_same(build: Callable[[], keras.Model]) -> None:
    model = randomize(build())
    copies: dict[int, keras.Operation] = {}

    def replace(call: functional_graph.Call, tensors: list[Any]) -> list[Any]:
        args, kwargs = call.arguments(tensors)
        key = id(call.operation)
        new = key not in copies
        copies.setdefault(key, cloning.clone(call.operation))
        outputs = keras.tree.flatten(copies[key](*args, **kwargs))
        if new and isinstance(call.operation, keras.Layer):
            copies[key].set_weights(call.operation.get_weights())
        return outputs

    rebuilt, inputs = (
        rebuild(functional_graph.read(model), replace),
        random_batch(model),
    )
    assert_same_function(model, rebuilt, inputs)
    assert type(rebuilt(inputs)) is type(model(inputs))
    if copies and rebuilt.weights:
        randomize(rebuilt, seed=1)
        assert difference(model, rebuilt, inputs) > 1e-3


def test_rebuilding_can_leave_a_layer_out() -> None:
    model = chain(L.Dense(2, name="dense"), L.ReLU(name="relu"))

    def replace(call: functional_graph.Call, tensors: list[Any]) -> list[Any]:
        return tensors if call.name == "relu" else [call.operation(*tensors)]

    rebuilt, inputs = (
        rebuild(functional_graph.read(model), replace),
        random_batch(model),
    )
    assert [c.name for c in functional_graph.read(rebuilt).calls] == ["dense"]
    assert difference(model, rebuilt, inputs) > 0.1


def test_reading_leaves_the_model_alone() -> None:
    model = functional()
    before = [len(layer._inbound_nodes) for layer in model.layers]
    functional_graph.read(model)
    assert [len(layer._inbound_nodes) for layer in model.layers] == before


class Subclassed(keras.Model):
    def call(self, inputs: Any) -> Any:
        return inputs


class OwnCall(keras.Model):
    """A functional model that does something else when called."""

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        return 2.0 * super().call(inputs)


class OwnSequential(keras.Sequential):
    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        return 2.0 * super().call(inputs)


def own_call() -> keras.Model:
    inputs = keras.Input((3,))
    return OwnCall(inputs, L.Dense(2)(inputs), name="odd")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: Subclassed(name="odd"), ("odd", "Subclassed", "functional or Sequential")),
        (own_call, ("odd", "OwnCall")),
        (lambda: OwnSequential([keras.Input((3,)), L.Dense(2)], name="odd"), ("odd", "OwnSeq")),
        (lambda: keras.Sequential([L.Dense(2)], name="odd"), ("odd", "not built", "keras.Input")),
        (lambda: keras.Sequential(name="odd"), ("odd", "not built")),
        (lambda: "model.keras", ("keras.Model", "str")),
        (lambda: L.Dense(2), ("keras.Model", "Dense")),
    ],
)
@pytest.mark.parametrize(
    "function", [functional_graph.read, cloning.copy_model, functional_graph.functional]
)
def test_what_has_no_graph_is_refused(
    function: Callable[[Any], Any], model: Callable[[], Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ModelError) as error:
        function(model())
    assert all(word in str(error.value) for word in words)


def test_a_subclassed_layer_inside_is_a_call_like_others() -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, Subclassed(name="inner")(inputs))
    assert [call.name for call in functional_graph.read(model).calls] == ["inner"]


def regularized(wrap: Callable[[keras.Layer], keras.Layer], shape: tuple[int, ...]) -> keras.Model:
    conv = L.Conv2D(
        2, 3, kernel_regularizer=KernelSize(1.0), bias_regularizer=keras.regularizers.L2(1.0)
    )
    return chain(wrap(conv), L.Dense(2), shape=shape)


@pytest.mark.parametrize(
    ("wrap", "shape"),
    [
        (lambda conv: conv, (6, 6, 2)),
        (lambda conv: keras.Sequential([keras.Input((6, 6, 2)), conv]), (6, 6, 2)),
        (L.TimeDistributed, (4, 6, 6, 2)),
    ],
    ids=["plain", "nested", "wrapped"],
)
def test_a_copy_has_the_regularizers_of_others_only(
    wrap: Callable[[keras.Layer], keras.Layer], shape: tuple[int, ...]
) -> None:
    model = regularized(wrap, shape)
    assert len(model.losses) == 2
    twin = cloning.copy_model(model)
    assert len(twin.losses) == 1
    assert "keras_structsparse" not in twin.to_json()
    assert "keras_structsparse" in model.to_json()


def test_a_copy_takes_changes_of_configuration() -> None:
    twin = cloning.copy_model(functional(), lambda layer: {"dtype": "float32"})
    assert {w.dtype for w in twin.weights} == {"float32"}


def test_a_clone_of_a_lambda_keeps_its_function() -> None:
    layer = L.Lambda(lambda x: 3 * x)
    twin = cloning.clone(layer)
    assert twin is not layer
    assert float(keras.ops.sum(twin(np.ones((1, 1))))) == 3.0


class Unclonable(keras.Layer):
    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.kernel = self.add_weight(shape=(units,), name="kernel")

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError

    def call(self, inputs: Any) -> Any:
        return inputs * self.kernel


def test_a_layer_without_a_configuration_is_made_with_the_arguments_that_keras_recorded() -> None:
    twin = cloning.clone(Unclonable(2, name="odd"), dtype="float64")
    assert (twin.name, twin.kernel.shape, twin.kernel.dtype) == ("odd", (2,), "float64")


def test_a_layer_with_weights_that_cannot_be_made_again_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="'odd' of type Unclonable cannot be copied"):
        cloning.clone(Unclonable(2, name="odd", dtype=keras.DTypePolicy("float32")))
