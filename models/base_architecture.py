"""Base architectures of the method: upper bounds on depth, widths and kernel sizes (Table 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
from keras import layers

from keras_structsparse._typing import Tensor
from keras_structsparse._validation import positive_int
from keras_structsparse.graph.onednn import overflows
from keras_structsparse.profiling.memory import check_memory

Apply = Callable[[Tensor], Tensor]

MOST_LAYERS = 2_000
"""Convolutions of a base: more are a slip of the keyboard."""

MOST_ENTRIES = 2**31
"""Entries of all kernels, likewise: 8 GiB."""

INITIALIZERS: Mapping[str, Callable[[], keras.initializers.Initializer]] = {
    "small_uniform": lambda: keras.initializers.VarianceScaling(1.0 / 3.0, "fan_in", "uniform"),
    "he_normal": keras.initializers.HeNormal,
    "glorot_uniform": keras.initializers.GlorotUniform,
}
"""Kernel initializers. Every layer gets a new instance: a shared one repeats its numbers."""

NORMALIZATIONS = ("after", "before", "none")


@dataclass(frozen=True)
class Base:
    """An upper bound: width and kernel size of every convolution.

    The classifier, a dense layer behind global average pooling, is not part of the bound: it counts
    in the depth and is not regularized.

    Attributes:
        layers: (width, size) of each convolution, in order.
        strided: Indices of the convolutions with stride 2.
        residual: Whether shortcuts bypass pairs of convolutions from the second one on; where the
            shape changes the shortcut is a strided 1x1 convolution; over fewer than 16 channels
            a pooling of size 1 has its strides. A last convolution without a partner has no
            shortcut.
        normalization: Position of batch normalisation: "after" a convolution, "before" it, or
            "none". Only after a convolution is it paired with the kernels, so that the penalty acts
            on the effective kernels.
        initializer: A key of :data:`INITIALIZERS`. With batch normalisation the norm of a kernel
            sets its effective learning rate, so the initializer is part of a base. None:
            "small_uniform", of variance 1 / (3 fan_in), which trains these networks better than
            Keras' default "glorot_uniform"; "he_normal" without normalisation, where
            "small_uniform" reduces the variance of the signal sixfold in every layer.
        pooled: Whether a 3x3 max pooling with stride 2 follows the first convolution.

    Raises:
        ValueError: ``layers`` is empty or too large, or holds other than whole numbers >= 1; or a
            name is unknown.
    """

    layers: tuple[tuple[int, int], ...]
    strided: tuple[int, ...] = ()
    residual: bool = True
    normalization: str = "after"
    initializer: str | None = None
    pooled: bool = False

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers: expected at least one convolution. Received: ()")
        if len(self.layers) > MOST_LAYERS:
            raise ValueError(
                f"layers: expected at most {MOST_LAYERS:,}. Received: {len(self.layers):,}"
            )
        before, entries = 1, 0
        for width, size in self.layers:
            entries += before * positive_int("layers", width) * positive_int("layers", size) ** 2
            if entries > MOST_ENTRIES:
                raise ValueError(
                    f"layers: expected kernels of at most {MOST_ENTRIES:,} entries in all. "
                    f"Received: more, up to ({width}, {size}) behind {before} channels"
                )
            before = width
        check_memory(4 * entries, "kernels", "layers")
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(
                f"normalization: expected one of {NORMALIZATIONS}. Received: {self.normalization!r}"
            )
        if self.initializer is not None and self.initializer not in INITIALIZERS:
            raise ValueError(
                f"initializer: expected one of {tuple(INITIALIZERS)}. "
                f"Received: {self.initializer!r}"
            )


def build_base(base: Base, input_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Build a base architecture: convolutions with batch normalisation, pooling, softmax.

    Args:
        base: The bound.
        input_shape: Shape of one input, (height, width, channels).
        classes: Number of classes.

    Returns:
        A functional model; convolutions are named conv1, conv2, ...

    Examples:
        >>> model = build_base(Base(((8, 3),) * 3), (8, 8, 1), 10)
        >>> [layer.name for layer in model.layers if layer.name.startswith("conv")]
        ['conv1', 'conv2', 'conv3']
    """
    inputs = keras.Input(input_shape, name="image")
    tensor = _plain(base, 0, inputs)
    if base.pooled:
        tensor = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(tensor)
    index, count = 1, len(base.layers)
    while index < count:
        is_pair = base.residual and index + 1 < count
        tensor = (_pair if is_pair else _plain)(base, index, tensor)
        index += 2 if is_pair else 1
    tensor = layers.GlobalAveragePooling2D(name="pool")(tensor)
    outputs = layers.Dense(classes, activation="softmax", name="classes")(tensor)
    return keras.Model(inputs, outputs, name="residual" if base.residual else "plain")


def _plain(base: Base, index: int, tensor: Tensor) -> Tensor:
    return layers.ReLU(name=f"relu{index + 1}")(_main(base, index)(tensor))


def _pair(base: Base, index: int, shortcut: Tensor) -> Tensor:
    tensor = _main(base, index + 1)(_plain(base, index, shortcut))
    if tensor.shape != shortcut.shape:
        shortcut = _projection(base, index, tensor.shape[-1])(shortcut)
    tensor = layers.Add(name=f"add{index + 2}")([shortcut, tensor])
    return layers.ReLU(name=f"relu{index + 2}")(tensor)


def _main(base: Base, index: int) -> Apply:
    width, size = base.layers[index]
    convolution = _convolution(base, width, size, _stride(base, index), f"conv{index + 1}")
    return _normalized(base, convolution, f"norm{index + 1}")


def _projection(base: Base, index: int, width: int) -> Apply:
    stride = _stride(base, index) * _stride(base, index + 1)
    convolution = _convolution(base, width, 1, stride, f"shortcut{index + 1}")
    return _normalized(base, convolution, f"shortcut_norm{index + 1}")


def _stride(base: Base, index: int) -> int:
    return 2 if index in base.strided else 1


def _convolution(base: Base, width: int, size: int, stride: int, name: str) -> Apply:
    default = "he_normal" if base.normalization == "none" else "small_uniform"
    # Made now: the order in which initializers draw their seeds is that of earlier versions.
    initializer = INITIALIZERS[base.initializer or default]()

    def convolved(tensor: Tensor) -> Tensor:
        strides = stride
        if overflows((size, size, tensor.shape[-1], width), (stride, stride)):
            # The same positions by a pooling of size 1: oneDNN cannot train such strides.
            tensor = layers.AveragePooling2D(1, stride, name=f"{name}_places")(tensor)
            strides = 1
        return layers.Conv2D(
            width,
            size,
            strides=strides,
            padding="same",
            use_bias=base.normalization != "after",
            kernel_initializer=initializer,
            name=name,
        )(tensor)

    return convolved


def _normalized(base: Base, convolution: Apply, name: str) -> Apply:
    if base.normalization == "none":
        return convolution
    # A momentum of 0.9, since moving statistics must follow a penalty that shrinks the scales.
    norm = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)
    first, second = (convolution, norm) if base.normalization == "after" else (norm, convolution)
    return lambda tensor: second(first(tensor))
