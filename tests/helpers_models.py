"""Networks, plans and the equality check that several tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers as L

from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.kernel_axes import axes_of, base_size, plain_shape
from keras_structsparse.graph.prunable_layers import kernel_layers
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan, masked

Array = Any

TOLERANCE = 1e-10


def randomize(model: keras.Model, seed: int = 0) -> keras.Model:
    """Give every weight, bias and normalisation of a model random values."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = rng.normal(size=weight.shape) * 0.5
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.path else value)
    return model


def use_float64() -> None:
    """Make float64 the default of layers and inputs; conftest sets it back after the test."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")


def chain(*stack: keras.Layer, shape: tuple[int | None, ...] = (9, 9, 2)) -> keras.Model:
    """Layers one after the other, with random weights."""
    return randomize(keras.Sequential([keras.Input(shape), *stack]))


def network_around(body: Callable[[Any], Any], activation: str = "relu") -> keras.Model:
    """A convolution of six kernels, something, and a reader; removed kernels leave f(bias)."""
    inputs = keras.Input((7, 6, 2))
    x = body(L.Conv2D(6, 3, activation=activation, name="first")(inputs))
    if len(x.shape) == 4:
        x = L.Conv2D(3, 3, padding="same", name="reader")(x)
    model = randomize(keras.Model(inputs, L.Dense(2, "tanh")(x)))
    if activation == "relu":
        model.get_layer("first").bias.assign(-np.ones(6))  # constants of zero
    return model


def kernel_shape(model: keras.Model, name: str) -> tuple[int, ...]:
    """The shape of the kernel of a layer."""
    return tuple(model.get_layer(name).kernel.shape)


def types(model: keras.Model) -> list[type[keras.Layer]]:
    """The types of a model's layers, without its inputs."""
    return [type(x) for x in model.layers if not isinstance(x, L.InputLayer)]


def random_batch(model: keras.Model, seed: int = 0, samples: int = 13, unknown: int = 12) -> Any:
    """Random inputs in the structure that a model takes; sizes not known become `unknown`.

    By default as many as no network of the tests has channels or positions: outside of a
    compiled function Keras 3.15 on TensorFlow takes the second summand of (3, 3, 1) + (3, 1, 1)
    for a bias of the positions, and broadcasts over the samples.
    """
    rng = np.random.default_rng(seed)
    shapes = [(samples, *(n or unknown for n in tensor.shape[1:])) for tensor in model.inputs]
    batch = [rng.normal(size=shape) for shape in shapes]
    structure = functional_graph.input_structure(model)
    if len(batch) == 1 and not isinstance(structure, dict):
        return batch[0]
    return keras.tree.pack_sequence_as(structure, batch)


def outputs(model: keras.Model, inputs: Any) -> list[Array]:
    """The outputs of a model at inference as numpy arrays.

    Without ``training=False`` a Resizing, which trains by default, makes all after it train.
    """
    found = keras.tree.flatten(model(inputs, training=False))
    return [keras.ops.convert_to_numpy(tensor) for tensor in found]


def difference(left: keras.Model, right: keras.Model, inputs: Any) -> float:
    """The largest difference of their outputs relative to the largest output."""
    pairs = zip(outputs(left, inputs), outputs(right, inputs), strict=True)
    # np.max, unlike max, does not lose a NaN.
    return float(np.max([np.abs(a - b).max() / (np.abs(a).max() or 1.0) for a, b in pairs]))


def assert_same_function(
    left: keras.Model, right: keras.Model, inputs: Any, tolerance: float = TOLERANCE
) -> None:
    """Fail unless two models compute the same."""
    found = difference(left, right, inputs)
    assert found <= tolerance, f"relative difference {found:.2e}, allowed {tolerance:.0e}"


def assert_exact_surgery(
    model: keras.Model, plan: Plan, seed: int = 0, tolerance: float = TOLERANCE, **options: Any
) -> keras.Model:
    """Fail unless pruning equals masking, and the check can tell a wrong network.

    The control is the pruned network against the network before: the plan must remove something
    that matters.
    """
    inputs = random_batch(model, seed)
    pruned = prune(model, plan, **options)
    assert_same_function(masked(model, plan), pruned, inputs, tolerance)
    assert difference(model, pruned, inputs) > 1e3 * tolerance, "the control does not fail"
    return pruned


def random_plan(model: keras.Model, seed: int, dead: tuple[str, ...] = ()) -> Plan:
    """Random sizes for all layers but the last, where every layer keeps its first kernel."""
    rng = np.random.default_rng(seed)
    sizes: dict[str, Array] = {}
    for name, layer in list(kernel_layers(functional_graph.read(model)).items())[:-1]:
        base, width = base_size(layer), plain_shape(layer)[-1]
        drawn = rng.integers(0, base + 1, width)
        drawn *= rng.random(len(drawn)) < rng.choice([0.4, 0.7, 1.0])
        drawn = np.minimum(drawn, rng.integers(1, base + 1))
        drawn[0] = max(drawn[0], 1)
        drawn = drawn if axes_of(layer).sized else base * (drawn > 0)
        sizes[name] = np.zeros_like(drawn) if name in dead else drawn
    return Plan({name: value.tolist() for name, value in sizes.items()})


def residual_network(
    normalize: bool = True,
    strides: int | tuple[int, int] = 2,
    explicit_padding: bool = False,
    activation: str = "relu",
    seed: int = 0,
    dtype: str = "float64",
) -> keras.Model:
    """A small residual network with all that makes surgery hard; random weights."""
    options = {"dtype": dtype}

    def conv(x: Any, width: int, size: Any, step: Any = 1, name: str = "", act: str = "") -> Any:
        if explicit_padding:
            x = L.ZeroPadding2D(2, **options)(x)
        padding = "valid" if explicit_padding else "same"
        x = L.Conv2D(width, size, strides=step, padding=padding, name=name, **options)(x)
        if normalize:
            x = L.BatchNormalization(**options)(x)
        return L.Activation(act, **options)(x) if act else x

    def merge(left: Any, right: Any) -> Any:
        return L.Activation(activation, **options)(L.Add(**options)([left, right]))

    small = 5 if explicit_padding else 4
    inputs = keras.Input((13, 11, 3), dtype=dtype)
    x = conv(inputs, 8, 5, name="stem", act=activation)
    y = conv(conv(x, 8, 5, name="b1a", act=activation), 8, 5, name="b1b")
    x = merge(x, y)
    y = conv(conv(x, 12, 5, strides, "b2a", activation), 12, small, name="b2b")
    x = merge(conv(x, 12, 5 if explicit_padding else 1, strides, "shortcut"), y)
    y = conv(conv(x, 12, 5, name="b3a", act=activation), 12, 5, name="b3b")
    x = merge(x, y)
    z = conv(x, 5, 5 if explicit_padding else (3, 2), name="branch")
    x = L.Concatenate(**options)([x, z])
    x = L.MaxPooling2D(2, padding="same", **options)(x)
    x = L.Conv2D(6, 3, padding="same", activation="tanh", name="last", **options)(x)
    x = L.Dense(20, activation="sigmoid", name="hidden", **options)(L.Flatten(**options)(x))
    x = L.Dense(4, name="classes", **options)(L.Dropout(0.5, **options)(x))
    return randomize(keras.Model(inputs, x), seed)
