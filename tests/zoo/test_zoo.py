"""The zoo: every network builds, with the layers its entry promises."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_structsparse import models
from keras_structsparse.errors import ModelError
from keras_structsparse.graph.functional_graph import read
from keras_structsparse.graph.onednn import overflowing
from keras_structsparse.graph.prunable_layers import batch_norm_pairs
from keras_structsparse.models import Base, build_base
from keras_structsparse.profiling import memory as machine_memory

SEVEN = [name for name in models.BASES if name.startswith(("digits", "mnist", "fashion"))]

every = pytest.mark.parametrize("name", SEVEN)


def convolutions(model: keras.Model) -> dict[str, keras.Layer]:
    return {x.name: x for x in model.layers if isinstance(x, L.Conv2D)}


@every
def test_every_network_builds_with_its_shapes(name: str) -> None:
    entry, model = models.REGISTRY[name], models.build(name)
    assert model.input_shape == (None, *entry.input_shape)
    assert model.output_shape == (None, entry.classes)
    assert entry.summary
    found = model(np.zeros((2, *entry.input_shape), "float32"))
    np.testing.assert_allclose(keras.ops.sum(found, axis=-1), 1.0, rtol=1e-5)


@every
def test_layers_are_the_bound(name: str) -> None:
    model = models.build(name)
    found = convolutions(model)
    main = [found[f"conv{i}"] for i in range(1, 8)]
    assert [(x.filters, x.kernel_size) for x in main] == [(16, (5, 5))] * 7
    strided = {x.name for x in main if x.strides != (1, 1)}
    assert strided == ({"conv4"} if "digits" in name else {"conv1", "conv4"})
    sums = [x for x in model.layers if isinstance(x, L.Add)]
    assert len(sums) == (3 if "residual" in name else 0)
    assert [x for x in found if "shortcut" in x] == (["shortcut4"] if "residual" in name else [])


@every
def test_every_convolution_is_paired(name: str) -> None:
    network = read(models.build(name))
    assert len(batch_norm_pairs(network)) == len(convolutions(network.model))


@every
def test_layers_start_with_different_numbers(name: str) -> None:
    layers = convolutions(models.build(name)).values()
    firsts = {float(np.ravel(x.get_weights()[0])[0]) for x in layers}
    assert len(firsts) == len(layers)
    kernel = convolutions(models.build(name))["conv2"].get_weights()[0]
    assert kernel.var() == pytest.approx(1 / (3 * 16 * 25), rel=0.1)
    assert np.abs(kernel).max() <= 1 / np.sqrt(16 * 25) + 1e-6


def test_the_seed_decides_the_weights() -> None:
    weights = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        weights.append(models.build("digits-plain").get_weights()[0])
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_shape_and_classes_can_be_chosen() -> None:
    model = models.build("digits-residual", (32, 24, 3), 7)
    assert (model.input_shape, model.output_shape) == ((None, 32, 24, 3), (None, 7))


def test_an_unknown_network_is_refused_with_a_hint() -> None:
    with pytest.raises(ValueError, match=r"digits-residual.*Received: 'digit-residual'"):
        models.build("digit-residual")


@pytest.mark.parametrize("classes", [0, -1])
def test_a_bad_number_of_classes_is_refused(classes: int) -> None:
    with pytest.raises(ValueError, match=str(classes)):
        models.build("digits-plain", classes=classes)


def test_a_base_needs_no_more_memory_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 4 * (9 * 8 + 8 * 9 * 8)
    monkeypatch.setattr(machine_memory, "memory", lambda: needed)
    Base(((8, 3),) * 2)
    monkeypatch.setattr(machine_memory, "memory", lambda: needed - 1)
    with pytest.raises(ValueError, match=r"layers: expected at most the .* Received: kernels of"):
        Base(((8, 3),) * 2)


def test_images_too_small_for_a_network_are_refused() -> None:
    with pytest.raises(ModelError, match=r"'alexnet': .*\(227, 227, 3\). Received: \(8, 8, 1\)"):
        models.build("alexnet", (8, 8, 1))


def test_a_last_convolution_without_a_partner_has_no_shortcut() -> None:
    model = build_base(Base(((4, 3),) * 4), (8, 8, 1), 10)
    assert [x.name for x in model.layers if isinstance(x, L.Add)] == ["add3"]
    assert model.get_layer("pool").input is model.get_layer("relu4").output
    whole = build_base(Base(((4, 3),) * 5), (8, 8, 1), 10)
    assert [x.name for x in whole.layers if isinstance(x, L.Add)] == ["add3", "add5"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": ()}, r"layers: expected at least one convolution"),
        ({"layers": ((2**20, 3),) * 2}, r"at most 2,147,483,648 entries in all. .*\(1048576, 3\)"),
        ({"layers": ((3000, 3),) * 50}, r"at most 2,147,483,648 entries in all. .*\(3000, 3\)"),
        ({"layers": ((4, 3),) * 2001}, r"layers: expected at most 2,000. Received: 2,001"),
        ({"normalization": "behind"}, r"normalization: .*'after'.*Received: 'behind'"),
        ({"initializer": "torch"}, r"initializer: .*small_uniform.*Received: 'torch'"),
    ],
)
def test_a_bad_base_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Base(**{"layers": ((4, 3),), **change})


@pytest.mark.parametrize(
    ("where", "order"),
    [
        ("after", ["conv1", "norm1", "relu1", "conv2", "norm2", "relu2"]),
        ("before", ["norm1", "conv1", "relu1", "norm2", "conv2", "relu2"]),
        ("none", ["conv1", "relu1", "conv2", "relu2"]),
    ],
)
def test_normalisation_stands_where_it_is_wanted(where: str, order: list[str]) -> None:
    base = Base(((4, 3),) * 2, residual=False, normalization=where)
    model = build_base(base, (8, 8, 1), 10)
    assert [x.name for x in model.layers][1:-2] == order
    assert all(x.use_bias == (where != "after") for x in convolutions(model).values())
    pairs = batch_norm_pairs(read(model))
    # The second normalisation of "before" stands behind the first convolution and its activation.
    assert len(pairs) == {"after": 2, "before": 1, "none": 0}[where]


@pytest.mark.parametrize(
    ("name", "where", "variance"),
    [
        (None, "after", 1 / (3 * 32 * 9)),
        (None, "none", 2 / (32 * 9)),
        ("he_normal", "after", 2 / (32 * 9)),
        ("glorot_uniform", "after", 2 / (9 * (32 + 32))),
        ("small_uniform", "none", 1 / (3 * 32 * 9)),
    ],
)
def test_the_initialiser_can_be_chosen(name: str | None, where: str, variance: float) -> None:
    base = Base(((32, 3),) * 2, residual=False, normalization=where, initializer=name)
    kernel = convolutions(build_base(base, (8, 8, 1), 10))["conv2"].get_weights()[0]
    assert kernel.var() == pytest.approx(variance, rel=0.1)


def test_a_pooling_behind_the_first_convolution() -> None:
    base = Base(((4, 7), (4, 3)), strided=(0,), pooled=True)
    model = build_base(base, (32, 32, 3), 10)
    assert model.get_layer("conv2").input.shape == (None, 8, 8, 4)
    model = build_base(replace(base, pooled=False), (32, 32, 3), 10)
    assert model.get_layer("conv2").input.shape == (None, 16, 16, 4)


def test_two_strides_in_a_pair_are_those_of_its_shortcut() -> None:
    model = build_base(Base(((16, 3),) * 3, strided=(1, 2)), (8, 8, 1), 3)
    assert model.get_layer("shortcut2").strides == (4, 4)
    assert model.get_layer("add3").output.shape == (None, 2, 2, 16)


def test_widths_and_sizes_may_differ() -> None:
    model = build_base(Base(((4, 5), (6, 3), (8, 1)), strided=(1,)), (8, 8, 1), 3)
    shapes = {name: tuple(x.kernel.shape) for name, x in convolutions(model).items()}
    assert shapes == {
        "conv1": (5, 5, 1, 4),
        "conv2": (3, 3, 4, 6),
        "conv3": (1, 1, 6, 8),
        "shortcut2": (1, 1, 4, 8),
    }
    assert model.get_layer("add3").output.shape == (None, 4, 4, 8)


@pytest.mark.parametrize("spec", ["(8,3)x3", "(8,1,2)", "(8,3)x2,(8,1,2) plain norm=before"])
def test_no_narrow_convolution_of_size_1_has_strides(spec: str) -> None:
    model = models.build(spec, (9, 9, 3), 4)
    assert not overflowing(model)
    (places,) = [x for x in model.layers if isinstance(x, L.AveragePooling2D)]
    strided = model.get_layer(places.name.removesuffix("_places"))
    images = np.random.default_rng(0).normal(size=(2, *places.input.shape[1:])).astype("float32")
    expected = keras.ops.conv(images, strided.kernel, strides=2, padding="same")
    np.testing.assert_allclose(strided(places(images)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spec", [*SEVEN, "cifar10-resnet20", "(16,3)x3"])
def test_wide_convolutions_keep_their_strides(spec: str) -> None:
    model = models.build(spec)
    assert not [x for x in model.layers if isinstance(x, L.AveragePooling2D)]
    assert ("shortcut" in str([x.name for x in model.layers])) == ("plain" not in spec)


TRAINING = """
import keras, numpy as np
from keras_structsparse import models
model = models.build("(8,3)x3", (28, 28, 1))
model.compile("sgd", "sparse_categorical_crossentropy")
model.fit(np.ones((500, 28, 28, 1)), np.zeros(500), batch_size=125, epochs=6, verbose=0)
"""


def test_a_narrow_residual_network_survives_its_training() -> None:
    """With a strided shortcut it crashes where oneDNN writes past its memory."""
    # One thread, as the other tests have, survives.
    several = {name: value for name, value in os.environ.items() if "NUM" not in name}
    command = [sys.executable, "-c", TRAINING]
    done = subprocess.run(command, capture_output=True, check=False, env=several)
    assert done.returncode == 0, done.stderr[-2000:]
