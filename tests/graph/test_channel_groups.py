"""Which kernels write what a layer reads, and which kernels share channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
from keras import layers as L
from keras import ops

from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.channels.channel_groups import ChannelMap, runs
from keras_structsparse.graph.channels.channel_groups import KernelRun as Run
from keras_structsparse.graph.prunable_layers import kernel_layers

Tensor = Any


def conv(x: Tensor, name: str, width: int = 2, size: int = 3, **options: Any) -> Tensor:
    return L.Conv2D(width, size, padding="same", name=name, **options)(x)


def network(body: Callable[[Tensor], Tensor], shape: tuple[int | None, ...] = (8, 8, 3)) -> Any:
    inputs = keras.Input(shape)
    return functional_graph.read(keras.Model(inputs, body(inputs)))


def found_reads(
    graph: functional_graph.Graph, name: str, writers: Any = None
) -> tuple[list[Run], int]:
    """What the layer of a name reads."""
    order = sorted(kernel_layers(graph)) if writers is None else writers
    (call,) = (call for call in graph.calls if call.name == name)
    return runs(ChannelMap.of(graph).writers(order)[call.inputs[0]], order)


def found_joined(graph: functional_graph.Graph, writers: Any = None) -> list[Run]:
    order = sorted(kernel_layers(graph)) if writers is None else writers
    return ChannelMap.of(graph).joined(order)


A = Run((("a", 0),), 2)
B = Run((("b", 0),), 2)
BOTH = Run((("a", 0), ("b", 0)), 2)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda x: x, ([], 3)),
        (lambda x: conv(x, "a"), ([A], 0)),
        (lambda x: L.ReLU()(L.BatchNormalization()(conv(x, "a"))), ([A], 0)),
        (lambda x: L.Activation("swish")(L.ZeroPadding2D(1)(conv(x, "a"))), ([A], 0)),
        (lambda x: L.Dropout(0.1)(L.MaxPooling2D(2)(conv(x, "a"))), ([A], 0)),
        (lambda x: L.Concatenate()([conv(x, "a"), x, conv(x, "b")]), ([A, B], 3)),
        (lambda x: L.Add()([conv(x, "a"), conv(x, "b")]), ([BOTH], 0)),
        (lambda x: L.Multiply()([conv(x, "a"), conv(x, "b")]), ([BOTH], 0)),
        (lambda x: L.Add()([x, conv(x, "a", 3)]), ([], 3)),
        (
            lambda x: L.DepthwiseConv2D(3, depth_multiplier=3, name="d")(conv(x, "a")),
            ([Run((("d", 0),), 6)], 0),
        ),
        (lambda x: L.SeparableConv2D(5, 3, name="s")(conv(x, "a")), ([Run((("s", 0),), 5)], 0)),
        (lambda x: L.Softmax()(conv(x, "a")), ([], 2)),
        (lambda x: L.Activation("softmax")(conv(x, "a")), ([], 2)),
        (lambda x: conv(x, "a", activation="softmax"), ([], 2)),
        (lambda x: L.LayerNormalization()(conv(x, "a")), ([], 2)),
        (lambda x: L.BatchNormalization(axis=1)(conv(x, "a")), ([], 2)),
        (lambda x: L.Lambda(lambda t: t)(conv(x, "a")), ([], 2)),
        (lambda x: L.Concatenate(axis=1)([conv(x, "a"), conv(x, "b")]), ([], 2)),
        (lambda x: L.Add()([conv(x, "a"), conv(x, "b", 1)]), ([], 2)),
    ],
)
def test_what_a_layer_reads(body: Callable[[Tensor], Tensor], expected: Any) -> None:
    graph = network(lambda x: L.Conv2D(4, 1, name="reader")(body(x)))
    assert found_reads(graph, "reader") == expected


@pytest.mark.parametrize(
    ("bare", "layer"),
    [
        (lambda a, b: a + b, lambda a, b: L.Add()([a, b])),
        (lambda a, b: ops.relu(a) + ops.tanh(b), lambda a, b: L.Add()([L.ReLU()(a), b])),
        (lambda a, b: a - b, lambda a, b: L.Subtract()([a, b])),
        (lambda a, b: a * b, lambda a, b: L.Multiply()([a, b])),
        (lambda a, b: ops.maximum(a, b), lambda a, b: L.Maximum()([a, b])),
        (
            lambda a, b: ops.concatenate([a, b], axis=-1),
            lambda a, b: L.Concatenate()([a, b]),
        ),
        (
            lambda a, b: ops.image.resize(a, (4, 4)) + ops.image.resize(b, (4, 4)),
            lambda a, b: L.Add()([L.Resizing(4, 4)(a), L.Resizing(4, 4)(b)]),
        ),
        (
            lambda a, b: ops.split(a, 2, axis=-1)[1] + ops.split(b, 2, axis=-1)[0],
            lambda a, b: L.Add()([ops.take(a, [1], -1), ops.take(b, [0], -1)]),
        ),
        (
            lambda a, b: a * ops.sigmoid(ops.mean(b, (1, 2), keepdims=True)),
            lambda a, b: L.Multiply()([a, L.GlobalAveragePooling2D(keepdims=True)(b)]),
        ),
    ],
)
def test_bare_operations_are_followed_like_layers(bare: Any, layer: Any) -> None:
    def found(join: Any) -> Any:
        graph = network(lambda x: L.Conv2D(4, 1, name="reader")(join(conv(x, "a"), conv(x, "b"))))
        return found_reads(graph, "reader"), found_joined(graph)

    assert found(bare) == found(layer)
    assert found(bare) != (([], 2), [])


def test_slices_pass_on_the_channels_that_they_pick() -> None:
    def body(x: Tensor) -> Tensor:
        a, b = conv(x, "a", 4), conv(x, "b", 4)
        joined = ops.concatenate([a[..., 1:], b[..., :2]], axis=-1)
        return L.Conv2D(4, 1, name="reader")(joined)

    runs_read = [Run((("a", 1),), 3), Run((("b", 0),), 2)]
    assert found_reads(network(body), "reader") == (runs_read, 0)


def test_a_dense_layer_reads_every_position_of_a_flattened_map() -> None:
    graph = network(lambda x: L.Dense(4, name="reader")(L.Flatten()(conv(x, "a"))))
    assert found_reads(graph, "reader") == ([Run((("a", 0),), 2, 64)], 0)
    pooled = network(lambda x: L.Dense(4, name="reader")(L.GlobalAveragePooling2D()(conv(x, "a"))))
    assert found_reads(pooled, "reader") == ([A], 0)


def test_a_depthwise_layer_left_out_passes_channels_on() -> None:
    def body(x: Tensor) -> Tensor:
        return conv(L.DepthwiseConv2D(3, depth_multiplier=3, name="d")(conv(x, "a")), "reader")

    assert found_reads(network(body), "reader", ["a", "reader"]) == ([Run(A.first, 2, 3)], 0)
    assert found_reads(network(body), "d") == ([A], 0)


def test_a_sum_behind_a_depthwise_layer_joins_its_kernels() -> None:
    def body(x: Tensor) -> Tensor:
        x = conv(x, "a")
        return conv(L.Add()([x, L.ReLU()(L.DepthwiseConv2D(3, padding="same", name="d")(x))]), "r")

    assert found_joined(network(body)) == [Run((("a", 0), ("d", 0)), 2)]


def test_a_reader_sees_only_the_writers_before_it() -> None:
    def body(x: Tensor) -> Tensor:
        x = conv(x, "a")
        y = L.Add()([x, conv(x, "b")])
        return L.Add()([y, conv(y, "c")])

    graph = network(body)
    assert found_reads(graph, "b") == ([A], 0)
    assert found_reads(graph, "c") == ([BOTH], 0)
    assert found_joined(graph) == [Run((("a", 0), ("b", 0), ("c", 0)), 2)]


def test_a_layer_left_out_writes_channels_that_last() -> None:
    graph = network(lambda x: conv(L.Add()([conv(x, "a"), conv(x, "b")]), "reader"))
    assert found_reads(graph, "reader", ["a", "reader"]) == ([], 2)
    assert found_joined(graph, ["a", "reader"]) == []
    assert found_joined(graph) == [BOTH]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda x: L.Concatenate()([conv(x, "a"), conv(x, "b")]), []),
        (lambda x: L.Add()([x, conv(conv(x, "a"), "b", 3)]), []),
        (lambda x: L.Add()([L.MaxPooling2D(1)(x), conv(x, "a", 3), conv(x, "b", 3)]), []),
        (
            lambda x: L.Add()([L.ReLU()(conv(x, "a")), L.BatchNormalization()(conv(x, "b"))]),
            [BOTH],
        ),
        (
            lambda x: L.Add()([conv(x, "a", 4), L.Concatenate()([conv(x, "b"), conv(x, "c")])]),
            [Run((("a", 0), ("b", 0)), 2), Run((("a", 2), ("c", 0)), 2)],
        ),
    ],
)
def test_which_kernels_are_joined(body: Callable[[Tensor], Tensor], expected: list[Run]) -> None:
    assert found_joined(network(body)) == expected


def test_channels_first_and_last() -> None:
    def body(x: Tensor) -> Tensor:
        x = conv(x, "a", data_format="channels_first")
        x = L.MaxPooling2D(2, data_format="channels_first")(L.BatchNormalization(axis=1)(x))
        return conv(x, "reader", data_format="channels_first")

    assert found_reads(network(body, (3, 8, 8)), "reader") == ([A], 0)
    graph = network(
        lambda x: conv(L.MaxPooling2D(2)(conv(x, "a", data_format="channels_first")), "reader"),
        (3, 8, 8),
    )
    assert found_reads(graph, "reader") == ([], 8)


def test_shared_layers_and_nested_models() -> None:
    block = keras.Sequential(
        [keras.Input((8, 8, 2)), L.Conv2D(2, 3, padding="same", name="inner")], name="block"
    )
    graph = network(lambda x: L.Add()([conv(x, "a"), block(block(conv(x, "b")))]))
    assert found_joined(graph) == [Run((("a", 0), ("block/inner", 0)), 2)]
