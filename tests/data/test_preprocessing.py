"""Preprocessings are those of keras.applications."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest

from keras_structsparse.data.preprocessing import FAMILIES, PREPROCESSINGS, preprocessing
from keras_structsparse.errors import DatasetError

IMAGES = np.random.default_rng(0).uniform(size=(2, 4, 4, 3)).astype("float32")


@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_those_of_keras(family: str) -> None:
    module = importlib.import_module(f"keras.applications.{family}")
    expected = module.preprocess_input(255 * IMAGES)
    np.testing.assert_allclose(preprocessing(family)(IMAGES), expected, rtol=1e-4, atol=1e-3)


def test_all_families_are_known() -> None:
    applications = vars(keras.applications).values()
    modules = [each for each in applications if hasattr(each, "preprocess_input")]
    known = {each.__name__.rpartition(".")[2] for each in modules}
    assert known - {"imagenet_utils", "resnet50"} <= FAMILIES.keys()


def test_every_name_changes_images_in_its_own_way() -> None:
    made = [np.asarray(preprocessing(name)(IMAGES)).tobytes() for name in PREPROCESSINGS]
    assert len(set(made)) == len(made)


def test_unknown_names_and_grey_images_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"preprocess: expected one of .* Received: 'tf'"):
        preprocessing("tf")
    for name in ("caffe", "torch"):
        with pytest.raises(DatasetError, match=r"three channels.*received 1"):
            preprocessing(name)(IMAGES[..., :1])
    assert preprocessing("-1..1")(IMAGES[..., :1]).shape == (2, 4, 4, 1)
