"""Layers that compute the outputs keep all their kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
from helpers_shrink import conv
from keras import layers as L

from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.inner_layers import inner_layers


def dense(x: Any, name: str, width: int = 2) -> Any:
    return L.Dense(width, name=name)(x)


def pooled(x: Any) -> Any:
    return L.GlobalAveragePooling2D()(x)


def nested(x: Any) -> Any:
    """A block of its own: its last layer is read by the head."""
    inputs = keras.Input((6, 6, 4))
    block = keras.Model(inputs, conv(conv(inputs, 4, name="b"), 4, name="c"), name="block")
    return dense(pooled(block(conv(x, 4, name="a"))), "head")


def nested_head(x: Any) -> Any:
    inputs = keras.Input((4,))
    top = keras.Sequential([inputs, L.Dense(3, name="b"), L.Dense(2, name="head"), L.Softmax()])
    return top(pooled(conv(x, 4, name="a")))


def two_outputs(x: Any) -> Any:
    x = conv(x, 4, name="a")
    return [dense(pooled(x), "one"), dense(pooled(conv(x, 3, name="b")), "two")]


def inner_output(x: Any) -> Any:
    """One output is read by another one."""
    x = conv(x, 4, name="a")
    y = dense(pooled(x), "one")
    return {"first": y, "second": dense(y, "two")}


def sum_with_input(x: Any) -> Any:
    return L.Add()([x, conv(conv(x, 5, name="a"), 4, name="last")])


def both_summands(x: Any) -> Any:
    x = conv(x, 4, name="a")
    return L.Add()([x, conv(conv(x, 5, name="b"), 4, name="c")])


def scaled(x: Any) -> Any:
    """A gate: both factors compute the output."""
    x = conv(x, 4, name="a")
    return L.Multiply()([conv(x, 4, name="b"), conv(x, 4, name="gate", activation="sigmoid")])


def depthwise_last(x: Any) -> Any:
    return L.DepthwiseConv2D(3)(conv(conv(x, 4, name="a"), 3, name="b"))


def rnn_last(x: Any) -> Any:
    return L.GRU(2)(L.Reshape((36, 4))(conv(x, 4, name="a")))


def normed(x: Any) -> Any:
    x = L.BatchNormalization()(conv(conv(x, 4, name="a"), 3, name="b"))
    return L.Softmax()(pooled(L.Dropout(0.1)(L.ReLU()(x))))


CASES: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "head": (lambda x: dense(pooled(conv(x, 4, name="a")), "head"), ("a",)),
    "softmax": (lambda x: L.Softmax()(dense(pooled(conv(x, 4, name="a")), "head")), ("a",)),
    "no dense layer": (lambda x: pooled(conv(conv(x, 4, name="a"), 3, name="b")), ("a",)),
    "flat maps": (lambda x: L.Flatten()(conv(conv(x, 4, name="a"), 3, name="b")), ("a",)),
    "normalised": (normed, ("a",)),
    "depthwise last": (depthwise_last, ("a",)),
    "recurrent last": (rnn_last, ("a",)),
    "sum with the input": (sum_with_input, ("a",)),
    "sum of two": (both_summands, ("b",)),
    "gate": (scaled, ("a",)),
    "two outputs": (two_outputs, ("a", "b")),
    "an output that is read": (inner_output, ("a",)),
    "nested": (nested, ("a", "block/b", "block/c")),
    "nested head": (nested_head, ("a", "sequential/b")),
    "only a head": (lambda x: dense(pooled(x), "head"), ()),
}


@pytest.mark.parametrize("name", CASES)
def test_layers_that_others_read(name: str) -> None:
    body, expected = CASES[name]
    inputs = keras.Input((6, 6, 4))
    found = PrunableLayers.of(keras.Model(inputs, body(inputs)))
    inner = inner_layers(found)
    assert {each.split("/")[-1] for each in inner} == {each.split("/")[-1] for each in expected}
    assert len(found.layers) > len(inner) or name == "recurrent last"
    assert list(inner) == [each for each in found.layers if each in inner]
