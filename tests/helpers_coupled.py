"""A few kernels of several layers, joined or reading each other, and the value of their penalty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from helpers_prox import Array, random_kernel
from keras import layers as L

from keras_structsparse.regularizers import GroupSparsityRegularizer
from keras_structsparse.regularizers.coupling import (
    ChannelGroup,
    CouplingSpec,
    Writer,
    joint_weight,
)
from keras_structsparse.training.optimizer.stacked_kernels import RegularizedKernel

SHAPES = {"a": (3, 3, 2, 4), "b": (3, 3, 3, 4), "c": (1, 1, 2, 4), "d": (5, 5, 2, 3)}
SCALES = {"a": "a/gamma", "b": None, "c": None, "d": "d/gamma"}
SHARES = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 1.0}


def values(seed: int, dead: float = 0.0) -> dict[str, Array]:
    """Random kernels and gammas, by path."""
    rng = np.random.default_rng(seed)
    kernels = {name: random_kernel(shape, seed, dead) for name, shape in SHAPES.items()}
    gammas = {path: rng.normal(size=SHAPES[n][-1]) for n, path in SCALES.items() if path}
    return {**kernels, **gammas}


def writer(name: str, first: int = 0) -> Writer:
    return Writer(name, SCALES[name], first)


def joint_links(norm: str = "l2") -> dict[str, CouplingSpec]:
    """a and b share all channels with c; d stands alone."""

    def factor(name: str) -> float:
        m = np.prod(SHAPES[name][:-1])
        return float({"l2": 1.0, "group_normalized": m**-0.5, "group_scaled": m**0.5}[norm])

    names = ("a", "b", "c")
    weight = joint_weight([SHARES[name] * factor(name) for name in names])
    stream = ChannelGroup(tuple(writer(name) for name in names), 4, weight)
    other = CouplingSpec(joined=((0, 4),))
    return {"a": CouplingSpec(joint=(stream,), joined=((0, 4),)), "b": other, "c": other}


def partial_links() -> dict[str, CouplingSpec]:
    """Kernels 1 and 2 of a share channels with kernels 2 and 3 of c; all others are alone."""
    stream = ChannelGroup((writer("a", 1), writer("c", 2)), 2, 1.5)
    return {
        "a": CouplingSpec(joined=((1, 2),)),
        "c": CouplingSpec(joint=(stream,), joined=((2, 2),)),
    }


def reading_links() -> dict[str, CouplingSpec]:
    """a reads the input, b what a writes, c a sum of a and b and again a, d half of c."""
    both = ChannelGroup((writer("a"), writer("b")), 4, 30.0)
    return {
        "a": CouplingSpec(constant=50.0),
        "b": CouplingSpec(reads=(ChannelGroup((writer("a"),), 4, 40.0),)),
        "c": CouplingSpec(reads=(both, ChannelGroup((writer("a"),), 4, 5.0)), constant=3.0),
        "d": CouplingSpec(reads=(ChannelGroup((writer("c", 2),), 2, 7.0),), constant=1.0),
    }


def network(
    regularizer: GroupSparsityRegularizer,
    links: Mapping[str, CouplingSpec],
    given: Mapping[str, Array],
) -> list[RegularizedKernel]:
    """A member of float64 variables for each of the layers."""
    variables = {path: keras.Variable(value, dtype="float64") for path, value in given.items()}
    members = []
    for name in SHAPES:
        scale = SCALES[name]
        own = regularizer.bound(SHARES[name], scale, links.get(name))
        own.bind(variables)
        gamma = None if scale is None else variables[scale]
        members.append(RegularizedKernel(own, variables[name], gamma, name))
    return members


def total(
    members: Sequence[RegularizedKernel], paths: Sequence[str], tensors: Sequence[Any]
) -> Any:
    """The sum of the values of all regularizers, as a function of tensors for the variables."""
    given = dict(zip(paths, tensors, strict=True))
    for member in members:
        member.regularizer.bind(given)
    return sum(member.regularizer(given[member.path]) for member in members)


def effective(given: Mapping[str, Array]) -> dict[str, Array]:
    """The effective kernels, by name of the layer."""
    found = {}
    for name, path in SCALES.items():
        kernel = given[name]
        length = np.sqrt((kernel**2).sum(axis=(0, 1, 2)))
        found[name] = kernel if path is None else kernel * (given[path] / length)
    return found


def block(x: Any, width: int, size: int, name: str, strides: int = 1) -> Any:
    x = L.Conv2D(width, size, strides=strides, padding="same", use_bias=False, name=name)(x)
    return L.BatchNormalization(name=f"{name}_norm")(x)


def stream_network() -> keras.Model:
    """Sums, a concatenation, pooling, padding, strides, layers with and without normalisation."""
    inputs = keras.Input((8, 8, 3))
    x = L.ReLU()(block(inputs, 4, 3, "stem"))
    y = block(L.ReLU()(block(x, 5, 3, "b1a")), 4, 3, "b1b")
    x = L.ReLU()(L.Add()([x, y]))
    side = L.Conv2D(3, 5, strides=2, padding="same", name="side")(x)
    main = L.Conv2D(6, 1, strides=2, name="main")(L.Activation("swish")(x))
    x = L.Concatenate()([side, L.MaxPooling2D(1)(main)])
    x = L.ReLU()(block(L.ZeroPadding2D(1)(x), 4, 3, "last"))
    x = L.Dense(2, name="classes")(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def short_network() -> keras.Model:
    """One residual block, quick to trace: the stem and the block write one stream."""
    inputs = keras.Input((8, 8, 3))
    x = L.ReLU()(block(inputs, 6, 3, "stem"))
    y = block(L.ReLU()(block(x, 5, 3, "inner")), 6, 3, "outer")
    x = L.Conv2D(2, 1, name="last")(L.ReLU()(L.Add()([x, y])))
    return keras.Model(inputs, L.GlobalAveragePooling2D()(x))
