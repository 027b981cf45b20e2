"""A normalisation behind a concatenation goes into all its parts, or stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
from helpers_folding import FIRST, assert_folded, graph
from helpers_models import chain, random_plan, randomize, types, use_float64
from keras import layers as L

import keras_structsparse as kss


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def conv(filters: int = 2, **options: Any) -> keras.Layer:
    return L.Conv2D(filters, 3, padding="same", **options)


PARTS: dict[str, list[Callable[[], keras.Layer]]] = {
    "convolutions": [conv, lambda: conv(3, use_bias=False), lambda: L.Conv2D(1, 1)],
    "groups": [lambda: conv(4, groups=2), conv],
    "depthwise": [lambda: L.DepthwiseConv2D(3, padding="same"), conv],
    "separable": [lambda: L.SeparableConv2D(3, 3, padding="same"), lambda: L.Dense(2)],
    "transposed": [lambda: L.Conv2DTranspose(3, 3, padding="same"), conv],
}


@pytest.mark.parametrize("name", PARTS)
def test_it_goes_into_all_parts(name: str) -> None:
    def make(x: Any, conv: Any, norm: Any) -> Any:
        return L.ReLU()(norm(L.Concatenate()([make()(x) for make in PARTS[name]])))

    model = assert_folded(graph(make))
    assert types(model) == [*[type(make()) for make in PARTS[name]], L.Concatenate, L.ReLU]


def joined(*parts: Callable[[Any], Any], axis: int = -1) -> Callable[[Any, Any, Any], Any]:
    return lambda x, conv, norm: norm(L.Concatenate(axis)([part(x) for part in parts]))


def read_twice(x: Any, conv: Any, norm: Any) -> Any:
    part = conv(x)
    return [norm(L.Concatenate()([part, L.Conv2D(1, 1)(x)])), L.ReLU()(part)]


def joined_twice(x: Any, conv: Any, norm: Any) -> Any:
    join = L.Concatenate()([conv(x), L.Conv2D(1, 1)(x)])
    return [norm(join), L.ReLU()(join)]


def one_part_twice(x: Any, conv: Any, norm: Any) -> Any:
    part = conv(x)
    return norm(L.Concatenate()([part, part]))


def called_twice(x: Any, conv: Any, norm: Any) -> Any:
    return [norm(L.Concatenate()([conv(x), L.Conv2D(1, 1)(x)])), conv(L.ReLU()(x))]


def an_output(x: Any, conv: Any, norm: Any) -> Any:
    part = conv(x)
    return [norm(L.Concatenate()([part, L.Conv2D(1, 1)(x)])), part]


STAYS = {
    "an input": joined(lambda x: x, conv()),
    "an activation": joined(conv(activation="relu"), conv()),
    "another axis": joined(conv(), conv(), axis=1),
    "another layer": joined(conv(), L.MaxPooling2D(1)),
    "a part that is read twice": read_twice,
    "a concatenation that is read twice": joined_twice,
    "a part that is there twice": one_part_twice,
    "a layer that is called twice": called_twice,
    "a part that is an output": an_output,
}


@pytest.mark.parametrize("name", STAYS)
def test_it_stays_behind(name: str) -> None:
    model = graph(STAYS[name])
    assert types(assert_folded(model, left=1)) == types(model)


@pytest.mark.skipif(not FIRST, reason="TensorFlow does not run this on a CPU")
def test_parts_of_channels_first() -> None:
    x = keras.Input((2, 9, 8))
    parts = [L.Conv2D(n, 3, data_format="channels_first")(x) for n in (2, 3)]
    outputs = L.BatchNormalization(axis=1)(L.Concatenate(1)(parts))
    assert_folded(randomize(keras.Model(x, outputs)))


def test_a_split_convolution_takes_its_normalisation() -> None:
    stack = [L.Conv2D(8, 5, padding="same", name="conv"), L.BatchNormalization(), L.ReLU()]
    model = chain(*stack, L.Conv2D(3, 3))
    pruned = kss.prune(model, random_plan(model, 0), realize="split")
    assert L.Concatenate in types(pruned), "it was split"
    assert_folded(pruned)
