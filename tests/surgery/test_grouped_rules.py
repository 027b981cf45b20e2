"""Surgery of grouped convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    assert_exact_surgery,
    assert_same_function,
    chain,
    kernel_shape,
    random_batch,
    randomize,
    types,
    use_float64,
)
from keras import layers as L

from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.provenance import notes

Array = Any

OPTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 3, "padding": "valid", "use_bias": False},
    {"kernel_size": (2, 4), "strides": 2, "padding": "same"},
    {"kernel_size": 1},
]


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def network(
    groups: int = 3,
    activation: str = "sigmoid",
    shortcut: bool = False,
    **options: Any,
) -> keras.Model:
    """Twelve channels, a grouped convolution that makes as many, and a reader."""
    inputs = keras.Input((7, 6, 2))
    x = L.Conv2D(12, 3, activation=activation, name="first")(inputs)
    y = L.Conv2D(12, groups=groups, name="grouped", **{"kernel_size": 3, **options})(x)
    y = L.Activation("swish")(L.BatchNormalization(name="norm")(y))
    y = L.Conv2D(3, 2, name="reader")(y)
    outputs = [L.Dense(2, "tanh")(y)] + [L.Dense(2)(x)] * shortcut
    model = randomize(keras.Model(inputs, outputs))
    if activation == "relu":
        model.get_layer("first").bias.assign(-np.ones(12))  # constants of zero
    return model


def without(*dead: int) -> Plan:
    """Kernels of the first layer that go."""
    return Plan({"first": [0 if kernel in dead else 3 for kernel in range(12)]})


def kill(model: keras.Model, *dead: int) -> None:
    """Kernels of the grouped layer become zero."""
    kernel = model.get_layer("grouped").kernel
    kernel.assign(kernel * ~np.isin(np.arange(12), dead))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("groups", [3, 12])
@pytest.mark.parametrize("dead", [(1, 4, 5, 9, 11), range(1, 12)], ids=str)
def test_any_dead_inputs(options: dict[str, Any], groups: int, dead: Any) -> None:
    assert_exact_surgery(network(groups, **options), without(*dead))


@pytest.mark.parametrize(
    ("dead", "shape", "left"),
    [
        ((0, 5, 11), (3, 12), 9),  # one of each group
        ((0, 5), (4, 12), 12),  # the third group needs all of its channels
        ((0, 1, 5, 6, 11), (3, 12), 9),
        ((0, 1, 2, 3), (4, 8), 8),  # a whole group: what it makes is constant
    ],
    ids=str,
)
def test_inputs_go_where_groups_stay_equal(
    dead: tuple[int, ...], shape: tuple[int, int], left: int
) -> None:
    model = network(padding="same", activation="relu")
    pruned = assert_exact_surgery(model, without(*dead))
    assert kernel_shape(pruned, "grouped")[-2:] == shape
    assert kernel_shape(pruned, "first")[-1] == left
    assert pruned.get_layer("grouped").groups == shape[1] // 4
    assert types(pruned) == types(model)


def test_every_group_has_a_carrier_of_its_own() -> None:
    pruned = assert_exact_surgery(network(padding="same"), without(0, 1, 4, 5, 8, 9))
    assert kernel_shape(pruned, "grouped")[-2:] == (3, 12)
    pruned = assert_exact_surgery(network(padding="valid"), without(0, 1, 4, 5, 8, 9))
    assert kernel_shape(pruned, "grouped")[-2:] == (2, 12)


@pytest.mark.parametrize(
    ("dead", "left", "shape"),
    [
        ((0, 4, 8), 12, (4, 9)),
        ((0, 4), 12, (4, 12)),
        ((0, 1, 2, 3), 8, (4, 8)),
        (range(8), 3, (3, 4)),
    ],
    ids=str,
)
def test_outputs_go_where_groups_stay_equal(dead: Any, left: int, shape: tuple[int, int]) -> None:
    """Inputs that only dead groups read go with them."""
    model = network()
    kill(model, *dead)
    pruned = assert_exact_surgery(model, without(11))
    assert kernel_shape(pruned, "grouped")[-2:] == shape
    assert kernel_shape(pruned, "first")[-1] == left
    assert kernel_shape(pruned, "reader")[-2] == shape[1]


def test_groups_that_others_read_are_passed_by(tmp_path: Path) -> None:
    """The inputs of a dead group stay for another reader, and are picked out."""
    model = network(shortcut=True)
    kill(model, 4, 5, 6, 7)
    pruned = assert_exact_surgery(model, without(0))
    assert kernel_shape(pruned, "first")[-1] == 12
    assert kernel_shape(pruned, "grouped")[-2:] == (4, 8)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_function(pruned, loaded, random_batch(model), tolerance=0.0)


def test_channels_of_groups_are_not_sorted_by_size() -> None:
    """The layer before would like to sort its kernels; the groups forbid it."""
    inputs = keras.Input((16, 16, 12))
    x = L.Conv2D(12, 5, padding="same", name="first")(inputs)
    model = keras.Model(inputs, L.Conv2D(6, 3, groups=3, name="grouped")(x))
    plan = Plan({"first": [1, 5, 3] * 4})
    pruned = assert_exact_surgery(randomize(model), plan, realize="split")
    assert kernel_shape(pruned, "grouped")[-2:] == (4, 6)


def test_supports_are_cropped_as_one() -> None:
    model = chain(
        L.Conv2D(4, 3, name="first"), L.Conv2D(4, 5, groups=2, padding="same", name="grouped")
    )
    kernel = model.get_layer("grouped").kernel
    inside = np.zeros((5, 5, 1, 1))
    inside[1:4, 1:4] = 1.0
    kernel.assign(kernel * inside)
    pruned = assert_exact_surgery(model, Plan({"first": [3, 3, 2, 3]}), realize="split")
    assert kernel_shape(pruned, "grouped") == (3, 3, 2, 4)
    assert notes(pruned) == ()


@pytest.mark.parametrize("rank", [1, 3])
def test_one_and_three_axes(rank: int) -> None:
    conv = getattr(L, f"Conv{rank}D")
    stack = [conv(6, 3, activation="sigmoid", name="first"), conv(4, 3, groups=2, name="grouped")]
    model = chain(*stack, L.Dense(2, "tanh"), shape=(*(7, 6, 6)[:rank], 2))
    pruned = assert_exact_surgery(model, Plan({"first": [3, 0, 3, 3, 0, 3]}))
    assert kernel_shape(pruned, "grouped")[-2:] == (2, 4)


@pytest.mark.parametrize("constants", ["interior", "drop"])
def test_other_modes_keep_no_carriers(constants: str) -> None:
    model = network(padding="same")
    with pytest.raises(AssertionError, match="relative difference"):
        assert_exact_surgery(model, without(0, 4, 8), constants=constants)
