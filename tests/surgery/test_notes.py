"""What surgery says of kernels that it keeps although the plan removes them."""

from __future__ import annotations

import keras
from helpers_models import assert_exact_surgery, chain, randomize, use_float64
from keras import layers as L

from keras_structsparse.profiling.profile import compare
from keras_structsparse.surgery.notes import MOST
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.provenance import notes

SAID = "constant kernels kept for layers that keep all channels"


def said(pruned: keras.Model) -> list[str]:
    return [note for note in notes(pruned) if note.startswith(SAID)]


def test_the_layers_that_compute_constants_for_another_one_are_named() -> None:
    use_float64()
    inputs = keras.Input((7, 6, 2))
    x = L.Conv2D(5, 3, activation="relu", name="first")(inputs)
    x = L.Conv2D(4, 3, activation="sigmoid", name="second")(x)
    y = L.LayerNormalization(name="mixing")(L.ReLU()(x))
    model = randomize(keras.Model(inputs, L.Conv2D(3, 1, name="last")(y)))
    plan = Plan({"first": [3, 0, 3, 0, 3], "second": [0, 0, 3, 3]})
    pruned = assert_exact_surgery(model, plan)
    assert said(pruned) == [f"{SAID}: second 2 (for mixing)"]
    assert said(pruned)[0] in compare(model, pruned).notes
    assert f"note: {SAID}: second 2" in str(compare(model, pruned))


def test_nothing_is_said_of_kernels_that_go_or_carry() -> None:
    """The control: without a layer that keeps all channels."""
    use_float64()
    stack = [L.Conv2D(5, 3, activation="sigmoid", name="first"), L.Conv2D(3, 3, padding="same")]
    pruned = assert_exact_surgery(chain(*stack, L.Dense(2)), Plan({"first": [3, 0, 0, 3, 3]}))
    assert pruned.get_layer("first").filters == 4  # one constant stands for both
    assert notes(pruned) == ()


def test_a_sum_names_every_layer_that_writes_it() -> None:
    use_float64()
    inputs = keras.Input((6, 6, 2))
    sides = [L.Conv2D(4, 1, name=name)(inputs) for name in ("left", "right")]
    x = L.UnitNormalization(name="mixing")(L.Add()(sides))
    model = randomize(keras.Model(inputs, L.Dense(2)(x)))
    pruned = assert_exact_surgery(model, Plan({"left": [1, 0, 0, 1], "right": [0, 0, 1, 1]}))
    (sentence,) = said(pruned)
    assert "left " in sentence
    assert "right " in sentence


def test_a_long_list_is_cut() -> None:
    use_float64()
    x = inputs = keras.Input((4, 4, 2))
    for index in range(MOST + 2):
        x = L.LayerNormalization()(L.Conv2D(2, 1, name=f"c{index}")(x))
    model = randomize(keras.Model(inputs, L.Dense(2)(x)))
    plan = Plan({f"c{index}": [1, 0] for index in range(MOST + 2)})
    (sentence,) = said(assert_exact_surgery(model, plan))
    assert sentence.endswith(", and 2 more layers")
