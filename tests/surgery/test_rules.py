"""What the rules of surgery do with constants, borders, unknown layers and layers of users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    Array,
    assert_exact_surgery,
    chain,
    difference,
    kernel_shape,
    outputs,
    random_batch,
    randomize,
    types,
    use_float64,
)
from keras import layers as L

from keras_structsparse import surgery
from keras_structsparse.graph import cloning
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.surgery import Channels, Flow, Piece, Rule, Site, emit, only, prune
from keras_structsparse.surgery.plans import Plan, masked
from keras_structsparse.surgery.provenance import notes

Tensor = Any
Layers = Callable[[], list[keras.Layer]]

HALF = Plan({"first": [3, 0, 3, 0, 3, 0]})


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def first(activation: str | None = "sigmoid", **options: Any) -> keras.Layer:
    """Six kernels; of those removed, sigmoid leaves constants that are not zero."""
    return L.Conv2D(6, 3, activation=activation, name="first", **options)


def same(**options: Any) -> keras.Layer:
    return L.Conv2D(4, 3, padding="same", name="reader", **options)


READERS: dict[str, tuple[Layers, int]] = {
    "padded": (lambda: [same()], 1),
    "padded strided": (lambda: [same(strides=2)], 1),
    "padded even": (lambda: [L.Conv2D(4, 2, padding="same")], 1),
    "dropout": (lambda: [L.Dropout(0.5), L.GaussianNoise(0.1), same()], 1),
    "norm, activation": (lambda: [L.BatchNormalization(), L.ELU(), same()], 1),
    "max pooling": (lambda: [L.MaxPooling2D(3, 2, padding="same"), same()], 1),
    "average pooling": (lambda: [L.AveragePooling2D(3, 2, padding="same"), same()], 1),
    "explicit border": (lambda: [L.ZeroPadding2D(2), L.Conv2D(4, 3)], 1),
    "explicit border, 1x1": (lambda: [L.ZeroPadding2D(((0, 1), (0, 0))), L.Conv2D(4, 1)], 1),
    "two borders": (lambda: [L.ZeroPadding2D(1), L.ZeroPadding2D(((2, 0), (1, 3))), same()], 1),
    "border, dropout": (lambda: [L.ZeroPadding2D(1), L.Dropout(0.5), L.Conv2D(4, 3)], 1),
    "valid": (lambda: [L.Conv2D(4, 3, strides=2)], 0),
    "1x1": (lambda: [L.Conv2D(4, 1, padding="same", strides=2)], 0),
    "dense": (lambda: [L.Dense(4)], 0),
    "global average": (lambda: [L.GlobalAveragePooling2D(), L.Dense(4)], 0),
    "global maximum": (lambda: [L.GlobalMaxPooling2D(keepdims=True), L.Conv2D(4, 1)], 0),
    "flatten": (lambda: [L.Flatten(), L.Dense(4)], 0),
    "border of width 0": (lambda: [L.ZeroPadding2D(0), L.Conv2D(4, 3)], 0),
    # Max pooling and normalisation see the border too: there constants are no constants.
    "border, max pooling": (lambda: [L.ZeroPadding2D(1), L.MaxPooling2D(3, 2), L.Dense(4)], 3),
    "border, norm": (lambda: [L.ZeroPadding2D(1), L.BatchNormalization(), L.Dense(4)], 3),
    "border, activation": (lambda: [L.ZeroPadding2D(1), L.Activation("tanh"), L.Dense(4)], 3),
}


@pytest.mark.parametrize("reader", READERS)
def test_one_carrier_stays_where_a_border_forbids_the_bias(reader: str) -> None:
    make, extra = READERS[reader]
    model = chain(first(), *make(), L.Dense(2, "tanh"))
    pruned = assert_exact_surgery(model, HALF, realize="crop")
    assert kernel_shape(pruned, "first")[-1] == 3 + extra


@pytest.mark.parametrize("reader", READERS)
def test_constants_of_zero_need_no_carrier(reader: str) -> None:
    model = chain(first("relu"), *READERS[reader][0](), L.Dense(2, "tanh"))
    layer = model.get_layer("first")
    layer.bias.assign(-np.abs(layer.bias))
    pair = PrunableLayers.of(model).batch_norms.get("first")
    norms = [x for x in model.layers if isinstance(x, L.BatchNormalization)]
    for norm in norms:
        # The scale of a removed kernel becomes zero in its pair, which leaves beta.
        shift = norm.moving_mean * norm.gamma / np.sqrt(norm.moving_variance + 1e-3)
        norm.beta.assign(0 * shift if norm is pair else shift)
    pruned = assert_exact_surgery(model, HALF, realize="crop")
    assert kernel_shape(pruned, "first")[-1] == 3


def test_two_readers_share_one_carrier() -> None:
    inputs = keras.Input((9, 8, 2))
    x = first()(inputs)
    y = L.Concatenate()([same()(x), L.Conv2D(3, 5, padding="same")(x), L.Dense(2)(x)])
    model = randomize(keras.Model(inputs, L.Dense(2)(y)))
    assert kernel_shape(assert_exact_surgery(model, HALF, realize="crop"), "first")[-1] == 4


def test_the_strongest_constant_becomes_the_carrier() -> None:
    model = chain(first(None), same(), L.Dense(2))
    model.get_layer("first").bias.assign([1.0, 1e-9, 1.0, 1e6, 1.0, -3.0])
    pruned = assert_exact_surgery(model, HALF, realize="crop")
    assert 1e6 in pruned.get_layer("first").get_weights()[1]


def test_a_causal_border_needs_a_carrier_too() -> None:
    layers = [
        L.Conv1D(6, 3, padding="causal", activation="sigmoid", name="first"),
        L.Conv1D(4, 3, padding="causal", dilation_rate=2),
    ]
    pruned = assert_exact_surgery(chain(*layers, L.Dense(2), shape=(12, 2)), HALF, realize="crop")
    assert kernel_shape(pruned, "first")[-1] == 4


def test_tensors_with_and_without_border_meet() -> None:
    """A sum and a concatenation of a bordered and a plain tensor."""
    inputs = keras.Input((9, 8, 2))
    x = first(padding="same")(inputs)
    bordered = L.ZeroPadding2D(((1, 0), (0, 1)))(x)
    plain = L.Conv2D(6, 2, name="plain", activation="sigmoid")(L.ZeroPadding2D(1)(inputs))
    total = L.Add()([bordered, plain])
    model = randomize(keras.Model(inputs, same()(L.Concatenate()([total, bordered, plain]))))
    assert_exact_surgery(model, Plan({**HALF.sizes, "plain": [2, 2, 0, 0, 1, 1]}))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("constants", ["interior", "drop"])
def test_other_modes_differ_where_they_say(padding: str, constants: str) -> None:
    model = chain(first(), L.Conv2D(4, 3, padding=padding, name="reader"), shape=(12, 12, 2))
    pruned, inputs = prune(model, HALF, constants, realize="crop"), random_batch(model)
    assert kernel_shape(pruned, "first")[-1] == 3
    (expected,), (found,) = outputs(masked(model, HALF), inputs), outputs(pruned, inputs)
    inner = np.abs(expected - found)[:, 1:-1, 1:-1].max()
    border = np.abs(expected - found)[:, 0].max()
    assert (inner > 1e-3) == (constants == "drop")
    assert (border > 1e-3) == (constants == "drop" or padding == "same")
    assert_exact_surgery(model, HALF)


@pytest.mark.parametrize("realize", ["auto", "crop", "split", "none"])
def test_kernels_of_several_sizes_become_as_many_convolutions_as_asked(realize: str) -> None:
    model = chain(L.Conv2D(6, 5, padding="same", name="first"), L.Dense(2, "tanh"))
    pruned = assert_exact_surgery(model, Plan({"first": [5, 1, 3, 1, 0, 5]}), realize=realize)
    shapes = sorted(tuple(x.kernel.shape) for x in pruned.layers if type(x) is L.Conv2D)
    split = [(1, 1, 2, 2), (3, 3, 2, 1), (5, 5, 2, 2)]
    assert shapes == (split if realize == "split" else [(5, 5, 2, 5)])


def test_auto_splits_where_that_pays() -> None:
    inputs = keras.Input((32, 32, 32))
    x = L.Conv2D(64, 5, padding="same", name="first")(inputs)
    x = L.Dense(2)(L.GlobalAveragePooling2D()(x))
    model = randomize(keras.Model(inputs, x))
    pruned = assert_exact_surgery(model, Plan({"first": [5, 1] * 32}))
    assert types(pruned).count(L.Conv2D) == 2


def test_without_realization_kernels_keep_their_size() -> None:
    model = chain(L.Conv2D(6, 5, padding="same", name="first"), L.Dense(2, "tanh"))
    pruned = assert_exact_surgery(model, Plan({"first": [3, 1, 3, 1, 0, 3]}), realize="none")
    assert kernel_shape(pruned, "first") == (5, 5, 2, 5)


@pytest.mark.parametrize(("side", "kernels", "padded"), [(8, 3, False), (32, 128, True)])
def test_auto_keeps_a_wider_window_where_padding_costs_more(
    side: int, kernels: int, padded: bool
) -> None:
    conv = L.Conv2D(kernels, 5, strides=2, padding="same", name="first")
    model = chain(conv, L.ReLU(), shape=(side, side, kernels))
    pruned = assert_exact_surgery(model, Plan({"first": [2, 1, *[2] * (kernels - 2)]}))
    assert (L.ZeroPadding2D in types(pruned)) == padded
    assert kernel_shape(pruned, "first")[:2] == ((2, 2) if padded else (3, 3))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"padding": "same"}, [L.Conv2D]),
        ({"padding": "same", "strides": 2}, [L.ZeroPadding2D, L.Cropping2D, L.Conv2D]),
        ({"padding": "valid"}, [L.Cropping2D, L.Conv2D]),
    ],
    ids=str,
)
def test_a_crop_needs_explicit_padding_only_where_the_border_moves(
    options: dict[str, Any], expected: list[type[keras.Layer]]
) -> None:
    model = chain(L.Conv2D(3, 5, name="first", **options), L.ReLU(), shape=(12, 12, 2))
    pruned = assert_exact_surgery(model, Plan({"first": [2, 1, 2]}), realize="crop")
    assert types(pruned) == [*expected, L.ReLU]


class OwnConvolution(L.Conv2D):
    """Not a Conv2D to surgery: it may do anything with its kernel."""

    def call(self, inputs: Tensor) -> Tensor:
        return super().call(inputs) ** 2


UNKNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "LayerNormalization": lambda x: L.LayerNormalization(name="odd")(x),
    "Softmax": lambda x: L.Softmax(name="odd")(x),
    "Activation": lambda x: L.Activation("softmax", name="odd")(x),
    "Reshape": lambda x: L.Reshape((7, -1), name="odd")(x),
    "Lambda": lambda x: L.Lambda(lambda y: y[..., ::-1], name="odd")(x),
    "OwnConvolution": lambda x: OwnConvolution(3, 3, name="odd")(x),
    "BatchNormalization": lambda x: L.BatchNormalization(axis=1, name="odd")(x),
    "Concatenate": lambda x: L.Concatenate(axis=1, name="odd")([x, x]),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_layer_without_a_rule_keeps_its_inputs_and_is_noted(kind: str) -> None:
    inputs = keras.Input((9, 9, 2))
    x = first(padding="valid")(inputs)
    model = randomize(keras.Model(inputs, L.Dense(2)(UNKNOWN[kind](x))))
    pruned = assert_exact_surgery(model, HALF)
    assert kernel_shape(pruned, "first") == (3, 3, 2, 6)
    assert type(pruned.get_layer("odd")).__name__ == kind
    note, writer = notes(pruned)
    assert note.startswith(f"layer 'odd' ({kind}): kept as it is: ")
    assert writer.endswith(": first 3 (for odd)")
    assert notes(model) == ()


def test_a_kept_layer_without_kernels_still_shrinks_them() -> None:
    inputs = keras.Input((9, 9, 2))
    x = L.LayerNormalization()(first(padding="same")(inputs))
    y = L.GlobalAveragePooling2D()(L.Dense(3)(inputs))
    model = randomize(keras.Model(inputs, L.Dense(2)(L.Concatenate()([L.Flatten()(x), y]))))
    pruned = assert_exact_surgery(model, Plan({"first": [0] * 6}))
    assert kernel_shape(pruned, "first") == (1, 1, 2, 6)


def test_a_kernel_that_cannot_be_cropped_is_noted() -> None:
    conv = L.Conv2D(3, 5, strides=2, padding="same", name="first")
    model = chain(conv, L.Dense(2), shape=(None, None, 2))
    pruned = prune(model, Plan({"first": [3, 1, 3]}))
    assert kernel_shape(pruned, "first") == (5, 5, 2, 3)
    assert any("'first'" in note and "size" in note for note in notes(pruned))
    assert notes(prune(model, Plan({"first": [5, 5, 5]}))) == ()


@pytest.mark.parametrize("nested", [False, True])
def test_normalisation_by_the_batch_has_no_constants(nested: bool) -> None:
    """With training=True, statistics are those of the batch, also at inference."""
    norm = L.BatchNormalization()
    body = keras.Sequential([keras.Input((7, 7, 6)), norm]) if nested else norm
    inputs = keras.Input((9, 9, 2))
    x = body(first(None)(inputs), training=True)
    assert_exact_surgery(randomize(keras.Model(inputs, L.Dense(2)(x))), HALF)


def test_noise_at_inference_has_no_constants() -> None:
    inputs = keras.Input((9, 9, 2))
    x = L.GaussianNoise(1.0)(first(None)(inputs), training=True)
    pruned = prune(randomize(keras.Model(inputs, L.Dense(2)(x))), HALF)
    assert kernel_shape(pruned, "first")[-1] == 6


@pytest.mark.parametrize("add", [lambda a, b: a + b, lambda a, b: L.Add()([a, b])])
def test_what_is_broadcast_over_positions_is_no_bias(
    add: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """As many samples as positions, and a single channel left: docs/design-notes.md, "Traps"."""
    inputs = keras.Input((3, 2))
    x = L.Conv1D(4, 3, padding="same", name="first")(inputs)
    x = add(x, keras.ops.max(x, axis=-2, keepdims=True))
    model = randomize(keras.Model(inputs, L.Conv1D(2, 3, name="last")(x)))
    chosen = Plan({"first": [3, 0, 0, 0]})
    pruned = prune(model, chosen)
    assert kernel_shape(pruned, "first") == (3, 2, 1)
    batch = random_batch(model, samples=3)
    assert difference(masked(model, chosen), pruned, batch) <= 1e-10


@pytest.mark.parametrize("pool", [L.GlobalAveragePooling1D, L.BatchNormalization])
def test_masks_over_time_stay(pool: type[keras.Layer]) -> None:
    inputs = keras.Input((8, 2))
    x = L.Dense(4, "sigmoid", name="units")(L.Masking(0.0)(inputs))
    model = randomize(keras.Model(inputs, L.Dense(2)(pool()(x))))
    chosen, batch = Plan({"units": [1, 0, 0, 1]}), random_batch(model)
    batch[:, 5:] = 0.0
    pruned = prune(model, chosen)
    assert difference(masked(model, chosen), pruned, batch) <= 1e-10
    assert difference(model, pruned, batch) > 1e-3


class Scale(keras.Layer):
    """A factor for every channel."""

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.factor = self.add_weight(shape=(input_shape[-1],), name="factor")

    def call(self, inputs: Tensor) -> Tensor:
        return inputs * self.factor


class SubScale(Scale):
    """A subclass has no rule."""


def scale_flow(site: Site) -> Flow:
    inputs = site.inputs[0]
    live = inputs.live & (site.weights["factor"] != 0)
    value = np.where(inputs.live, 0.0, inputs.value * site.weights["factor"])
    return Flow(inputs.passed(live=live, value=value))


def scale_build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    (piece,) = pieces
    assert piece is not None
    layer = cloning.clone(site.operation, name=site.layer_name)
    weights = [site.weights["factor"][piece.order]]
    return Piece(emit(layer, piece.tensor, weights), piece.order)


def test_users_can_register_rules_for_their_layers() -> None:
    model = chain(first(), Scale(name="scale"), same())
    assert kernel_shape(assert_exact_surgery(model, HALF, realize="crop"), "first")[-1] == 6
    surgery.register(Rule(scale_flow, scale_build), Scale)
    pruned = assert_exact_surgery(model, HALF, realize="crop")
    assert kernel_shape(pruned, "first")[-1] == 4
    assert notes(pruned) == ()
    other = chain(first(), SubScale(name="scale"), same())
    assert kernel_shape(assert_exact_surgery(other, HALF), "first")[-1] == 6


def test_rules_by_the_name_of_a_type() -> None:
    """Of a package that may not be there; a type of another package is another type."""
    named = keras.saving.register_keras_serializable("rules_by_name", "Named")(
        type("Named", (Scale,), {})
    )
    model = chain(first(), named(name="scale"), same())
    surgery.register(Rule(scale_flow, scale_build), "elsewhere>Named")
    assert kernel_shape(assert_exact_surgery(model, HALF, realize="crop"), "first")[-1] == 6
    surgery.register(Rule(scale_flow, scale_build), "rules_by_name>Named")
    assert kernel_shape(assert_exact_surgery(model, HALF, realize="crop"), "first")[-1] == 4


@pytest.mark.parametrize("kind", ["Dense", int, None])
def test_rules_are_for_types_of_layers(kind: Any) -> None:
    with pytest.raises(TypeError, match="expected types of Keras layers"):
        surgery.register(Rule(scale_flow, scale_build), kind)


def test_only_gives_the_single_piece_and_refuses_others() -> None:
    piece = Piece(None, np.arange(2))
    assert only([piece]) is piece
    several: list[Sequence[Piece | None]] = [[], [None], [piece, piece]]
    for pieces in several:
        with pytest.raises(ValueError, match="only: expected one piece"):
            only(pieces)


def test_the_former_name_of_a_linear_read_stays_importable() -> None:
    assert surgery.Reading is surgery.LinearRead


def test_unknown_channels_are_live() -> None:
    channels = surgery.unknown(np.arange(3))
    assert isinstance(channels, Channels)
    assert channels.live.all()
    assert not channels.offset.any()
