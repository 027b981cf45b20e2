"""Surgery of layers and operations that treat every channel by itself, or pick some of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    assert_exact_surgery,
    assert_same_function,
    difference,
    kernel_shape,
    network_around,
    random_batch,
    randomize,
    use_float64,
)
from keras import layers as L
from keras import ops

from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan, masked
from keras_structsparse.surgery.provenance import notes

Tensor = Any
Body = Callable[[Tensor], Tensor]

HALF = Plan({"first": [3, 0, 3, 0, 3, 0]})


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def halves(x: Tensor) -> Tensor:
    left, _, right = ops.split(x, (2, 4), axis=-1)
    return L.Concatenate()([right, left])


BODIES: dict[str, tuple[Body, int, int]] = {
    # activations and other functions of every entry
    "hard functions": (lambda x: ops.hard_shrink(ops.hard_tanh(x * 3.0)), 3, 4),
    "soft functions": (lambda x: ops.soft_shrink(ops.squareplus(x), 0.1), 4, 4),
    "clipped": (lambda x: ops.clip(x, 0.0, 0.4), 3, 4),
    "logarithm": (lambda x: ops.log1p(x) / (1.0 + x) ** 2, 3, 4),
    "rounded": (lambda x: ops.cast(ops.round(x * 3.0), "float64"), 3, 4),
    "shared slope": (lambda x: L.PReLU(shared_axes=[1, 2])(0.1 - x), 4, 4),
    "one slope": (lambda x: L.PReLU(shared_axes=[1, 2, 3])(0.1 - x), 4, 4),
    "own slopes": (lambda x: L.PReLU()(x), 3, 4),
    "own slopes, negative": (lambda x: L.PReLU()(-x), 3, 6),
    "alpha dropout": (lambda x: L.ActivityRegularization(0.1)(L.AlphaDropout(0.5)(x)), 3, 4),
    # scales and offsets
    "rescaled": (lambda x: L.Rescaling(0.3, 0.1)(x), 4, 4),
    "rescaled by list": (lambda x: L.Rescaling([0.1, 2, 3, 4.3, 5, 6], [0.0] * 6)(x), 3, 4),
    "rescaled by array": (lambda x: L.Rescaling(np.arange(6.0) / 3.0, 0.7)(x), 4, 4),
    "instances": (lambda x: L.GroupNormalization(-1)(x), 4, 4),
    "instances without offset": (lambda x: L.GroupNormalization(6, center=False)(x), 3, 3),
    # pooling and sizes
    "bare pooling": (lambda x: ops.average_pool(ops.max_pool(x, 2, 1), 2, 1, "same"), 3, 4),
    "sum": (lambda x: x + ops.sum(x, axis=(1, -2), keepdims=True), 3, 4),
    "variance": (lambda x: x + ops.var(x, axis=2, keepdims=True), 3, 4),
    "deviation": (lambda x: x + ops.std(x, axis=(1, 2), keepdims=True), 3, 4),
    "resized": (lambda x: L.Resizing(8, 8, "nearest")(x), 3, 4),
    "resized smoothly": (lambda x: ops.image.resize(x, (7, 9)), 3, 6),
    "bare padding": (lambda x: ops.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0))), 3, 4),
    "reflected": (lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect"), 3, 4),
    # axes
    "axes": (lambda x: ops.squeeze(ops.expand_dims(ops.transpose(x, (0, 2, 1, 3)), 1), 1), 3, 4),
    "turned": (lambda x: ops.roll(ops.flip(ops.swapaxes(x, 1, 2), 1), 1, 2), 3, 4),
    "repeated": (lambda x: ops.repeat(x, 2, axis=1), 3, 4),
    "repeated vector": (lambda x: L.RepeatVector(3)(L.GlobalMaxPooling2D()(x)), 3, 3),
    "bare concatenation": (lambda x: ops.concatenate([x, x], axis=-1), 3, 4),
    # some of the channels
    "positions": (lambda x: x[:, 1:, ::-1], 3, 4),
    "first channels": (lambda x: x[..., :4], 2, 3),
    "backwards": (lambda x: x[..., 4::-1], 3, 4),
    "picked": (lambda x: ops.take(x, [0, 4, 0, -1], axis=-1), 2, 3),
    "split": (halves, 2, 3),
    "halves": (lambda x: L.Add()(ops.split(x, 2, axis=-1)), 3, 3),
}
"""What comes behind the convolution, and how many of its kernels stay: of removed ones that leave
zeros, and of ones that leave other constants."""


@pytest.mark.parametrize("constants", ["zero", "other"])
@pytest.mark.parametrize("body", BODIES)
def test_channels_go_through(body: str, constants: str, tmp_path: Path) -> None:
    make, zero, other = BODIES[body]
    model = network_around(make, "relu" if constants == "zero" else "sigmoid")
    pruned = assert_exact_surgery(model, HALF, realize="crop")
    assert kernel_shape(pruned, "first")[-1] == (zero if constants == "zero" else other)
    assert notes(pruned) == ()
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_function(pruned, loaded, random_batch(model), tolerance=0.0)


NOISES: dict[str, tuple[type[keras.Layer], tuple[int | None, ...], tuple[int | None, ...]]] = {
    "of each channel": (L.Dropout, (None, 1, 1, 6), (None, 1, 1, 3)),
    "of all channels": (L.Dropout, (None, None, None, 1), (None, None, None, 1)),
    "of open channels": (L.Dropout, (None, 1, None, None), (None, 1, None, None)),
    "alpha dropout": (L.AlphaDropout, (None, 1, 1, 6), (None, 1, 1, 3)),
}


@pytest.mark.parametrize("noise", NOISES)
def test_the_noise_of_dropout_follows_the_channels(noise: str) -> None:
    kind, before, after = NOISES[noise]
    model = network_around(kind(0.5, noise_shape=before, name="drop"))
    pruned = assert_exact_surgery(model, HALF)
    (layer,) = (each for each in pruned.layers if isinstance(each, kind))
    assert tuple(layer.noise_shape) == after
    x = random_batch(model)
    found = [np.asarray(pruned(x, training=mode)) for mode in (True, False)]
    assert np.abs(found[0] - found[1]).max() > 1e-3


KEPT: dict[str, tuple[Body, str]] = {
    "softmax": (lambda x: ops.softmax(x), "mixes channels"),
    "layer normalisation": (lambda x: L.LayerNormalization()(x), "mixes channels"),
    "group normalisation": (lambda x: L.GroupNormalization(2)(x), "each of its groups"),
    "attention": (lambda x: L.MultiHeadAttention(2, 3)(x, x), "attention mixes channels"),
    "equation": (lambda x: L.EinsumDense("abcd,de->abce", (None, None, 4))(x), "product"),
    "mean of channels": (lambda x: x + ops.mean(x, axis=-1, keepdims=True), "only the positions"),
    "padded channels": (lambda x: ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, 2))), "pads the"),
    "padded by ones": (
        lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)), constant_values=1.0),
        "other than zero",
    ),
    "moved channels": (lambda x: ops.transpose(x, (0, 3, 2, 1)), "to another axis"),
    "positions and channels": (lambda x: x[:, 1:, :, 1:], "at once"),
    "split positions": (lambda x: ops.split(x, 2, axis=2)[1], "does not split the last axis"),
    "arrays": (lambda x: ops.clip(x, np.zeros(6), np.ones(6)), "arrays"),
    "flipped channels": (lambda x: ops.flip(x, -1), "to another axis"),
    "one channel": (lambda x: ops.expand_dims(x[..., 1], -1), "removes the channel axis"),
    "random": (lambda x: L.RandomFlip()(x, training=False), "preprocesses inputs"),
}
"""Layers that are kept unchanged, and a part of the note."""


@pytest.mark.parametrize("body", KEPT)
def test_notes_say_why_channels_stay(body: str) -> None:
    make, reason = KEPT[body]
    pruned = assert_exact_surgery(network_around(make, "sigmoid"), HALF)
    assert kernel_shape(pruned, "first")[-1] == 6
    assert any(reason in note for note in notes(pruned))
    assert not any("no rule for its type" in note for note in notes(pruned))


def test_a_scale_of_zero_ends_a_channel() -> None:
    """ConvNeXt's LayerScale, a layer of keras.applications."""
    kind = sys.modules[keras.applications.ConvNeXtTiny.__module__].LayerScale
    model = network_around(lambda x: kind(1.0, 6, name="scale")(x), "sigmoid")
    model.get_layer("scale").gamma.assign([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    pruned = assert_exact_surgery(model, HALF)
    assert kernel_shape(pruned, "first")[-1] == 3  # two live ones and a carrier
    assert pruned.get_layer("scale").gamma.shape == (3,)


def test_a_split_after_sorted_kernels() -> None:
    """Kernels sorted by size come out of their places; the parts are found again."""
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(12, 5, padding="same", name="first")(inputs)
    left, right = ops.split(x, 2, axis=-1)
    x = L.Concatenate()([L.Conv2D(2, 3)(right), L.Conv2D(2, 3)(left), x[:, 1:-1, 1:-1]])
    model = randomize(keras.Model(inputs, L.Dense(2)(x)))
    assert_exact_surgery(model, Plan({"first": [1, 5, 0, 3] * 3}), realize="split")


def test_adapted_statistics_are_copied() -> None:
    """Normalization derives tensors from its weights, which setting the weights forgets."""
    norm = L.Normalization(name="norm")
    norm.adapt(np.random.default_rng(0).normal(3.0, 2.0, (50, 7, 6, 2)))
    inputs = keras.Input((7, 6, 2))
    x = L.Conv2D(6, 3, activation="sigmoid", name="first")(norm(inputs))
    model = keras.Model(inputs, L.Dense(2)(x))
    weights = norm.get_weights()
    randomize(model)
    norm.set_weights(weights)
    batch = random_batch(model)
    assert difference(model, masked(model, Plan({})), batch) == 0.0
    pruned = assert_exact_surgery(model, HALF)
    assert notes(pruned) == ()
    inner = prune(network_around(lambda x: L.Normalization()(x), "sigmoid"), HALF)
    assert any("keeps all" in note for note in notes(inner))


def test_the_scaled_sum_of_inception_resnet() -> None:
    """A layer of keras.applications: x + scale y."""
    kind = sys.modules[keras.applications.InceptionResNetV2.__module__].CustomScaleLayer

    def body(x: Tensor) -> Tensor:
        branch = L.Conv2D(6, 5, padding="same", name="branch")(x)
        return L.ReLU()(kind(0.3, name="sum")([x, branch]))

    model = network_around(body, "sigmoid")
    dead = Plan({"first": [3, 0, 3, 0, 3, 0], "branch": [5, 5, 0, 0, 3, 0]})
    pruned = assert_exact_surgery(model, dead, realize="crop")
    assert kernel_shape(pruned, "reader")[-2] == 5  # four live channels and a carrier
    assert notes(pruned) == ()
    assert_exact_surgery(model, Plan({"branch": [0] * 6}))
