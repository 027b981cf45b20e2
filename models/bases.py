"""Base architectures of the method: upper bounds on depth, widths and kernel sizes (Table 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

Tensor = Any


@dataclass(frozen=True)
class Base:
    """An upper bound: width and kernel size of every convolution.

    Attributes:
        layers: (width, size) of each convolution, in order.
        strided: Indices of the convolutions with stride 2.
        residual: Whether shortcuts bypass pairs of convolutions from the second one on; where the
            shape changes the shortcut is a strided 1x1 convolution.
    """

    layers: tuple[tuple[int, int], ...]
    strided: tuple[int, ...] = ()
    residual: bool = True


def build_base(base: Base, input_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Build a base architecture: convolutions with batch normalisation, pooling, softmax.

    Args:
        base: The bound.
        input_shape: Shape of one input, (height, width, channels).
        classes: Number of classes.

    Returns:
        A functional model; convolutions are named conv1, conv2, ...

    Raises:
        ValueError: A residual base does not end with a whole pair.

    Example:
        >>> model = build_base(Base(((8, 3),) * 3), (8, 8, 1), 10)
        >>> [layer.name for layer in model.layers if layer.name.startswith("conv")]
        ['conv1', 'conv2', 'conv3']
    """
    if base.residual and len(base.layers) % 2 == 0:
        raise ValueError(
            "layers: a residual base needs one convolution and then pairs, so an odd number. "
            f"Received: {len(base.layers)}"
        )
    inputs = keras.Input(input_shape, name="image")
    tensor = inputs
    step = 2 if base.residual else 1
    tensor = layers.ReLU(name="relu1")(_convolution(base, 0, tensor))
    for index in range(1, len(base.layers), step):
        tensor = _pair(base, index, tensor) if base.residual else _plain(base, index, tensor)
    tensor = layers.GlobalAveragePooling2D(name="pool")(tensor)
    outputs = layers.Dense(classes, activation="softmax", name="classes")(tensor)
    return keras.Model(inputs, outputs, name="residual" if base.residual else "plain")


def _initializer() -> keras.initializers.Initializer:
    """A uniform distribution of variance 1 / (3 fan_in).

    With batch normalisation the initial norm of a kernel sets its effective learning rate; this
    one trains these networks better than Keras' default. A new instance for every layer: one
    instance would give all layers the same numbers.
    """
    return keras.initializers.VarianceScaling(1.0 / 3.0, "fan_in", "uniform")


def _normalization(name: str) -> keras.layers.Layer:
    """Batch normalisation whose moving statistics follow a penalty that shrinks the scales."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)


def _convolution(base: Base, index: int, tensor: Tensor) -> Tensor:
    width, size = base.layers[index]
    tensor = layers.Conv2D(
        width,
        size,
        strides=2 if index in base.strided else 1,
        padding="same",
        use_bias=False,
        kernel_initializer=_initializer(),
        name=f"conv{index + 1}",
    )(tensor)
    return _normalization(f"norm{index + 1}")(tensor)


def _plain(base: Base, index: int, tensor: Tensor) -> Tensor:
    return layers.ReLU(name=f"relu{index + 1}")(_convolution(base, index, tensor))


def _pair(base: Base, index: int, shortcut: Tensor) -> Tensor:
    tensor = _plain(base, index, shortcut)
    tensor = _convolution(base, index + 1, tensor)
    if tensor.shape != shortcut.shape:
        stride = 2 if {index, index + 1} & set(base.strided) else 1
        shortcut = layers.Conv2D(
            tensor.shape[-1],
            1,
            strides=stride,
            use_bias=False,
            kernel_initializer=_initializer(),
            name=f"shortcut{index + 1}",
        )(shortcut)
        shortcut = _normalization(f"shortcut_norm{index + 1}")(shortcut)
    tensor = layers.Add(name=f"add{index + 2}")([shortcut, tensor])
    return layers.ReLU(name=f"relu{index + 2}")(tensor)
