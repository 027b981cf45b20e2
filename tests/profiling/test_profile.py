"""Multiply-adds and parameters, worked out by hand; before and after real surgery."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl
from keras import ops

import keras_structsparse as kss
from keras_structsparse import surgery
from keras_structsparse.errors import ModelError
from keras_structsparse.profiling import multiply_adds
from keras_structsparse.profiling.profile import Profile, compare, profile
from keras_structsparse.surgery import provenance
from keras_structsparse.surgery.plans import Plan


def single(shape: tuple[int | None, ...], layer: keras.Layer) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs))


def network(width: int = 8, size: tuple[int | None, int | None] = (8, 8)) -> keras.Model:
    """Convolution, normalisation, residual convolution, pooling, dense layer."""
    inputs = keras.Input((*size, 3))
    x = kl.Conv2D(width, 3, padding="same", name="first")(inputs)
    x = kl.BatchNormalization(name="norm")(x)
    y = kl.Conv2D(width, 3, padding="same", name="second")(x)
    x = kl.Add(name="sum")([x, y])
    return keras.Model(inputs, kl.Dense(10, name="head")(kl.GlobalAveragePooling2D()(x)))


CASES: dict[str, tuple[tuple[int, ...], Callable[[], keras.Layer], int, int]] = {
    "same": ((8, 8, 3), lambda: kl.Conv2D(8, 3, padding="same"), 8 * 8 * 3 * 9 * 8, 27 * 8 + 8),
    "valid": ((8, 8, 3), lambda: kl.Conv2D(8, 3), 6 * 6 * 3 * 9 * 8, 27 * 8 + 8),
    "strided": (
        (9, 7, 3),
        lambda: kl.Conv2D(8, 3, strides=2, padding="same", use_bias=False),
        5 * 4 * 3 * 9 * 8,
        27 * 8,
    ),
    "dilated": ((9, 9, 3), lambda: kl.Conv2D(2, 3, dilation_rate=2), 5 * 5 * 3 * 9 * 2, 56),
    "oblong": ((8, 8, 3), lambda: kl.Conv2D(4, (1, 5)), 8 * 4 * 3 * 5 * 4, 64),
    # each kernel sees 6 / 3 = 2 inputs
    "grouped": ((8, 8, 6), lambda: kl.Conv2D(9, 3, groups=3), 6 * 6 * 2 * 9 * 9, 18 * 9 + 9),
    "conv 1d": ((10, 3), lambda: kl.Conv1D(4, 5, padding="causal"), 10 * 3 * 5 * 4, 64),
    "conv 3d": ((4, 5, 6, 2), lambda: kl.Conv3D(3, 2), 3 * 4 * 5 * 2 * 8 * 3, 51),
    "depthwise": (
        (8, 8, 3),
        lambda: kl.DepthwiseConv2D(3, depth_multiplier=2),
        6 * 6 * 9 * 3 * 2,
        9 * 6 + 6,
    ),
    "depthwise 1d": ((8, 3), lambda: kl.DepthwiseConv1D(3, strides=2), 3 * 3 * 3, 12),
    "separable": (
        (8, 8, 3),
        lambda: kl.SeparableConv2D(5, 3, depth_multiplier=2),
        6 * 6 * (9 * 3 * 2 + 3 * 2 * 5),
        9 * 6 + 6 * 5 + 5,
    ),
    "separable 1d": ((8, 3), lambda: kl.SeparableConv1D(5, 3), 6 * (3 * 3 + 3 * 5), 29),
    # every one of the 4 x 4 input positions meets the whole kernel
    "transposed": (
        (4, 4, 3),
        lambda: kl.Conv2DTranspose(5, 3, strides=2, padding="same"),
        4 * 4 * 3 * 9 * 5,
        27 * 5 + 5,
    ),
    "transposed 1d": ((4, 3), lambda: kl.Conv1DTranspose(2, 4), 4 * 3 * 4 * 2, 26),
    "dense": ((7,), lambda: kl.Dense(4), 7 * 4, 7 * 4 + 4),
    "dense on a map": ((5, 6, 7), lambda: kl.Dense(4), 5 * 6 * 7 * 4, 7 * 4 + 4),
    "normalisation": ((8, 8, 3), lambda: kl.BatchNormalization(), 0, 12),
    "embedding": ((5,), lambda: kl.Embedding(10, 4), 0, 40),
}


@pytest.mark.parametrize("case", CASES)
def test_a_layer_costs_what_its_definition_says(case: str) -> None:
    shape, layer, multiply_adds, params = CASES[case]
    model = single(shape, layer())
    (row,) = profile(model).layers
    assert (row.multiply_adds, row.params, row.counted) == (multiply_adds, params, True)
    assert row.params == model.count_params()
    assert row.output_shape == tuple(model.output_shape[1:])
    assert row.kernels == (model.output_shape[-1] if multiply_adds else 0)


def test_channels_first_counts_the_same() -> None:
    keras.config.set_image_data_format("channels_first")
    (row,) = profile(single((3, 8, 9), kl.Conv2D(4, 3))).layers
    assert row.multiply_adds == 6 * 7 * 3 * 9 * 4
    assert (row.kernels, row.output_shape) == (4, (4, 6, 7))


def test_a_subclass_of_a_convolution_counts_as_one() -> None:
    class Own(kl.Conv2D):  # type: ignore[misc,unused-ignore]
        pass

    (row,) = profile(single((8, 8, 3), Own(8, 3, padding="same"))).layers
    assert (row.kind, row.multiply_adds) == ("Own", 13824)


def test_what_is_not_known_is_said_and_not_silently_zero() -> None:
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, kl.MultiHeadAttention(1, 2, name="attend")(inputs, inputs))
    found = profile(model)
    (row,) = found.layers
    assert (row.multiply_adds, row.counted) == (0, False)
    assert row.params == model.count_params()
    assert "unknown" in str(found)


@pytest.mark.parametrize("number", range(len(multiply_adds._PRODUCTS)))
def test_bare_products_are_said_to_be_missing(number: int) -> None:
    inputs = keras.Input((4,))
    x = kl.Dense(1, name="d")(inputs)
    one = x[:1, :]
    model = keras.Model(inputs, x + ops.sum(multiply_adds._PRODUCTS[number](one, one)))
    found = profile(model)
    assert (found.multiply_adds, len(found.not_counted)) == (4, 1)
    comparison = compare(model, model)
    assert comparison.not_counted == found.not_counted
    assert f"1 whose multiply-adds are not counted ({found.not_counted[0]})" in str(comparison)
    plain = keras.Model(inputs, x * ops.sum(one * one))
    assert profile(plain).not_counted == compare(plain, plain).not_counted == ()


@pytest.mark.parametrize("layer", [kl.Dot(axes=-1), kl.Attention(), kl.AdditiveAttention()])
def test_layers_that_multiply_tensors_are_not_counted(layer: keras.Layer) -> None:
    inputs = keras.Input((5, 4))
    found = profile(keras.Model(inputs, layer([inputs, inputs])))
    assert found.not_counted == (f"{layer.name} ({type(layer).__name__})",)


def test_a_network_adds_up() -> None:
    model = network()
    found = profile(model)
    assert [x.name for x in found.layers] == ["first", "norm", "second", "head"]
    assert found.multiply_adds == 8 * 8 * 9 * 8 * (3 + 8) + 8 * 10
    assert found.params == model.count_params()
    assert found.params != sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def test_a_shared_layer_works_at_every_call_and_is_stored_once() -> None:
    inputs = keras.Input((8, 8, 4))
    shared = kl.Conv2D(4, 3, padding="same", name="shared")
    once = keras.Model(inputs, shared(inputs))
    x = kl.MaxPooling2D()(shared(inputs))
    twice = keras.Model(inputs, shared(x))
    (row,) = profile(twice).layers
    assert row.multiply_adds == (8 * 8 + 4 * 4) * 4 * 9 * 4
    assert row.params == profile(once).params == 4 * 9 * 4 + 4
    assert row.output_shape == (8, 8, 4)


def test_nested_models_are_opened() -> None:
    inner = keras.Sequential([keras.Input((8, 8, 3)), kl.Conv2D(2, 3, name="conv")], name="inner")
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, inner(inputs) + inner(2 * inputs))
    (row,) = profile(model).layers
    assert (row.name, row.multiply_adds) == ("inner/conv", 2 * 6 * 6 * 27 * 2)
    assert row.params == model.count_params()


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50"])
def test_published_counts(name: str) -> None:
    """300 million (Sandler et al. 2018, table 4) and 3.8 billion (He et al. 2016, table 1)."""
    model = getattr(keras.applications, name)(weights=None)
    found = profile(model)
    published = {"MobileNetV2": 300e6, "ResNet50": 3.86e9}[name]
    assert found.multiply_adds == pytest.approx(published, rel=0.01)
    assert found.params == model.count_params()


# --- open sizes ---


def test_an_open_size_is_given_by_hand() -> None:
    given = profile(network(size=(None, None)), input_shape=(8, 8, 3))
    assert given == profile(network())
    assert given != profile(network(size=(None, None)), input_shape=(8, 9, 3))


def test_several_open_inputs() -> None:
    inputs = [keras.Input((None, 2)), keras.Input((None, 3))]
    outputs = [kl.Conv1D(4, 1)(x) for x in inputs]
    model = keras.Model(inputs, outputs)
    assert profile(model, [(5, 2), (7, 3)]).multiply_adds == 5 * 2 * 4 + 7 * 3 * 4


def test_deriving_shapes_does_not_change_the_model() -> None:
    model = network(size=(None, None))
    before = model.to_json()
    profile(model, input_shape=(8, 8, 3))
    assert model.to_json() == before
    assert model.output_shape == (None, 10)


def test_an_open_size_names_the_layer_and_the_way_out() -> None:
    with pytest.raises(ModelError, match=r"'first'.*\(None, None, None, 8\).*input_shape=\("):
        profile(network(size=(None, None)))


@pytest.mark.parametrize(
    "shape", [(8, 8), (8, 8, 4), (8, 0, 3), (8, None, 3), (8, 8.0, 3), [(8, 8, 3), (8, 8, 3)]]
)
def test_an_input_shape_that_does_not_fit_is_refused(shape: Any) -> None:
    with pytest.raises(ModelError, match=r"input_shape: expected \(None, None, 3\)"):
        profile(network(size=(None, None)), input_shape=shape)


def test_an_input_too_small_names_the_layer() -> None:
    model = single((None, None, 3), kl.Conv2D(4, 5, name="wide"))
    with pytest.raises(ModelError, match="'wide' does not take input_shape"):
        profile(model, input_shape=(3, 3, 3))


def test_a_model_without_a_graph_is_refused() -> None:
    with pytest.raises(ModelError, match="not built"):
        profile(keras.Sequential([kl.Dense(3)]))


# --- printing ---


def test_the_table_of_a_profile() -> None:
    assert str(profile(network())).splitlines() == [
        "layer    type    kernels  size  output  multiply-adds  params",
        "-------------------------------------------------------------",
        "first    Conv2D        8   3x3   8x8x8         13,824     224",
        "second   Conv2D        8   3x3   8x8x8         36,864     584",
        "head     Dense        10     -      10             80      90",
        "1 other                                             0      32",
        "total                                          50,768     930",
    ]


def test_a_profile_as_json() -> None:
    content = json.loads(profile(network()).to_json())
    assert (content["multiply_adds"], content["params"]) == (50768, 930)
    assert content["layers"][0] == {
        "name": "first",
        "kind": "Conv2D",
        "kernels": 8,
        "size": [3, 3],
        "output_shape": [8, 8, 8],
        "multiply_adds": 13824,
        "params": 224,
        "counted": True,
    }


def test_nothing_to_count() -> None:
    empty = profile(single((3,), kl.ReLU()))
    assert empty == Profile(())
    assert (empty.multiply_adds, empty.params) == (0, 0)
    assert "total" in str(empty)
    assert compare(single((3,), kl.ReLU()), single((3,), kl.ReLU())).multiply_adds_fraction == 1


# --- before and after ---


def test_surgery_is_counted_layer_by_layer() -> None:
    model = network()
    # The sum keeps 8 channels; "second" keeps 3 kernels of size 1 and is spread over the sum.
    pruned = surgery.prune(model, Plan({"second": (1, 0, 0, 1, 0, 0, 1, 0)}))
    found = compare(model, pruned, notes=["kept as it was"])
    rows = {row.name: row for row in found.layers}
    second = rows["second"]
    assert second.size == ((3, 3), (1, 1))
    assert second.kernels[0] == 8
    assert second.multiply_adds == (36864, 64 * 8 * second.kernels[1])
    assert rows["first"].multiply_adds == (13824, 13824)
    assert found.multiply_adds == (50768, profile(pruned).multiply_adds)
    assert found.params == (930, pruned.count_params())
    assert found.multiply_adds_fraction == profile(pruned).multiply_adds / 50768 < 1
    assert found.params_fraction == pruned.count_params() / 930
    assert found.removed == ()
    assert found.notes == ("kept as it was",)
    assert str(found).endswith("note: kept as it was")


def test_a_layer_that_is_gone() -> None:
    model = network()
    found = compare(model, surgery.prune(model, Plan({"second": (0,) * 8})))
    (row,) = [row for row in found.layers if row.name == "second"]
    assert row.kernels == (8, 0)
    assert row.multiply_adds == (36864, 0)
    assert row.size == ((3, 3), ())
    assert found.removed == ("second",)
    assert found.multiply_adds == (50768, 13824 + 80)
    assert "removed: second" in str(found)


def test_the_parts_of_a_split_layer_stand_in_its_row() -> None:
    inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(6, 5, padding="same", name="conv")(inputs)
    model = keras.Model(inputs, kl.Dense(2, name="head")(kl.GlobalAveragePooling2D()(x)))
    pruned = kss.prune(model, kss.Plan({"conv": (1, 5, 0, 3, 1, 1)}), realize="split")
    assert [x.name for x in profile(pruned).layers][:-1] == [f"conv_part_{n}" for n in range(3)]
    found = compare(model, pruned)
    conv, head = found.layers
    assert (conv.name, head.name) == ("conv", "head")
    assert conv.kernels == (6, 5)
    assert conv.size == ((5, 5), (5, 5))
    assert conv.parts == ((5, 5), (3, 3), (1, 1))
    assert conv.multiply_adds == (64 * 3 * 25 * 6, 64 * 3 * (25 + 9 + 3))
    assert conv.params == (3 * 25 * 6 + 6, 3 * (25 + 9 + 3) + 5)
    assert found.multiply_adds == (profile(model).multiply_adds, profile(pruned).multiply_adds)
    assert found.params == (model.count_params(), pruned.count_params())
    assert found.removed == ()
    assert "5x5, 3x3, 1x1" in str(found).splitlines()[2]
    assert json.loads(found.to_json())["layers"][0]["parts"] == [[5, 5], [3, 3], [1, 1]]
    assert json.loads(found.to_json())["layers"][1]["parts"] == []


def test_a_part_needs_a_whole() -> None:
    """A layer that is only called like one keeps its row, before surgery as after."""
    inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(2, 3, name="conv")(inputs)
    x = kl.Conv2D(2, 1, name="conv_part_0")(x)
    model = keras.Model(inputs, kl.Conv2D(2, 1, name="other_part_0")(x))
    found = compare(model, model)
    assert [row.name for row in found.layers] == ["conv", "conv_part_0", "other_part_0"]
    assert all(row.kernels == (2, 2) and not row.parts for row in found.layers)


def test_surgerys_own_notes_are_shown_unless_others_are_given() -> None:
    model = network()
    pruned = surgery.prune(model, Plan({"second": (1, 0, 0, 1, 0, 0, 1, 0)}))
    found = provenance.recorded(pruned)
    assert found is not None
    provenance.record(pruned, replace(found, notes=("left as it was",)))
    assert compare(model, pruned).notes == ("left as it was",)
    assert compare(model, pruned, notes=[]).notes == ()


def test_layers_that_surgery_adds_have_rows_of_their_own() -> None:
    model = network()
    inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(8, 3, padding="same", name="first")(inputs)
    x = kl.Conv2D(5, 1, name="sum_spread_0")(x)
    larger = keras.Model(inputs, x)
    found = compare(model, larger)
    assert [row.name for row in found.layers][-1] == "sum_spread_0"
    assert found.layers[-1].kernels == (0, 5)
    assert found.multiply_adds == (50768, profile(larger).multiply_adds)
    assert found.params == (930, larger.count_params())


def test_layers_of_nested_models_are_found_by_their_flat_names() -> None:
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), kl.Conv2D(4, 3, padding="same", name="conv")], name="inner"
    )
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, kl.Dense(2)(kl.GlobalAveragePooling2D()(inner(inputs))))
    found = compare(model, surgery.prune(model, Plan({"inner/conv": (3, 0, 3, 0)})))
    assert found.layers[0].name == "inner/conv"
    assert found.layers[0].kernels == (4, 2)
    assert len(found.layers) == 2


def test_a_network_is_no_smaller_than_itself() -> None:
    found = compare(network(), network())
    assert found.multiply_adds_fraction == found.params_fraction == 1
    assert all(row.kernels[0] == row.kernels[1] for row in found.layers)
    assert compare(network(8), network(7)).multiply_adds_fraction < 1


def test_a_comparison_of_open_sizes() -> None:
    model = network(size=(None, None))
    pruned = surgery.prune(model, Plan({"second": (0,) * 8}))
    assert compare(model, pruned, input_shape=(8, 8, 3)).multiply_adds == (50768, 13904)
    with pytest.raises(ModelError, match="input_shape"):
        compare(model, pruned)


def test_a_comparison_as_json_and_as_a_table() -> None:
    found = compare(network(8), network(4))
    content = json.loads(found.to_json())
    assert content["multiply_adds"] == list(found.multiply_adds)
    assert content["multiply_adds_fraction"] == found.multiply_adds_fraction
    assert content["layers"][0]["kernels"] == [8, 4]
    assert content["removed"] == content["notes"] == []
    assert " ".join(str(found).splitlines()[2].split()) == (
        "first Conv2D 8 4 3x3 3x3 13,824 6,912 50.0% 224 112 50.0%"
    )
    assert str(found).isascii()


def test_a_foreign_layer_may_have_one_number_as_kernel_size() -> None:
    class Block(keras.layers.Layer):
        kernel_size = 3

        def call(self, inputs: Any) -> Any:
            return inputs

    inputs = keras.Input((8, 8, 3))
    x = Block(name="block")(keras.layers.Conv2D(4, 3, name="conv")(inputs))
    assert [x.name for x in profile(keras.Model(inputs, x)).layers] == ["conv"]
