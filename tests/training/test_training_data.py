"""What can be trained on: arrays, data sets of TensorFlow and of Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from keras_structsparse._typing import Array
from keras_structsparse.regularizers import KernelSize
from keras_structsparse.training.callbacks.alpha_ramp import AlphaRamp
from keras_structsparse.training.fit import compile_for, fit, fit_and_shrink
from keras_structsparse.training.recipes import Recipe, Shrinking
from keras_structsparse.training.training_data import TrainingData

tf = pytest.importorskip("tensorflow")

RECIPE = Recipe(epochs=3, batch_size=8, ramp=0.5)
LABELS = np.arange(20) % 2
IMAGES = np.random.default_rng(0).normal(size=(20, 6, 6, 1)).astype("float32")
IMAGES += 3.0 * LABELS[:, None, None, None]


class Batches(keras.utils.PyDataset):
    """The examples in order, some at a time."""

    def __init__(self, batch_size: int = 8, count: int | None = 3) -> None:
        super().__init__()
        self.batch_size, self.count = batch_size, count

    @property
    def num_batches(self) -> int | None:
        """None for a data set without end."""
        return self.count

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        place = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return IMAGES[place], LABELS[place]


def stream(batch_size: int = 8) -> Any:
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(batch_size)


KINDS: dict[str, Callable[[], Any]] = {
    "arrays": lambda: (IMAGES, LABELS),
    "tf.data": stream,
    "PyDataset": Batches,
}


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(6, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm")(x))
    x = keras.layers.Dense(2, "softmax", name="head")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    compile_for(model, RECIPE, len(LABELS), KernelSize(0.05))
    return model


def trained(data: Any, shrink: bool) -> list[Array]:
    model = network()
    if shrink:
        found = fit_and_shrink(
            model, data, RECIPE, Shrinking(1, always=True), validation=data, shuffle=False
        )
        return list(found.model.get_weights())
    history = fit(model, data, RECIPE, validation=data, shuffle=False)
    assert len(history["val_accuracy"]) == RECIPE.epochs
    return list(model.get_weights())


@pytest.mark.parametrize("shrink", [False, True])
def test_the_same_data_of_every_kind_give_the_same_weights(shrink: bool) -> None:
    arrays, *others = (trained(make(), shrink) for make in KINDS.values())
    for weights in others:
        for mine, theirs in zip(arrays, weights, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    control = trained((IMAGES[::-1], LABELS[::-1]), shrink)
    assert [w.shape for w in control] != [w.shape for w in arrays] or not all(
        np.allclose(mine, theirs, atol=1e-4) for mine, theirs in zip(arrays, control, strict=True)
    ), "the control: other data give other weights"


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_read_off_the_data(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the ramp lasts as long as the recipe says."""
    assert TrainingData.of(KINDS[kind](), 8).steps == 3
    steps: list[int] = []
    start = AlphaRamp.__init__

    def noted(self: AlphaRamp, alphas: Any, length: int) -> None:
        steps.append(length)
        start(self, alphas, length)

    monkeypatch.setattr(AlphaRamp, "__init__", noted)
    fit(network(), KINDS[kind](), RECIPE)
    assert steps == [round(0.5 * 3 * 3)]


def test_the_batches_of_a_data_set_are_its_own() -> None:
    assert TrainingData.of(stream(4), 8).steps == 5
    assert TrainingData.of(Batches(4, 5), 8).steps == 5


@pytest.mark.parametrize(
    ("data", "received"),
    [
        (lambda: stream().repeat(), "infinitely many batches"),
        (lambda: stream().filter(lambda x, y: True), "an unknown number of batches"),
        (lambda: stream().take(0), "no batches"),
        (lambda: Batches(count=None), "infinitely many batches"),
        (lambda: iter([(IMAGES, LABELS)]), "list_iterator"),
        (lambda: (IMAGES,), "tuple"),
        (lambda: (IMAGES, None), "NoneType"),
        (lambda: (IMAGES, LABELS.tolist()), "list"),
        (lambda: (IMAGES[:0], LABELS[:0]), r"\[0\] inputs and \[0\] labels"),
        (lambda: (IMAGES[:7], LABELS), r"\[7\] inputs and \[20\] labels"),
    ],
)
@pytest.mark.parametrize("shrink", [False, True])
def test_data_without_a_number_of_steps_are_refused(data: Any, received: str, shrink: bool) -> None:
    with pytest.raises(ValueError, match=f"train: expected .* Received: {received}"):
        trained(data(), shrink)


def epochs_of(data: TrainingData, count: int) -> list[list[tuple[Array, ...]]]:
    """The batches of some epochs."""
    found = []
    for _ in range(count):
        found.append([data.x[index] for index in range(len(data.x))])
        data.x.on_epoch_end()
    return found


def test_batches_depend_on_the_seed_and_the_epoch_alone() -> None:
    data = TrainingData.of(({"image": IMAGES.astype("float64")}, LABELS), 8)
    whole = epochs_of(data.in_order(8, 5, 0), 3)
    for batches in whole:
        assert [len(y) for _, y in batches] == [8, 8, 4]
        images = np.concatenate([x["image"] for x, _ in batches])
        assert images.dtype == keras.config.floatx()  # As Keras casts arrays.
        np.testing.assert_array_equal(np.sort(images.ravel()), np.sort(IMAGES.ravel()))
    labels = [[y.tolist() for _, y in batches] for batches in whole]
    continued = epochs_of(data.in_order(8, 5, 1), 2)
    assert [[y.tolist() for _, y in batches] for batches in continued] == labels[1:]
    assert labels[0] != labels[1]
    other = epochs_of(data.in_order(8, 6, 0), 1)
    assert [y.tolist() for _, y in other[0]] != labels[0]
    for kind in ("tf.data", "PyDataset"):
        own = TrainingData.of(KINDS[kind](), 8)
        assert own.in_order(8, 5, 0) is own
