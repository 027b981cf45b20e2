"""Folded networks compute the same, and have lost the normalisations that can go."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    TOLERANCE,
    chain,
    difference,
    random_batch,
    randomize,
    residual_network,
    types,
    use_float64,
)
from hypothesis import HealthCheck, Phase, given, settings
from keras import layers as L
from strategies_graphs import Case, cases

from keras_structsparse.errors import ModelError
from keras_structsparse.folding import folded

module = importlib.import_module("keras_structsparse.folding")

BACKEND = keras.backend.backend()
FIRST = BACKEND != "tensorflow"
"""TensorFlow has no convolutions with the channels first on a CPU."""

ALLOWED = TOLERANCE if BACKEND == "tensorflow" else 1e-5
"""Elsewhere Keras normalises in float32, whatever the policy."""


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def norms(model: keras.Model) -> int:
    return sum(isinstance(layer, L.BatchNormalization) for layer in model.layers)


def assert_same_function(left: keras.Model, right: keras.Model, inputs: Any) -> None:
    found = difference(left, right, inputs)
    assert found <= ALLOWED, f"relative difference {found:.2e}, allowed {ALLOWED:.0e}"


def assert_folded(model: keras.Model, left: int = 0) -> keras.Model:
    """Fail unless the folded network is equal, and what was folded makes a difference."""
    result, inputs = folded(model), random_batch(model)
    assert_same_function(model, result, inputs)
    assert norms(result) == left
    if types(result) != types(model):
        broken = folded(model)
        for weight in broken.weights:
            weight.assign(weight + 0.1 * np.sign(np.asarray(weight)) * (weight.path[-4:] == "bias"))
        assert difference(model, broken, inputs) > 1e2 * ALLOWED, "the control does not fail"
    return result


# --- every kind of layer ---

LAYERS: dict[str, tuple[Callable[..., keras.Layer], tuple[int, ...]]] = {
    "Conv1D": (lambda **o: L.Conv1D(4, 3, **o), (9, 2)),
    "Conv2D": (lambda **o: L.Conv2D(4, (3, 2), **o), (9, 8, 2)),
    "Conv2D, strides": (lambda **o: L.Conv2D(4, (3, 2), strides=2, **o), (9, 8, 2)),
    "Conv2D, dilation": (lambda **o: L.Conv2D(4, 2, dilation_rate=2, **o), (9, 8, 2)),
    "Conv2D, groups": (lambda **o: L.Conv2D(6, 3, groups=2, **o), (9, 8, 4)),
    "Conv3D": (lambda **o: L.Conv3D(3, 2, **o), (5, 4, 4, 2)),
    "Conv1DTranspose": (lambda **o: L.Conv1DTranspose(3, 3, strides=2, **o), (5, 2)),
    "Conv2DTranspose": (lambda **o: L.Conv2DTranspose(3, 3, strides=2, **o), (5, 4, 2)),
    "Conv3DTranspose": (lambda **o: L.Conv3DTranspose(3, 2, **o), (3, 3, 3, 2)),
    "DepthwiseConv1D": (lambda **o: L.DepthwiseConv1D(3, depth_multiplier=2, **o), (9, 2)),
    "DepthwiseConv2D": (lambda **o: L.DepthwiseConv2D(3, depth_multiplier=2, **o), (9, 8, 3)),
    "SeparableConv1D": (lambda **o: L.SeparableConv1D(4, 3, depth_multiplier=2, **o), (9, 2)),
    "SeparableConv2D": (lambda **o: L.SeparableConv2D(4, 3, depth_multiplier=2, **o), (9, 8, 3)),
    "Dense": (lambda **o: L.Dense(4, **o), (5,)),
    "Dense on maps": (lambda **o: L.Dense(4, **o), (5, 4, 3)),
}
if BACKEND == "jax":  # it compiles every operation for every shape
    LAYERS = {name: LAYERS[name] for name in ("Conv2D, groups", "SeparableConv2D")}
PLAIN = [name for name in LAYERS if "Transpose" not in name]
SPATIAL = [name for name in LAYERS if "Dense" not in name]


@pytest.mark.parametrize("options", [{}, {"use_bias": False}], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_normalisation_behind_a_layer_goes(name: str, options: Any) -> None:
    make, shape = LAYERS[name]
    model = chain(make(name="layer", **options), L.BatchNormalization(), L.ReLU(), shape=shape)
    assert_folded(model).get_layer("layer")


@pytest.mark.parametrize("name", SPATIAL)
def test_behind_a_padded_layer_too(name: str) -> None:
    make, shape = LAYERS[name]
    assert_folded(chain(make(padding="same"), L.BatchNormalization(), shape=shape))


@pytest.mark.parametrize("options", [{}, {"use_bias": False}], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", PLAIN)
def test_the_normalisation_ahead_of_an_unpadded_layer_goes(name: str, options: Any) -> None:
    make, shape = LAYERS[name]
    layer = make(activation="tanh", **options)
    assert_folded(chain(L.BatchNormalization(), layer, shape=shape))


@pytest.mark.parametrize("name", SPATIAL)
def test_ahead_of_a_border_it_stays(name: str) -> None:
    make, shape = LAYERS[name]
    model = chain(L.BatchNormalization(), make(padding="same"), shape=shape)
    assert types(assert_folded(model, left=1)) == types(model)


@pytest.mark.parametrize("name", SPATIAL)
def test_ahead_of_a_border_it_goes_where_nothing_is_added(name: str) -> None:
    make, shape = LAYERS[name]
    model = chain(L.BatchNormalization(center=False), make(padding="same"), shape=shape)
    norm = model.layers[0]
    norm.moving_mean.assign(np.zeros(norm.moving_mean.shape))
    assert_folded(model)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.Conv2D(4, 1, padding="same", strides=2),
        lambda: L.Conv2DTranspose(4, 1),
        lambda: L.SeparableConv2D(4, 1, padding="same"),
    ],
)
def test_a_window_of_one_sees_no_border(layer: Callable[[], keras.Layer]) -> None:
    assert_folded(chain(L.BatchNormalization(), layer()))


@pytest.mark.parametrize("strides", [2, 3])
def test_transposed_convolutions_with_gaps_see_one(strides: int) -> None:
    model = chain(L.BatchNormalization(), L.Conv2DTranspose(4, 1, strides=strides))
    assert_folded(model, left=1)


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"renorm": True}])
def test_normalisations_of_all_kinds(options: Any) -> None:
    assert_folded(chain(L.Conv2D(4, 3), L.BatchNormalization(epsilon=0.1, **options)))


def test_rows_of_normalisations() -> None:
    stack = [L.BatchNormalization(), L.Conv2D(4, 3), L.BatchNormalization(), L.BatchNormalization()]
    model = assert_folded(chain(*stack, L.Conv2D(3, 3, padding="same"), L.BatchNormalization()))
    assert types(model) == [L.Conv2D, L.Conv2D]


@pytest.mark.skipif(not FIRST, reason="TensorFlow does not run this on a CPU")
@pytest.mark.parametrize("make", [L.Conv2D, L.Conv2DTranspose, L.SeparableConv2D])
def test_channels_first(make: Any) -> None:
    layer = make(4, 3, data_format="channels_first")
    assert_folded(chain(layer, L.BatchNormalization(axis=1), shape=(2, 9, 8)))
    layer = L.Conv2D(4, 3, data_format="channels_first")
    assert_folded(chain(L.BatchNormalization(axis=1), layer, shape=(2, 9, 8)))


def test_channels_first_have_the_same_weights() -> None:
    first, last = (
        chain(L.Conv2D(4, 3, data_format=name), L.BatchNormalization(axis=axis), shape=shape)
        for name, axis, shape in (
            ("channels_first", 1, (2, 9, 8)),
            ("channels_last", -1, (9, 8, 2)),
        )
    )
    np.testing.assert_equal(folded(first).get_weights(), folded(last).get_weights())


# --- what stays ---


class OwnNorm(L.BatchNormalization):
    pass


class OwnConv(L.Conv2D):
    pass


STAYS: dict[str, list[Callable[[], keras.Layer]]] = {
    "activation": [lambda: L.Conv2D(4, 3, activation="relu"), L.BatchNormalization],
    "axis": [lambda: L.Conv2D(4, 3), lambda: L.BatchNormalization(axis=1)],
    "padding between": [lambda: L.Conv2D(4, 3), L.ZeroPadding2D, L.BatchNormalization],
    "own normalisation": [lambda: L.Conv2D(4, 3), OwnNorm],
    "own convolution": [lambda: OwnConv(4, 3), L.BatchNormalization],
    "pooling": [L.MaxPooling2D, L.BatchNormalization, L.ReLU],
}


@pytest.mark.parametrize("name", STAYS)
def test_what_stays(name: str) -> None:
    model = chain(*[make() for make in STAYS[name]])
    assert types(assert_folded(model, left=1)) == types(model)


@pytest.mark.parametrize("variance", [-1.0, np.nan, np.inf])
def test_broken_statistics_stay(variance: float) -> None:
    model = chain(L.Conv2D(4, 3), L.BatchNormalization(epsilon=0.0, name="norm"))
    model.get_layer("norm").moving_variance.assign([variance] * 4)
    assert norms(folded(model)) == (not np.isinf(variance))


def test_other_types_of_numbers_stay() -> None:
    model = chain(L.Conv2D(4, 3, dtype="float32"), L.BatchNormalization(dtype="float64"))
    assert norms(folded(model)) == 1


def test_low_rank_adapters_stay() -> None:
    model = chain(L.Dense(4, name="layer"), L.BatchNormalization(), shape=(3,))
    model.get_layer("layer").enable_lora(1)
    assert norms(folded(model)) == 1


Graph = Callable[[Any, Any, Any], Any]
"""From an input, a convolution and a normalisation to outputs."""


def graph(make: Graph) -> keras.Model:
    inputs = keras.Input((6, 6, 4))
    conv, norm = L.Conv2D(4, 3, padding="same", name="conv"), L.BatchNormalization(name="norm")
    return randomize(keras.Model(inputs, make(inputs, conv, norm)))


def also_an_output(x: Any, conv: Any, norm: Any) -> Any:
    y = conv(x)
    return [y, norm(y)]


def another_reader(x: Any, conv: Any, norm: Any) -> Any:
    y = conv(x)
    return L.Add()([L.ReLU()(y), norm(y)])


def another_source(x: Any, conv: Any, norm: Any) -> Any:
    return L.Add()([norm(conv(x)), norm(x)])


def two_normalisations(x: Any, conv: Any, norm: Any) -> Any:
    y = conv(x)
    return L.Add()([norm(y), L.BatchNormalization()(y)])


def one_call_without(x: Any, conv: Any, norm: Any) -> Any:
    return L.Add()([norm(conv(x)), conv(L.ReLU()(x))])


def ahead_of_two(x: Any, conv: Any, norm: Any) -> Any:
    y = norm(L.ReLU()(x))
    return L.Add()([L.Conv2D(3, 1)(y), L.Conv2D(3, 1)(y)])


def in_training(x: Any, conv: Any, norm: Any) -> Any:
    return norm(conv(x), training=True)


@pytest.mark.parametrize(
    "make",
    [
        also_an_output,
        another_reader,
        another_source,
        two_normalisations,
        one_call_without,
        ahead_of_two,
    ],
)
def test_what_others_see_stays(make: Graph) -> None:
    model = graph(make)
    assert_folded(model, left=norms(model))


def test_what_normalises_a_batch_stays() -> None:
    """Not compared: each run changes the statistics."""
    assert norms(folded(graph(in_training))) == 1


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


def test_a_nested_model_in_training_stays_whole() -> None:
    model = graph(lambda x, conv, norm: norm(conv(block()(x, training=True))))
    result = folded(model)
    assert norms(result) == 0
    assert norms(result.get_layer("block")) == 1


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
    @given(cases((*FAMILIES, *["normalization"] * 5, "activation", "merge"), depth=10))
    def run(case: Case) -> None:
        model = case.build()
        found.append(difference(model, folded(model), random_batch(model, case.seed)) > 1e-7)

    run()
    assert sum(found) >= 5
