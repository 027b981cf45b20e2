"""What a call hands to a nested model: tensors by name and order, dtypes, ranks, training."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    assert_exact_surgery,
    assert_same_function,
    difference,
    outputs,
    random_batch,
    randomize,
    use_float64,
)
from keras import layers as L
from keras import ops

from keras_structsparse.errors import PlanError
from keras_structsparse.graph.batch_norm_folding import folded
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.functional_graph import read
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan, masked
from keras_structsparse.surgery.provenance import notes

SHAPE = (6, 5, 4)


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def difference_of(names: tuple[str, ...], form: type) -> keras.Model:
    """A model whose inputs do different things, as a list, a tuple or a dictionary."""
    inputs = [keras.Input(SHAPE, name=name) for name in names]
    values = [L.Conv2D(4, k + 1, padding="same")(x) for k, x in enumerate(inputs)]
    total = values[0] - values[1] * values[2]
    given = dict(zip(names, inputs, strict=True)) if form is dict else form(inputs)
    return keras.Model(given, total, name="inner")


@pytest.mark.parametrize("form", [list, tuple, dict])
def test_inputs_by_name_in_every_order(form: type) -> None:
    for names in itertools.permutations(("zeta", "alpha", "mid")):
        inner, inputs = difference_of(names, form), keras.Input(SHAPE)
        given = {n: L.Conv2D(4, 1, name=f"c_{n}")(inputs) for n in sorted(names)}
        model = randomize(keras.Model(inputs, inner(given)))
        plan = Plan(
            {f"c_{n}": [0, 1, 1, 1] for n in names} | {"inner/" + inner.layers[-5].name: []}
        )
        plan = Plan({n: s for n, s in plan.sizes.items() if s})
        assert_exact_surgery(model, plan)


def test_the_control_a_wrong_order_is_found() -> None:
    inner = difference_of(("zeta", "alpha", "mid"), list)
    inputs = [keras.Input(SHAPE) for _ in range(3)]
    right = keras.Model(inputs, inner(dict(zip(("zeta", "alpha", "mid"), inputs, strict=True))))
    wrong = keras.Model(inputs, inner(dict(zip(("alpha", "zeta", "mid"), inputs, strict=True))))
    randomize(right)
    assert difference(right, wrong, random_batch(right)) > 1e-3


@pytest.mark.parametrize("surplus", ["z", "A"])
def test_more_keys_than_the_model_takes(surplus: str) -> None:
    """Keras takes the first keys in alphabetical order; if that is another tensor, it stays one."""
    a = keras.Input(SHAPE, name="a")
    inner = keras.Model({"a": a}, L.Conv2D(4, 3, name="c")(a), name="inner")
    inputs = keras.Input(SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns at each call
        y = inner({"a": L.Conv2D(4, 1, name="first")(inputs), surplus: inputs})
        model = randomize(keras.Model(inputs, y))
        plan = Plan({"first": [0, 1, 1, 1]})
        assert ("inner/c" in [call.name for call in read(model).calls]) == (surplus == "z")
        assert_same_function(masked(model, plan), prune(model, plan), random_batch(model))


@pytest.mark.parametrize(("outer", "inner"), [("uint8", "float64"), ("float64", "int32")])
def test_dtypes_are_cast(outer: str, inner: str) -> None:
    a = keras.Input(SHAPE, dtype=inner)
    block = keras.Model(a, L.Conv2D(4, 3, name="c")(ops.cast(a * 2, "float64")), name="block")
    inputs = keras.Input(SHAPE, dtype=outer)
    model = randomize(keras.Model(inputs, L.Conv2D(2, 1)(block(inputs))))
    plan = Plan({"block/c": [0, 3, 3, 2]})
    batch = np.random.default_rng(0).integers(0, 255, (5, *SHAPE)).astype(outer)
    batch = batch + 0.25 if outer == "float64" else batch
    reference, pruned = masked(model, plan), prune(model, plan)
    assert_same_function(reference, pruned, batch)
    assert difference(model, pruned, batch) > 1e-3


def test_ranks_are_fitted() -> None:
    """Keras infers the rank that it is given, and adds or removes the axis when it computes."""
    image, map_ = keras.Input((6, 5, 1)), keras.Input((6, 5))
    wide = keras.Model(image, L.ReLU()(image) * 2.0, name="wide")
    narrow = keras.Model(map_, L.ReLU()(map_) + 1.0, name="narrow")
    inputs = keras.Input((6, 5))
    x = L.Reshape((6, 5, 1))(L.Conv1D(5, 3, padding="same", name="c")(inputs))
    y = L.Concatenate()([L.Flatten()(wide(inputs)), L.Flatten()(narrow(x))])
    model = randomize(keras.Model(inputs, L.Dense(2)(y)))
    shapes = [read(model).shapes[i] for call in read(model).calls for i in call.outputs]
    assert (None, 6, 5, 1) in shapes[:2]
    assert (None, 6, 5) in shapes[4:]
    assert_exact_surgery(model, Plan({"c": [0, 3, 2, 3, 1]}))


def base(norm: bool = False) -> keras.Model:
    inputs = keras.Input(SHAPE)
    x = L.Conv2D(4, 3, padding="same", name="c")(inputs)
    return keras.Model(inputs, L.BatchNormalization(name="n")(x) if norm else x, name="base")


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("modes", [*itertools.product([None, False, True], repeat=2)])
def test_calls_with_and_without_training(modes: tuple[Any, ...], norm: bool) -> None:
    inner, inputs = base(norm), keras.Input(SHAPE)
    first, second = (
        inner(x) if mode is None else inner(x, training=mode)
        for x, mode in zip((inputs, inputs * 2.0), modes, strict=True)
    )
    model = randomize(keras.Model(inputs, L.Conv2D(2, 1)(first - second)))
    pruned = assert_exact_surgery(model, Plan({"base/c": [0, 3, 3, 2]}))
    assert bool(notes(pruned)) == (norm and True in modes)


def test_training_reaches_the_models_inside_nested_ones() -> None:
    outer_inputs, inputs = keras.Input(SHAPE), keras.Input(SHAPE)
    outer = keras.Model(outer_inputs, base(norm=True)(outer_inputs, training=False), name="outer")
    model = randomize(keras.Model(inputs, outer(inputs, training=True)))
    calls = {call.name: call for call in read(model).calls}
    assert calls["outer/base/n"].is_training
    assert not calls["outer/base/c"].is_training
    batch = random_batch(model)
    (expected,) = outputs(copy_model(model), batch)
    (found,) = outputs(prune(model, Plan({})), batch)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


class Silent(L.Layer):
    """Calls a layer that knows of training, without knowing itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.norm = L.BatchNormalization()

    def build(self, shape: tuple[int, ...]) -> None:
        self.norm.build(shape)

    def call(self, x: Any) -> Any:
        return self.norm(x)


def test_what_cannot_be_told_of_training_stays_one_call() -> None:
    inputs, image = keras.Input(SHAPE), keras.Input(SHAPE)
    x = L.Conv2D(4, 3, name="c")(inputs)
    inner = keras.Model(inputs, Silent(name="silent")(x), name="inner")
    model = randomize(keras.Model(image, inner(image) + inner(image, training=True)))
    assert "inner" in [call.name for call in read(model).calls]
    with pytest.raises(PlanError, match="inner/c"):
        prune(model, Plan({"inner/c": [0, 3, 3, 3]}))
    pruned = prune(model, Plan({}))
    assert any("'inner' (Functional): kept as it is" in note for note in notes(pruned))
    assert_same_function(model, pruned, random_batch(model))


@pytest.mark.parametrize(
    "layer",
    [L.Conv2D(4, 2), L.Conv2DTranspose(4, 2), L.SeparableConv2D(4, 2), L.BatchNormalization()],
    ids=lambda layer: type(layer).__name__,
)
def test_channels_of_which_only_the_nested_model_knows_the_number(layer: keras.Layer) -> None:
    """Opened, its layers would be called on an unknown number of channels, which Keras refuses."""
    inputs, x = keras.Input((4, 4, 4)), keras.Input((None, 4, 4))
    inner = keras.Model(inputs, L.GlobalAveragePooling2D()(layer(inputs)), name="inner")
    reshaped = L.Reshape((4, 4, -1))(L.Conv2D(4, 1, name="first")(x))
    model = randomize(keras.Model(x, inner(reshaped)))
    assert "inner" in {call.name for call in read(model).layers()}
    plan = Plan({"first": (1, 0, 1, 0)})
    batch = np.random.default_rng(0).normal(size=(3, 4, 4, 4))
    assert_same_function(masked(model, plan), prune(model, plan), batch)
    assert difference(model, masked(model, plan), batch) > 1e-3  # the control


def test_nested_models_that_share_layers() -> None:
    inputs, image = keras.Input(SHAPE), keras.Input(SHAPE)
    first = L.Conv2D(4, 3, padding="same", name="c")(inputs)
    short = keras.Model(inputs, first, name="short")
    long = keras.Model(inputs, L.Conv2D(4, 3, padding="same", name="d")(first), name="long")
    model = randomize(keras.Model(image, short(image) + long(image)))
    twin = copy_model(model)
    assert twin.count_params() == model.count_params()
    assert_same_function(model, twin, random_batch(model), tolerance=0.0)
    assert_exact_surgery(model, Plan({"short/c": [0, 3, 3, 2], "long/d": [0, 3, 3, 3]}))


def test_a_layer_that_a_wrapper_calls_too_is_not_pruned() -> None:
    inputs, dense = keras.Input((5, 3)), L.Dense(3, name="dense")
    x = L.TimeDistributed(dense)(dense(inputs))
    model = randomize(keras.Model(inputs, L.Dense(2, name="last")(x)))
    with pytest.raises(PlanError, match=r"'dense'.* inside of another layer"):
        prune(model, Plan({"dense": [0, 1, 1]}))
    dense.kernel.assign(dense.kernel * np.array([0.0, 1.0, 1.0]))
    assert_same_function(model, prune(model, Plan({})), random_batch(model))


def test_inputs_keep_their_names() -> None:
    """The layer of a nested model gets another name where an input has it already."""
    inputs, inner = keras.Input(SHAPE, name="blk_conv"), keras.Input(SHAPE)
    stack = [L.Conv2D(4, 3, name="conv"), L.BatchNormalization(name="norm"), L.ReLU(name="act")]
    x = inner
    for layer in stack:
        x = layer(x)
    model = randomize(keras.Model(inputs, keras.Model(inner, x, name="blk")(inputs)))
    for twin, others in ((prune(model, Plan({})), ["blk_norm"]), (folded(model), [])):
        expected = ["blk_conv", "blk_conv_", *others, "blk_act"]
        assert [layer.name for layer in twin.layers] == expected
        assert_same_function(model, twin, random_batch(model))
