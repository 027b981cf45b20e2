"""Layers with kernels that penalties and plans do not serve are named once, by reason."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import pytest
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.errors import ModelError
from keras_structsparse.graph.left_out import described


class Own(L.Conv2D):
    """May do anything with its kernel."""


@keras.saving.register_keras_serializable("tests")
def squared(x: Any) -> Any:
    """An activation of a user."""
    return keras.ops.relu(x) ** 2


def mixed() -> keras.Model:
    x = i = keras.Input((12, 12, 4))
    for k in range(5):
        x = L.Conv2D(4, 3, groups=2, padding="same", name=f"g{k}")(x)
    x = L.DepthwiseConv2D(1, name="depthwise")(L.Conv2D(4, 3, name="plain")(x))
    x = Own(4, 1, name="own")(L.Conv2DTranspose(4, 1, name="t")(x))
    x = L.BatchNormalization()(L.TimeDistributed(L.Dense(4), name="wrapped")(x))
    return keras.Model(i, L.Dense(2)(L.GlobalAveragePooling2D()(x)))


def test_attach_warns_once_for_all() -> None:
    with pytest.warns(UserWarning, match="attach leaves out layers") as caught:
        kss.attach(mixed(), kss.KernelCount(1e-3))
    (warning,) = caught
    text = str(warning.message)
    assert text.endswith(
        "5 grouped (g0, g1, g2, ...); 1 transposed (t); 1 of a subclass (own); 1 wrapped (wrapped)"
    )


def test_attach_says_nothing_where_nothing_is_left_out() -> None:
    model = keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(2, 3), L.Flatten(), L.Dense(2)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kss.attach(model, kss.KernelCount(1e-3))
        kss.attach(mixed(), kss.KernelCount(1e-3), ["plain"])


def test_frozen_layers_are_left_out() -> None:
    stack = [L.Conv2D(2, 3, name="a"), L.Conv2D(2, 3, name="b")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *stack])
    stack[0].trainable = False
    with pytest.warns(UserWarning, match=r"1 frozen \(a\)"):
        kss.attach(model, kss.KernelCount(1e-3))
    assert list(kss.regularizers_of(model)) == ["b"]
    stack[1].trainable = False
    with pytest.raises(ModelError, match="that is trainable"):
        kss.attach(model, kss.KernelCount(1e-3))


def test_a_layer_that_a_wrapper_calls_too_is_no_subclass() -> None:
    inside = keras.Sequential([keras.Input((6, 6, 2)), L.Conv2D(3, 3, name="c"), L.Flatten()])
    steps, alone = keras.Input((4, 6, 6, 2)), keras.Input((6, 6, 2))
    model = keras.Model([steps, alone], [L.TimeDistributed(inside)(steps), inside(alone)])
    found = kss.compare(model, model).left_out
    assert found["called inside of other layers as well"] == (f"{inside.name}/c",)
    assert "of a subclass" not in found
    assert "of a subclass" in kss.compare(mixed(), mixed()).left_out  # the control


def test_a_comparison_has_one_line_for_what_no_plan_serves() -> None:
    model = mixed()
    found = kss.compare(model, kss.prune(model, kss.Plan({"plain": (3, 0, 3, 3)})))
    assert found.left_out["grouped"] == ("g0", "g1", "g2", "g3", "g4")
    assert "depthwise" not in str(found.left_out)
    assert "transposed" not in found.left_out
    (line,) = [line for line in str(found).splitlines() if line.startswith("not planned")]
    assert line == f"not planned: {described(found.left_out)}"


def test_many_notes_with_one_reason_are_one_line() -> None:
    x = i = keras.Input((6, 6, 2))
    for k in range(5):
        x = L.LayerNormalization(name=f"n{k}")(L.Conv2D(2, 1, name=f"c{k}")(x))
    x = L.Softmax(axis=1, name="s")(x)
    model = keras.Model(i, L.Dense(2)(L.GlobalAveragePooling2D()(x)))
    found = kss.compare(model, kss.prune(model, kss.Plan({})))
    assert len(found.notes) == 6
    lines = [line for line in str(found).splitlines() if line.startswith("note: ")]
    assert lines == [
        "note: 5 layers (LayerNormalization), 'n0' to 'n4': kept as it is: it mixes channels: "
        "every output depends on all of them",
        "note: layer 's' (Softmax): kept as it is: it acts along the axes [1], which are not "
        "followed",
    ]


def test_only_an_activation_that_mixes_channels_is_said_to() -> None:
    def note(activation: object) -> str:
        i = keras.Input((6, 6, 2))
        x = L.Conv2D(4, 3, activation=activation, name="c")(i)
        model = keras.Model(i, L.Dense(2)(L.GlobalAveragePooling2D()(x)))
        pruned = kss.prune(model, kss.Plan({"c": (3, 0, 3, 3)}))
        return " ".join(kss.compare(model, pruned).notes)

    assert "its activation mixes channels" in note("softmax")
    assert "not known to treat every channel by itself" in note(squared)
