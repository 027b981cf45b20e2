"""Removed maps behind a dense layer whose constants differ between positions."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    TOLERANCE,
    assert_exact_surgery,
    assert_same_function,
    difference,
    kernel_shape,
    random_batch,
    randomize,
    use_float64,
)
from helpers_seeds import seeds
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.estimate import remaining
from keras_structsparse.surgery import constant_maps

Rng = np.random.Generator


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def decoder(
    shape: tuple[int, ...], *stack: Any, activation: Any = "tanh", bias: bool = True
) -> keras.Model:
    """A dense layer, maps, and layers behind them; random weights."""
    inputs = keras.Input((5,))
    x = L.Dense(math.prod(shape), activation, use_bias=bias, name="planned")(inputs)
    x = L.Reshape(shape)(x)
    for layer in stack:
        x = layer(x)
    return randomize(keras.Model(inputs, x))


def whole_maps(model: keras.Model, width: int, kept: Any, **others: Any) -> kss.Plan:
    """A plan that keeps all units of some maps."""
    units = model.get_layer("planned").units
    return kss.Plan({"planned": [int(c % width in kept) for c in range(units)], **others})


def between(rng: Rng, rank: int) -> list[keras.layers.Layer]:
    """Layers between the maps and their reader that treat every channel by itself."""
    known = [
        L.BatchNormalization(),
        L.Activation(str(rng.choice(["relu", "sigmoid", "softplus"]))),
        L.LeakyReLU(0.2),
        L.Dropout(0.3),
        getattr(L, f"UpSampling{rank}D")(2),
        getattr(L, f"Cropping{rank}D")(1),
    ]
    which = rng.permutation(len(known))[: rng.integers(4)]
    return [known[i] for i in which]


def readers(rng: Rng, rank: int) -> list[keras.layers.Layer]:
    """A layer that mixes channels linearly, with random options, or two layers that flatten."""
    activation = [None, "relu", "tanh", "softmax", L.ReLU(), L.LeakyReLU(0.1)][rng.integers(6)]
    options: dict[str, Any] = {"use_bias": bool(rng.integers(2)), "activation": activation}
    kind = int(rng.integers(4))
    if kind == 0:
        return [L.Dense(3, name="reader", **options)]
    if kind == 1:
        return [L.Flatten(), L.Dense(3, name="reader", **options)]
    options["padding"] = str(rng.choice(["same", "valid"]))
    options["strides"] = int(rng.integers(1, 3))
    name = f"Conv{rank}D" + "Transpose" * (kind - 2)
    return [getattr(L, name)(4, int(rng.integers(1, 4)), name="reader", **options)]


@pytest.mark.parametrize("seed", seeds(16))
def test_whole_maps_go_with_their_columns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank, width = int(rng.integers(1, 4)), int(rng.integers(2, 7))
    # Large enough for cropping and a window of three.
    sides = tuple(int(n) for n in rng.integers(5, 7, rank))
    activation = str(rng.choice(["tanh", "relu", "linear"]))
    stack = between(rng, rank) + readers(rng, rank)
    bias = bool(rng.random() < 0.8)
    model = decoder((*sides, width), *stack, activation=activation, bias=bias)
    kept = rng.permutation(width)[: rng.integers(1, width)]
    plan = whole_maps(model, width, set(kept.tolist()))
    pruned = assert_exact_surgery(model, plan)
    # Without a bias the removed maps are zero; a padded reader may need a carrier of their shift.
    normalized = any(isinstance(layer, L.BatchNormalization | L.Activation) for layer in stack)
    most = len(kept) + (not bias and normalized)
    left = pruned.get_layer("planned").units / math.prod(sides)
    assert len(kept) <= left <= most
    if left == len(kept):
        counted = sum(remaining(model, plan.sizes, "crop").values())
        cropped = kss.prune(model, plan, realize="crop")
        assert counted == kss.profile(cropped).multiply_adds


def test_several_readers_add_arrays_of_their_own() -> None:
    inputs = keras.Input((5,))
    x = L.Reshape((4, 3, 6))(L.Dense(72, "relu", name="planned")(inputs))
    x = L.BatchNormalization()(x)
    left = L.Conv2D(8, 3, padding="same", activation="tanh", name="left")(x)
    right = L.Conv2DTranspose(3, 3, strides=2, name="right")(x)
    model = randomize(keras.Model(inputs, [L.Conv2D(2, 1)(left), right, L.Conv2D(2, 2)(x)]))
    plan = whole_maps(model, 6, {1, 4}, left=(3, 0, 2, 1, 3, 1, 1, 2))
    for realize in ("none", "crop", "split", "auto"):
        pruned = assert_exact_surgery(model, plan, realize=realize)
        assert pruned.get_layer("planned").units == 24


def test_the_array_is_what_makes_it_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder((4, 4, 6), L.Conv2D(3, 3, padding="same", activation="relu"), L.Flatten())
    plan = whole_maps(model, 6, {0, 2, 5})
    batch = random_batch(model)
    assert_same_function(kss.masked(model, plan), kss.prune(model, plan), batch)
    removed = constant_maps.removed

    def wrong(*args: Any) -> Any:
        found = removed(*args)
        return None if found is None else found.mean(axis=(1, 2), keepdims=True) + 0 * found

    monkeypatch.setattr(constant_maps, "removed", wrong)
    assert difference(kss.masked(model, plan), kss.prune(model, plan), batch) > 1e6 * TOLERANCE


def test_a_bias_keeps_its_origin_and_trains_on() -> None:
    model = decoder((3, 3, 4), L.Conv2D(5, 3, activation="relu", name="reader"), L.Flatten())
    pruned = kss.prune(model, whole_maps(model, 4, {0, 1}))
    old, new = (m.get_layer("reader") for m in (model, pruned))
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(new.bias), keras.ops.convert_to_numpy(old.bias)
    )
    assert kss.Ancestry.between(model, pruned).layers["reader"] == (
        "reader",
        tuple(range(5)),
    )


LOAD = """
import sys
import numpy as np, keras
model = keras.saving.load_model(sys.argv[1])
assert "keras_structsparse" not in sys.modules
outputs = model(np.load(sys.argv[2]), training=False)
np.save(sys.argv[3], keras.ops.convert_to_numpy(outputs))
"""


@pytest.mark.parametrize("dtype", ["float64", "float32", "mixed_float16"])
def test_plain_keras_loads_it(tmp_path: Path, dtype: str) -> None:
    keras.config.set_dtype_policy(dtype)
    stack = (L.LeakyReLU(), L.Conv2D(3, 3, activation=L.ReLU(), name="reader"), L.Flatten())
    model = decoder((4, 5, 6), *stack)
    pruned = kss.prune(model, whole_maps(model, 6, {1, 2}))
    assert pruned.get_layer("planned").units == 40
    paths = [tmp_path / name for name in ("model.keras", "in.npy", "out.npy")]
    pruned.save(paths[0])
    batch = random_batch(model)
    np.save(paths[1], batch)
    subprocess.run([sys.executable, "-c", LOAD, *map(str, paths)], check=True, timeout=120)
    expected = keras.ops.convert_to_numpy(pruned(batch, training=False))
    np.testing.assert_allclose(np.load(paths[2]), expected, rtol=1e-6, atol=1e-6)


def test_a_pruned_network_is_pruned_again() -> None:
    stack = [L.Conv2D(6, 3, activation="tanh", name="reader"), L.BatchNormalization()]
    model = decoder((5, 5, 8), *stack, L.Conv2D(3, 2, name="last"))
    once = kss.prune(model, whole_maps(model, 8, {0, 2, 3, 5, 6}))
    assert PrunableLayers.of(once).batch_norms.keys() == {"reader"}
    plan = whole_maps(once, 5, {0, 3}, reader=(3, 0, 3, 0, 3, 3))
    twice = assert_exact_surgery(once, plan)
    assert kernel_shape(twice, "reader") == (3, 3, 2, 4)
    assert twice.get_layer("planned").units == 50


def test_kernels_in_front_of_an_added_array_are_removed() -> None:
    stack = [L.Conv2D(6, 3, activation="tanh", name="reader"), L.Dropout(0.1)]
    model = decoder((5, 5, 8), *stack, L.Conv2D(3, 2, padding="same", name="last"))
    once = kss.prune(model, whole_maps(model, 8, {0, 2, 3, 5, 6}))
    # They leave constant maps: their part of the array.
    twice = assert_exact_surgery(once, kss.Plan({"reader": (3, 0, 3, 0, 3, 3)}))
    assert kernel_shape(twice, "reader") == (3, 3, 5, 4)


@pytest.mark.parametrize("shape", [(1, 7, 6), (7, 6)])
@pytest.mark.parametrize("swapped", [False, True])
def test_sums_with_an_array_of_positions_are_followed(
    shape: tuple[int, ...], swapped: bool
) -> None:
    inputs = keras.Input((9, 3))
    x = L.Conv1D(6, 3, activation="relu", name="planned")(inputs)
    places = np.random.default_rng(0).normal(size=shape)
    places[..., 4] = 0.5  # one stays the same at all positions
    x = keras.ops.add(places, x) if swapped else x + places
    model = randomize(keras.Model(inputs, L.Conv1D(2, 2)(L.Activation("tanh")(x))))
    pruned = assert_exact_surgery(model, kss.Plan({"planned": (3, 0, 3, 0, 0, 1)}))
    assert kernel_shape(pruned, "planned") == (3, 3, 3)


@pytest.mark.parametrize("shape", [(1, 6), (7, 1), ()])
def test_sums_with_other_arrays_are_copied(shape: tuple[int, ...]) -> None:
    inputs = keras.Input((9, 3))
    x = L.Conv1D(6, 3, name="planned")(inputs) + np.ones(shape)
    model = randomize(keras.Model(inputs, L.Conv1D(2, 2)(x)))
    pruned = assert_exact_surgery(model, kss.Plan({"planned": (3, 0, 3, 0, 0, 1)}))
    assert kernel_shape(pruned, "planned") == (3, 3, 6)


NOTE = "it needs 3 constant channels: their constants differ between positions"


@pytest.mark.parametrize(
    "reader",
    [
        lambda: L.DepthwiseConv2D(2, name="reader"),
        lambda: L.Conv2D(4, 2, groups=2, name="reader"),
        lambda: L.Conv2D(4, 2, dilation_rate=2, name="reader"),
        lambda: L.MaxPooling2D(2, name="reader"),
        lambda: L.UpSampling2D(2, interpolation="bilinear", name="reader"),
        lambda: L.SeparableConv2D(4, 2, name="reader"),
        lambda: L.PReLU(name="reader"),
    ],
)
def test_layers_that_do_not_understand_them_keep_them(reader: Any) -> None:
    model = decoder((4, 4, 6), reader(), L.Conv2D(2, 1))
    pruned = assert_exact_surgery(model, whole_maps(model, 6, {0, 1, 4}))
    assert pruned.get_layer("planned").units == 96
    (note,) = [n for n in kss.compare(model, pruned).notes if NOTE in n]
    assert "'reader'" in note


def test_a_sum_of_maps_keeps_them() -> None:
    inputs = keras.Input((5,))
    maps = L.Reshape((4, 4, 6))(L.Dense(96, name="planned")(inputs))
    x = L.Add(name="sum")([maps, L.Conv2D(6, 3, padding="same", name="beside")(maps)])
    model = randomize(keras.Model(inputs, L.Conv2D(2, 1)(x)))
    plan = whole_maps(model, 6, {0, 1, 4}, beside=(3, 3, 0, 0, 3, 0))
    assert assert_exact_surgery(model, plan).get_layer("planned").units == 96


def test_a_shared_reader_keeps_them() -> None:
    inputs, reader = keras.Input((5,)), L.Conv2D(3, 3, name="reader")
    maps = L.Reshape((4, 4, 6))(L.Dense(96, name="planned")(inputs))
    other = L.Reshape((4, 4, 6))(L.Dense(96, name="other")(inputs))
    model = randomize(keras.Model(inputs, reader(maps) + reader(other)))
    assert_exact_surgery(model, whole_maps(model, 6, {0, 1, 4}))


def test_a_large_array_is_not_added(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder((4, 4, 6), L.Conv2D(3, 3, name="reader"))
    monkeypatch.setattr(constant_maps, "LARGEST", 2 * 2 * 3 - 1)
    plan = whole_maps(model, 6, {0, 1, 4})
    assert assert_exact_surgery(model, plan).get_layer("planned").units == 96
    monkeypatch.setattr(constant_maps, "LARGEST", 2 * 2 * 3)
    assert assert_exact_surgery(model, plan).get_layer("planned").units == 48


def test_other_constants_than_exact_ones_keep_them() -> None:
    model = decoder((4, 4, 6), L.Conv2D(3, 3, name="reader"))
    for constants in ("interior", "drop"):
        pruned = kss.prune(model, whole_maps(model, 6, {0, 1, 4}), constants)
        assert pruned.get_layer("planned").units == 96


def test_a_network_without_live_maps_is_built() -> None:
    inputs = keras.Input((5,))
    maps = L.Reshape((4, 4, 6))(L.Dense(96, name="planned")(inputs))
    x = L.Flatten()(L.Conv2D(3, 3, name="reader")(maps))
    model = randomize(keras.Model(inputs, [x, L.Dense(2)(inputs)]))
    assert_exact_surgery(model, whole_maps(model, 6, ()))
