"""Folded networks compute the same: shared layers, nested models, whole and random networks."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_folding import BACKEND, Graph, assert_folded, assert_same_function, graph, norms
from helpers_models import chain, difference, random_batch, randomize, residual_network, use_float64
from hypothesis import HealthCheck, Phase, assume, given, settings
from keras import layers as L
from strategies_graphs import Case, cases

from keras_structsparse.errors import ModelError
from keras_structsparse.graph.batch_norm_folding import folded

module = importlib.import_module("keras_structsparse.graph.batch_norm_folding")


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


# --- layers and models that are called several times ---


def twice(x: Any, conv: Any, norm: Any) -> Any:
    return L.Add()([norm(conv(x)), norm(conv(L.ReLU()(x)))])


def read_twice(x: Any, conv: Any, norm: Any) -> Any:
    y = conv(x)
    return L.Add()([norm(y), L.ReLU()(norm(y))])


@pytest.mark.parametrize("make", [twice, read_twice])
def test_layers_that_always_go_together(make: Graph) -> None:
    assert_folded(graph(make))


def block(width: int = 4) -> keras.Model:
    stack = (L.Conv2D(width, 3, padding="same", name="conv"), L.BatchNormalization(name="norm"))
    return keras.Sequential([keras.Input((6, 6, 4)), *stack, L.ReLU()], name="block")


def nested(x: Any, conv: Any, norm: Any) -> Any:
    inner = block()
    return norm(conv(inner(inner(x))))


def across(x: Any, conv: Any, norm: Any) -> Any:
    """The convolution inside, the normalisation outside."""
    inner = keras.Sequential([keras.Input((6, 6, 4)), conv], name="inner")
    return norm(inner(x))


def test_nested_models() -> None:
    model = assert_folded(graph(nested))
    assert {"conv", "block_conv"} <= {layer.name for layer in model.layers}
    assert_folded(graph(across))


def test_the_normalisation_of_a_nested_model_in_training_stays() -> None:
    model = graph(lambda x, conv, norm: norm(conv(block()(x, training=True))))
    result = folded(model)
    (left,) = [x for x in result.layers if isinstance(x, L.BatchNormalization)]
    assert left.name.startswith("block_")
    assert_same_function(model, result, random_batch(model))


# --- whole networks ---


def test_a_residual_network_keeps_its_names() -> None:
    model = residual_network()
    result = assert_folded(model)
    kept = [x.name for x in model.layers[1:] if not isinstance(x, L.BatchNormalization)]
    assert {layer.name for layer in result.layers[1:]} == set(kept)


def test_the_model_is_not_changed_and_the_result_needs_only_keras(tmp_path: Path) -> None:
    model = residual_network()
    before = model.get_weights()
    result = folded(model)
    for weight in result.weights:
        weight.assign(weight * 0.0)
    np.testing.assert_equal(model.get_weights(), before)
    result = folded(model)
    result.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert_same_function(result, again, random_batch(model))
    assert_same_function(result, folded(result), random_batch(model))


def test_without_normalisations_it_is_a_copy() -> None:
    model = chain(L.Conv2D(4, 3), L.ReLU())
    result = folded(model)
    assert_same_function(model, result, random_batch(model))
    assert result.layers[-2] is not model.layers[0]


def test_inputs_and_outputs_keep_their_structure() -> None:
    inputs = {"b": keras.Input((4,), name="b"), "a": keras.Input((3,), name="a")}
    x = L.BatchNormalization()(L.Dense(3)(inputs["b"]))
    model = randomize(keras.Model(inputs, {"y": L.Add()([x, inputs["a"]]), "x": x}))
    assert set(assert_folded(model)(random_batch(model))) == {"x", "y"}


def test_a_model_without_a_graph_is_refused() -> None:
    class Own(keras.Model):
        pass

    with pytest.raises(ModelError, match="no graph"):
        folded(Own())


# --- random networks ---

FAMILIES = ("convolution", "depthwise", "transposed", "dense", "nested", "levels", "shared")


def quick(examples: int) -> settings:
    return settings(
        max_examples=examples if BACKEND == "tensorflow" else 2,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@quick(15)
@given(cases((*FAMILIES, *["normalization"] * 5, "activation", "merge"), depth=10))
def test_folded_equals_the_model(case: Case) -> None:
    model = case.build()
    assert_same_function(model, folded(model), random_batch(model, case.seed))


@pytest.mark.slow
@settings(quick(300), derandomize=False)
@given(cases((*FAMILIES, *["normalization"] * 5, "merge", "pooling", "picked"), depth=12))
def test_many_networks(case: Case) -> None:
    model = case.build()
    assert_same_function(model, folded(model), random_batch(model, case.seed))


def without_shift(layer: keras.Layer, affine: Any) -> Any:
    return module.behind(layer, replace(affine, shift=0.0 * affine.shift))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the control needs many networks")
def test_wrong_folds_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: on some of these networks it shows that the shift is forgotten."""
    found = []
    original = module._fold

    def wrong(norm: keras.Layer, layer: keras.Layer, into: Any) -> Any:
        return original(norm, layer, without_shift if into is module.behind else into)

    monkeypatch.setattr(module, "_fold", wrong)

    @quick(15)
    @given(cases(("convolution", "normalization", "merge"), depth=10))
    def run(case: Case) -> None:
        model = case.build()
        result = folded(model)
        assume(norms(result) < norms(model))
        found.append(difference(model, result, random_batch(model, case.seed)) > 1e-7)

    run()
    assert sum(found) >= 5
