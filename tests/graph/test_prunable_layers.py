"""Which layers have kernels to choose, and which batch normalisation hides their scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
from keras import layers as L

from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.prunable_layers import PrunableLayers, batch_norm_pairs, kernel_layers

Tensor = Any
Chain = Callable[[Tensor], Tensor]


def norm(**options: Any) -> keras.Layer:
    return L.BatchNormalization(name="norm", **options)


def conv(**options: Any) -> keras.Layer:
    return L.Conv2D(2, 3, padding="same", name="conv", **options)


def pairs(body: Chain, shape: tuple[int, ...] = (6, 6, 2)) -> dict[str, str]:
    inputs = keras.Input(shape)
    found = batch_norm_pairs(functional_graph.read(keras.Model(inputs, body(inputs))))
    return {name: layer.name for name, layer in found.items()}


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        (lambda x: norm()(conv()(x)), (6, 6, 2)),
        (lambda x: norm(axis=3)(conv()(x)), (6, 6, 2)),
        (lambda x: norm(scale=False)(conv()(x)), (6, 6, 2)),
        (lambda x: norm()(L.ZeroPadding2D(2)(conv()(x))), (6, 6, 2)),
        (lambda x: norm()(L.ZeroPadding2D(1)(L.ZeroPadding2D(2)(conv()(x)))), (6, 6, 2)),
        (lambda x: norm()(L.Dense(2, name="conv")(x)), (6,)),
        (lambda x: norm()(L.Conv1D(2, 3, name="conv")(x)), (6, 2)),
        (lambda x: norm()(L.Conv3D(2, 3, name="conv")(x)), (6, 6, 6, 2)),
        (lambda x: norm()(L.DepthwiseConv2D(3, name="conv")(x)), (6, 6, 2)),
        (lambda x: norm()(L.DepthwiseConv1D(3, depth_multiplier=2, name="conv")(x)), (6, 2)),
        # The normalisation does not divide by the length of the kernel before the depthwise one.
        (lambda x: norm()(L.DepthwiseConv2D(3, name="conv")(L.Conv2D(2, 3)(x))), (6, 6, 2)),
    ],
)
def test_a_normalisation_that_alone_reads_a_layer_is_its_pair(
    body: Chain, shape: tuple[int, ...]
) -> None:
    assert pairs(body, shape) == {"conv": "norm"}


@pytest.mark.parametrize(
    "between",
    [
        L.ReLU(),
        L.LeakyReLU(),
        L.PReLU(shared_axes=[1, 2]),
        L.Activation("gelu"),
        keras.ops.relu,
        keras.ops.silu,
        L.MaxPooling2D(),
        L.AveragePooling2D(2, padding="same"),
        L.GlobalAveragePooling2D(),
        L.GlobalMaxPooling2D(keepdims=True),
        lambda x: keras.ops.max(x, axis=(1, 2)),
        L.Dropout(0.5),
        L.SpatialDropout2D(0.5),
        L.UpSampling2D(),
        L.ZeroPadding2D(1),
    ],
)
def test_what_treats_channels_one_by_one_may_be_between(between: Chain) -> None:
    for activation in (None, "relu", "gelu"):
        layer = conv(activation=activation)

        def body(x: Tensor, layer: keras.Layer = layer) -> Tensor:
            return norm()(between(keras.ops.relu(layer(x))))

        assert pairs(body) == {"conv": "norm"}


def test_the_first_normalisation_is_the_pair() -> None:
    def body(x: Tensor) -> Tensor:
        return L.BatchNormalization(name="second")(L.ReLU()(norm()(L.ReLU()(conv()(x)))))

    assert pairs(body) == {"conv": "norm"}


@pytest.mark.parametrize("axis", [1, -3])
def test_channels_first_layers_are_paired_behind_their_activation(axis: int) -> None:
    def body(x: Tensor) -> Tensor:
        x = conv(data_format="channels_first", activation="relu")(x)
        return norm(axis=axis)(L.ZeroPadding2D(1, data_format="channels_first")(x))

    assert pairs(body, (2, 6, 6)) == {"conv": "norm"}


def test_other_axes_are_not_those_of_the_channels_behind_an_activation() -> None:
    def body(x: Tensor) -> Tensor:
        return norm(axis=2)(conv(data_format="channels_first", activation="relu")(x))

    assert pairs(body, (2, 6, 6)) == {}


def two_readers(x: Tensor) -> Tensor:
    x = conv()(x)
    return L.Add()([x, norm()(x)])


def shared_conv(x: Tensor) -> Tensor:
    layer = conv()
    return norm()(layer(layer(x)))


def shared_norm(x: Tensor) -> Tensor:
    layer = norm()
    return layer(layer(conv()(x)))


def padding_with_two_readers(x: Tensor) -> Tensor:
    x = L.ZeroPadding2D(1)(conv()(x))
    return L.Add()([x, norm()(x)])


@pytest.mark.parametrize(
    "body",
    [
        lambda x: norm(axis=1)(conv()(x)),
        lambda x: norm(axis=1)(conv(activation="relu")(x)),
        lambda x: norm()(conv(activation="softmax")(x)),
        lambda x: norm()(L.Softmax()(conv()(x))),
        lambda x: norm()(L.Flatten()(conv()(x))),
        lambda x: norm()(L.Permute((1, 3, 2))(conv()(x))),
        lambda x: norm()(keras.ops.mean(conv()(x), axis=-1, keepdims=True)),
        lambda x: L.Add()([norm()(y := L.ReLU()(conv()(x))), y]),
        lambda x: L.LayerNormalization()(conv()(x)),
        lambda x: norm()(L.Conv2D(2, 3, groups=2)(x)),
        lambda x: conv()(norm()(x)),
        two_readers,
        shared_conv,
        shared_norm,
        padding_with_two_readers,
    ],
)
def test_other_normalisations_are_no_pair(body: Chain) -> None:
    assert pairs(body) == {}


def test_a_layer_that_is_an_output_has_no_pair() -> None:
    inputs = keras.Input((6, 6, 2))
    x = conv()(inputs)
    assert batch_norm_pairs(functional_graph.read(keras.Model(inputs, [x, norm()(x)]))) == {}


def test_a_channels_first_layer_has_no_pair_on_the_last_axis() -> None:
    assert pairs(lambda x: norm()(conv(data_format="channels_first")(x)), (2, 6, 6)) == {}


@pytest.mark.parametrize("axis", [1, -3])
def test_channels_first_layers_are_paired_on_their_own_axis(axis: int) -> None:
    def body(x: Tensor) -> Tensor:
        x = conv(data_format="channels_first")(x)
        return norm(axis=axis)(L.ZeroPadding2D(1, data_format="channels_first")(x))

    assert pairs(body, (2, 6, 6)) == {"conv": "norm"}
    assert pairs(lambda x: norm(axis=2)(conv(data_format="channels_first")(x)), (2, 6, 6)) == {}


def test_pairs_in_nested_models_have_long_names() -> None:
    block = keras.Sequential([keras.Input((6, 6, 2)), conv(), norm()], name="block")
    assert pairs(block) == {"block/conv": "norm"}


class Own(L.Conv2D):
    """May do anything with its kernel."""


def test_kernel_layers_are_ungrouped_convolutions_and_dense_layers() -> None:
    convolutions = ["plain", "depthwise", "separable", "transposed"]
    stack = [
        L.Conv2D(2, 3, name="plain"),
        L.Conv2D(2, 3, groups=2, name="grouped"),
        L.DepthwiseConv2D(3, name="depthwise"),
        L.SeparableConv2D(2, 3, name="separable"),
        L.Conv2DTranspose(2, 3, name="transposed"),
        Own(2, 3, name="own"),
        L.Flatten(),
        L.Dense(2, name="dense"),
    ]
    model = keras.Sequential([keras.Input((12, 12, 2)), *stack])
    assert list(kernel_layers(functional_graph.read(model))) == [*convolutions, "dense"]
    found = PrunableLayers.of(model)
    assert list(found.convolutions) == convolutions
    assert list(found.regularizable) == ["plain", "depthwise", "separable", "dense"]
