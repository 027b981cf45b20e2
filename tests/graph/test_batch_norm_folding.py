"""Every kind of layer takes up the normalisations beside it that can go, and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_folding import (
    BACKEND,
    FIRST,
    Graph,
    assert_folded,
    assert_same_function,
    graph,
    norms,
)
from helpers_models import chain, random_batch, types, use_float64
from keras import layers as L

from keras_structsparse.graph.batch_norm_folding import folded


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


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


# --- ReLUs behind ReLUs ---


def relus(model: keras.Model) -> int:
    return sum(isinstance(layer, L.ReLU) for layer in folded(model).layers)


@pytest.mark.parametrize(
    "first", [L.ReLU, lambda: L.Activation("relu"), lambda: L.Conv2D(4, 3, activation="relu")]
)
def test_a_relu_behind_another_goes(first: Callable[[], keras.Layer]) -> None:
    model = chain(L.Conv2D(4, 3), first(), L.ReLU(name="idle"), L.Activation("relu", name="too"))
    kept = {layer.name for layer in folded(model).layers}
    assert not kept & {"idle", "too"}
    assert len(kept) == len(model.layers) - 1
    assert_same_function(model, folded(model), random_batch(model))


@pytest.mark.parametrize(
    "first",
    [
        *(lambda: L.Conv2D(4, 3), lambda: L.ReLU(negative_slope=0.1)),
        *(lambda: L.ReLU(max_value=6.0), lambda: L.Activation("tanh"), L.ZeroPadding2D),
    ],
)
def test_behind_anything_else_it_stays(first: Callable[[], keras.Layer]) -> None:
    model = chain(L.Conv2D(4, 3), first(), L.ReLU(name="relu"))
    assert "relu" in {layer.name for layer in folded(model).layers}


@pytest.mark.parametrize("options", [{"max_value": 6.0}, {"threshold": 0.5}])
def test_what_cuts_off_more_stays(options: Any) -> None:
    assert relus(chain(L.Conv2D(4, 3), L.ReLU(), L.ReLU(**options))) == 2


def test_a_relu_that_is_idle_in_one_of_its_calls_stays() -> None:
    def twice(x: Any, conv: Any, norm: Any) -> Any:
        relu = L.ReLU()
        return L.Add()([relu(L.Activation("relu")(conv(x))), relu(norm(x))])

    model = graph(twice)
    assert_same_function(model, folded(model), random_batch(model))
    assert relus(model) == 1


def test_a_relu_that_widens_numbers_stays() -> None:
    first, second = L.ReLU(dtype="float32"), L.ReLU(dtype="float64")
    assert relus(chain(L.Conv2D(4, 3, dtype="float32"), first, second)) == 2
