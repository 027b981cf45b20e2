"""Layers that act in training only are left out of networks for inference."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import chain, random_batch
from keras import layers as L

from keras_structsparse.graph.training_only import TRAINING_ONLY, without_training_layers

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "RandomTranslation": (0.1, 0.1),
    "RandomPosterization": (4,),
    **dict.fromkeys(("RandomRotation", "RandomZoom", "RandomBrightness", "RandomContrast"), (0.1,)),
    **dict.fromkeys(("RandomHue", "RandomSaturation", "RandomSharpness"), (0.1,)),
    **dict.fromkeys(("Dropout", "SpatialDropout2D", "AlphaDropout", "GaussianDropout"), (0.1,)),
    **dict.fromkeys(("GaussianNoise", "RandomColorDegeneration"), (0.1,)),
}
KINDS = sorted(k.__name__ for k in TRAINING_ONLY if k.__name__[-2:] not in ("1D", "3D"))


def outputs(model: keras.Model, x: Any) -> Any:
    return keras.ops.convert_to_numpy(model(x, training=False))


@pytest.mark.parametrize("name", KINDS)
def test_each_returns_its_input_and_is_left_out(name: str) -> None:
    layer = getattr(L, name)(*ARGUMENTS.get(name, ()), name="gone")
    x = np.random.default_rng(0).uniform(0, 1, (2, 8, 8, 3)).astype("float32")
    assert np.array_equal(keras.ops.convert_to_numpy(layer(x, training=False)), x)
    model = chain(layer, L.Conv2D(2, 3), L.Flatten(), L.Dense(2), shape=(8, 8, 3))
    found, names = without_training_layers(model)
    assert names == ("gone",)
    assert type(layer) not in {type(own) for own in found.layers}
    assert np.allclose(outputs(found, x), outputs(model, x))
    # Without training=False many augment: the network for inference does not.
    assert np.allclose(keras.ops.convert_to_numpy(found(x)), outputs(model, x))


def test_nothing_else_changes() -> None:
    model = chain(L.Conv2D(2, 3), L.BatchNormalization(), L.RandomCrop(5, 5), L.Flatten())
    assert without_training_layers(model) == (model, ())


def test_dropout_that_acts_in_inference_is_kept() -> None:
    i = keras.Input((6,))
    model = keras.Model(i, L.Dense(2)(L.Dropout(0.5)(i, training=True)))
    assert without_training_layers(model) == (model, ())


def test_images_of_whole_numbers_become_numbers_of_the_layer() -> None:
    i = keras.Input((8, 8, 3), dtype="uint8")
    model = keras.Model(i, L.Conv2D(2, 3)(L.RandomFlip()(i)))
    found, names = without_training_layers(model)
    x = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3)).astype("uint8")
    assert len(names) == 1
    assert np.allclose(outputs(found, x), outputs(model, x))


def test_in_nested_models_and_with_shared_layers() -> None:
    noise = L.GaussianNoise(0.1, name="noise")
    inner = keras.Sequential([keras.Input((6,)), L.Dropout(0.1), noise, L.Dense(4)], name="inner")
    i, j = keras.Input((6,)), keras.Input((6,))
    model = keras.Model([i, j], L.Add()([inner(noise(i)), inner(j)]))
    found, names = without_training_layers(model)
    assert len(names) == 2
    x = random_batch(model)
    assert np.allclose(outputs(found, x), outputs(model, x))
