"""Networks with depthwise convolutions: random blocks, and those of well-known networks."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from helpers_models import randomize
from keras import layers as L

Rng = np.random.Generator

ACTIVATIONS = ("linear", "relu", "tanh", "swish")


def depthwise_options(rng: Rng, keeps_shape: bool = False) -> dict[str, Any]:
    """Random options of a depthwise layer; TensorFlow has no strides with dilations."""
    strides, dilation = ((1, 1), (2, 1), (3, 1), (1, 2))[int(rng.integers(4))]
    return {
        "kernel_size": int(rng.integers(1, 7)),
        "strides": 1 if keeps_shape else strides,
        "dilation_rate": dilation,
        "padding": "same" if keeps_shape else str(rng.choice(["same", "valid"])),
        "depth_multiplier": 1 if keeps_shape else int(rng.integers(1, 4)),
        "use_bias": bool(rng.integers(2)),
        "activation": str(rng.choice(ACTIVATIONS)),
    }


def random_block(seed: int) -> keras.Model:
    """A depthwise layer between convolutions, with random options, normalisations and branches."""
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, 3))
    inputs = keras.Input((*(17, 15)[:rank], 3))
    conv, width = getattr(L, f"Conv{rank}D"), int(rng.integers(4, 8))

    def maybe_normed(x: Any) -> Any:
        x = L.BatchNormalization()(x) if rng.integers(2) else x
        return L.Activation(str(rng.choice(ACTIVATIONS)))(x)

    x = maybe_normed(conv(width, int(rng.choice([1, 3])), padding="same", name="expand")(inputs))
    branch = str(rng.choice(["none", "sum", "second reader", "zero padding"]))
    if branch == "zero padding":
        x = getattr(L, f"ZeroPadding{rank}D")(2)(x)
    layer = getattr(L, f"DepthwiseConv{rank}D")
    y = maybe_normed(layer(name="depthwise", **depthwise_options(rng, branch == "sum"))(x))
    if branch == "sum":
        y = L.Add()([x, y])
    y = maybe_normed(conv(4, int(rng.choice([1, 2])), padding="same", name="project")(y))
    y = getattr(L, f"GlobalAveragePooling{rank}D")()(y)
    if branch == "second reader":
        x = conv(3, 2, padding="same", name="second")(x)
        y = L.Concatenate()([y, getattr(L, f"GlobalMaxPooling{rank}D")()(x)])
    return randomize(keras.Model(inputs, L.Dense(2)(y)), seed)


def normed(x: Any, activation: str | None = None) -> Any:
    x = L.BatchNormalization()(x)
    return L.Activation(activation)(x) if activation else x


def gated(x: Any, gate: str) -> Any:
    """Squeeze-and-excite: a factor for each channel, computed from the channel means."""
    width = x.shape[-1]
    means = L.GlobalAveragePooling2D(keepdims=True)(x)
    means = L.Conv2D(4, 1, activation="relu", name="squeeze")(means)
    return L.Multiply()([x, L.Conv2D(width, 1, activation=gate, name="excite")(means)])


def mixed(x: Any) -> Any:
    """MixConv: depthwise kernels of four sizes, each for a part of the channels."""
    parts = keras.ops.split(x, 4, axis=-1)
    sized = zip((3, 5, 7, 9), parts, strict=True)
    layers = [L.DepthwiseConv2D(n, padding="same", name=f"depthwise{n}")(p) for n, p in sized]
    return L.Concatenate()(layers)


def inverted_residual(
    activation: str = "relu6",
    size: int = 3,
    strides: int = 1,
    gate: str | None = None,
    mix: bool = False,
    seed: int = 3,
) -> keras.Model:
    """A block as in MobileNetV2 (V3 and EfficientNet with a gate), with loud random weights."""
    inputs = keras.Input((14, 14, 8))
    x = normed(L.Conv2D(16, 1, use_bias=False, name="stem")(inputs), activation)
    y = normed(L.Conv2D(32, 1, use_bias=False, name="expand")(x), activation)
    options = {"padding": "same", "use_bias": False, "name": "depthwise"}
    y = mixed(y) if mix else L.DepthwiseConv2D(size, strides, **options)(y)
    y = normed(y, activation)
    y = gated(y, gate) if gate else y
    y = normed(L.Conv2D(16, 1, use_bias=False, name="project")(y))
    y = L.Add()([x, y]) if strides == 1 else y
    y = L.GlobalAveragePooling2D()(L.Conv2D(12, 1, name="last")(y))
    return randomize(keras.Model(inputs, L.Dense(5, name="head")(y)), seed)


def random_streams(seed: int) -> keras.Model:
    """Residual streams of random blocks, between projections of all kinds."""
    rng = np.random.default_rng(seed)
    activation, side = str(rng.choice(["relu", "relu6", "swish"])), int(rng.choice([4, 8, 15]))

    def conv(x: Any, width: int, size: int, strides: int = 1, name: str = "") -> Any:
        options = {"padding": "same", "use_bias": False, "name": name}
        return L.Conv2D(width, size, strides, **options)(x)

    def block(x: Any, name: str) -> Any:
        width = int(x.shape[-1] if rng.integers(3) else rng.integers(3, 6))
        strides = 1 if width == x.shape[-1] else int(rng.integers(1, 3))
        if rng.integers(2):
            y = normed(conv(x, 6, 1, name=f"{name}_expand"), activation)
            y = L.DepthwiseConv2D(3, strides, "same", name=f"{name}_depthwise")(y)
            y = normed(conv(normed(y, activation), width, 1, name=f"{name}_project"))
        else:
            y = normed(conv(x, 4, 3, strides, name=f"{name}_in"), activation)
            y = normed(conv(y, width, 3, name=f"{name}_out"))
        if width != x.shape[-1]:
            if rng.integers(2):
                return y
            x = normed(conv(x, width, 1, strides, name=f"{name}_shortcut"))
        return L.Activation("relu" if rng.integers(2) else "linear")(L.Add()([x, y]))

    inputs = keras.Input((side, side, 2))
    x = normed(conv(inputs, 4, 3, int(rng.integers(1, 3)), name="stem"), activation)
    for number in range(int(rng.integers(2, 6))):
        x = block(x, f"block{number}")
    x = L.GlobalAveragePooling2D()(normed(conv(x, 8, 1, name="last"), activation))
    return randomize(keras.Model(inputs, L.Dense(3, name="head")(x)), seed)


def is_depthwise(name: str) -> bool:
    return name.startswith("depthwise")
