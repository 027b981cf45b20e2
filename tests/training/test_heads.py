"""Which networks get a new head, what it is, and what a classifier is compiled with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_structsparse.errors import ModelError
from keras_structsparse.training.heads import needs_head, ready_to_shrink, with_head

IMAGES = np.random.default_rng(0).random((4, 8, 8, 3), "float32")


def network(*last: kl.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((8, 8, 3)), kl.Conv2D(4, 3, name="conv"), *last])


def dense(units: int, activation: str | None = "softmax") -> Sequence[kl.Layer]:
    return kl.GlobalAveragePooling2D(), kl.Dense(units, activation=activation, name="old")


@pytest.mark.parametrize(
    ("last", "classes", "head", "expected"),
    [
        ((), 4, "auto", True),  # maps
        (dense(1000), 3, "auto", True),
        (dense(3), 3, "auto", False),
        (dense(3), 3, "new", True),
        (dense(1, "sigmoid"), 2, "auto", False),
        (dense(1, "sigmoid"), 3, "auto", True),
        (dense(3), 3, "none", False),
    ],
)
def test_a_head_that_does_not_fit_is_new(
    last: Sequence[kl.Layer], classes: int, head: str, expected: bool
) -> None:
    assert needs_head(network(*last), classes, head) is expected


def test_without_a_fitting_head_none_is_refused() -> None:
    with pytest.raises(ModelError, match=r"MODEL x: expected an output of shape \(3,\)"):
        needs_head(network(), 3, "none", "MODEL x")


def test_two_outputs_are_refused() -> None:
    inputs = keras.Input((4,))
    with pytest.raises(ModelError, match=r"one output\. Received: 2"):
        needs_head(keras.Model(inputs, [kl.Dense(2)(inputs), kl.Dense(2)(inputs)]), 2)


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(ValueError, match=r"head: expected one of .*Received: 'old'"):
        needs_head(network(), 3, "old")


def test_the_head_reads_what_the_old_one_read() -> None:
    """The control: an activation behind the old dense layer is left out with it."""
    for last in (dense(1000), (*dense(7, None), kl.Dropout(0.1), kl.Softmax())):
        found = with_head(network(*last), 3)
        names = [layer.name for layer in found.layers]
        assert "old" not in names
        assert found.output_shape == (None, 3)
        np.testing.assert_allclose(np.sum(found(IMAGES), axis=-1), 1.0, atol=1e-5)


def test_features_without_a_dense_layer_are_read_as_they_are() -> None:
    found = with_head(network(kl.GlobalMaxPooling2D(name="pool")), 3)
    assert found.layers[-2].name == "pool"


def test_outputs_with_too_many_axes_are_refused() -> None:
    with pytest.raises(ModelError, match="expected maps or vectors"):
        with_head(network(kl.Reshape((2, 2, 3, 3, 4))), 3)


@pytest.mark.parametrize(
    ("units", "activation", "loss", "logits"),
    [
        (3, "softmax", "sparse_categorical_crossentropy", False),
        (3, None, "sparse_categorical_crossentropy", True),
        (1, "sigmoid", "binary_crossentropy", False),
    ],
)
def test_an_uncompiled_classifier_is_compiled(
    units: int, activation: str | None, loss: str, logits: bool
) -> None:
    model = network(*dense(units, activation))
    assert ready_to_shrink(model, IMAGES) == loss
    assert model.loss.from_logits is logits
    found = model.evaluate(IMAGES, np.array([0, 1, 1, 0]), verbose=0, return_dict=True)
    assert found.keys() == {"loss", "accuracy"}


@keras.saving.register_keras_serializable("tests")
def mean_of_outputs(y: Any, found: Any) -> Any:
    return keras.ops.mean(found)


@pytest.mark.parametrize(
    ("loss", "metrics", "kept"),
    [
        ("sparse_categorical_crossentropy", ["accuracy"], True),
        ("sparse_categorical_crossentropy", None, True),
        (keras.losses.SparseCategoricalCrossentropy(), ["accuracy"], True),
        (mean_of_outputs, ["accuracy"], True),
        ("categorical_crossentropy", ["accuracy"], False),
        (keras.losses.MeanSquaredError(), None, False),
    ],
)
def test_a_loss_that_takes_class_numbers_is_kept(loss: Any, metrics: Any, kept: bool) -> None:
    model = network(*dense(3))
    model.compile("adam", loss, metrics=metrics)
    assert (ready_to_shrink(model, IMAGES) == "") is kept
    if kept:
        assert model.loss is loss or type(model.loss) is type(loss)
    if loss is not mean_of_outputs:
        found = model.evaluate(IMAGES, np.array([0, 1, 2, 0]), verbose=0, return_dict=True)
        assert "accuracy" in found


def test_other_images_are_refused() -> None:
    with pytest.raises(ModelError, match=r"MODEL x: expected an input of shape \(9, 9, 3\)"):
        ready_to_shrink(network(*dense(3)), np.zeros((2, 9, 9, 3)), "MODEL x", "photos")
