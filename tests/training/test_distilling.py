"""The loss of a network with a teacher, by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import randomize
from helpers_training import digest
from keras import layers as L

from keras_structsparse.training.distilling import TEMPERATURE, Distilling, distillation_loss

Array = Any
RNG = np.random.default_rng(7)
X = RNG.normal(size=(10, 4)).astype("float32")
CLASSES = RNG.integers(0, 3, 10)
ONE_HOT = np.eye(3, dtype="float32")[CLASSES]
VALUES = RNG.random((10, 3)).astype("float32")
WEIGHTS = RNG.random(10).astype("float32")


def network(seed: int, activation: str | None, **options: Any) -> keras.Model:
    inputs = keras.Input((4,))
    x = L.Dense(5, activation="relu", name="hidden", **options)(inputs)
    outputs = L.Dense(3, activation=activation, name="out")(x)
    return randomize(keras.Model(inputs, outputs, name="net"), seed)


def distilling(
    weight: float, activation: str | None, loss: Any, rate: float = 0.0, **options: Any
) -> Distilling:
    student, teacher = (network(seed, activation, **options) for seed in (1, 2))
    model = Distilling(student, teacher, weight)
    # One step is faster than the compilation of one.
    model.compile(optimizer=keras.optimizers.SGD(rate), loss=loss, run_eagerly=rate == 0)
    return model


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def divergence(teacher: Array, student: Array) -> float:
    """Kullback-Leibler at the temperature; both are logits or logarithms of probabilities."""
    p, q = softmax(teacher / TEMPERATURE), softmax(student / TEMPERATURE)
    return float(TEMPERATURE**2 * (p * np.log(p / q)).sum(-1).mean())


def outputs(model: Distilling) -> tuple[Array, Array]:
    """The outputs of the teacher and of the student."""
    found = (keras.ops.convert_to_numpy(f(X, training=False)) for f in (model.teacher, model))
    teacher, student = (np.asarray(each, np.float64) for each in found)
    return teacher, student


def cross_entropy(p: Array, weights: Array | float = 1.0) -> float:
    return float((-np.log(p[np.arange(10), CLASSES]) * weights).mean())


def binary(targets: Array, p: Array) -> float:
    return float(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean())


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def logs(p: Array) -> Array:
    return np.log(p)


SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
HAND: Mapping[str, tuple[Any, str | None, Array, Callable[[Array, Array], tuple[float, float]]]] = {
    "sparse": (
        "sparse_categorical_crossentropy",
        "softmax",
        CLASSES,
        lambda t, s: (cross_entropy(s), divergence(logs(t), logs(s))),
    ),
    "categorical": (
        keras.losses.CategoricalCrossentropy(),
        "softmax",
        ONE_HOT,
        lambda t, s: (cross_entropy(s), divergence(logs(t), logs(s))),
    ),
    "function": (
        keras.losses.categorical_crossentropy,
        "softmax",
        ONE_HOT,
        lambda t, s: (cross_entropy(s), divergence(logs(t), logs(s))),
    ),
    "sparse logits": (
        SPARSE,
        None,
        CLASSES,
        lambda t, s: (cross_entropy(softmax(s)), divergence(t, s)),
    ),
    "categorical logits": (
        keras.losses.CategoricalCrossentropy(from_logits=True),
        None,
        ONE_HOT,
        lambda t, s: (cross_entropy(softmax(s)), divergence(t, s)),
    ),
    "squares": (
        "mse",
        None,
        VALUES,
        lambda t, s: (np.square(VALUES - s).mean(), np.square(t - s).mean()),
    ),
    "binary": (
        "binary_crossentropy",
        "sigmoid",
        ONE_HOT,
        lambda t, s: (binary(ONE_HOT, s), binary(t, s)),
    ),
    "binary logits": (
        keras.losses.BinaryCrossentropy(from_logits=True),
        None,
        ONE_HOT,
        lambda t, s: (binary(ONE_HOT, sigmoid(s)), binary(sigmoid(t), sigmoid(s))),
    ),
}


@pytest.mark.parametrize("name", HAND)
def test_the_loss_is_the_sum_of_both_parts(name: str) -> None:
    loss, activation, targets, by_hand = HAND[name]
    found = {}
    for weight in (0.0, 0.3, 1.0):
        model = distilling(weight, activation, loss)
        data, distance = by_hand(*outputs(model))
        found[weight] = float(model.train_on_batch(X, targets))
        assert found[weight] == pytest.approx((1 - weight) * data + weight * distance, rel=2e-5)
        evaluated = model.evaluate(X, targets, verbose=0)
        assert evaluated == pytest.approx(data, rel=2e-5)  # the data's alone
    assert abs(found[0.0] - found[1.0]) > 0.01  # The parts are not the same.


def test_regularizers_and_activity_losses_are_not_scaled() -> None:
    options = {
        "kernel_regularizer": keras.regularizers.L2(0.1),
        "activity_regularizer": keras.regularizers.L1(0.01),
    }
    for _ in range(2):
        model = distilling(0.6, "softmax", "sparse_categorical_crossentropy", **options)
        teacher, student = outputs(model)
        hidden = keras.Model(model.inputs[0], model.get_layer("hidden").output)(X)
        kernel = keras.ops.convert_to_numpy(model.get_layer("hidden").kernel)
        activity = np.abs(keras.ops.convert_to_numpy(hidden)).sum(-1).mean()
        added = 0.1 * np.square(kernel).sum() + 0.01 * activity
        parts = cross_entropy(student), divergence(logs(teacher), logs(student))
        expected = 0.4 * parts[0] + 0.6 * parts[1] + added
        for _ in range(3):  # Nothing of the teacher's is added, nor of the batch before.
            assert float(model.train_on_batch(X, CLASSES)) == pytest.approx(expected, rel=2e-5)
        assert abs(0.4 * added + 0.4 * parts[0] + 0.6 * parts[1] - expected) > 0.1


@pytest.mark.parametrize("kind", ["sample", "class"])
def test_the_data_have_their_weights_and_the_teacher_has_none(kind: str) -> None:
    model = distilling(0.25, "softmax", "sparse_categorical_crossentropy")
    teacher, student = outputs(model)
    by_class = {0: 0.5, 1: 2.0, 2: 1.0}
    weights = WEIGHTS if kind == "sample" else np.array([by_class[c] for c in CLASSES])
    given = {"sample_weight": weights} if kind == "sample" else {"class_weight": by_class}
    data = cross_entropy(student, weights)
    expected = 0.75 * data + 0.25 * divergence(logs(teacher), logs(student))
    assert float(model.train_on_batch(X, CLASSES, **given)) == pytest.approx(expected, rel=2e-5)
    assert float(model.train_on_batch(X, CLASSES)) != pytest.approx(expected, rel=1e-3)


def two_headed(seed: int, kind: str) -> keras.Model:
    inputs = keras.Input((4,))
    x = L.Dense(5, activation="relu")(inputs)
    classes = L.Dense(3, activation="softmax", name="z")(x)
    values = L.Dense(2, name="a")(x)
    found = {"list": [classes, values], "dict": {"z": classes, "a": values}}
    return randomize(keras.Model(inputs, found[kind]), seed)


CROSS = "sparse_categorical_crossentropy"
TWO: Mapping[str, tuple[str, Any, Any, tuple[float, float]]] = {
    "list": ("list", [CROSS, "mse"], None, (1, 1)),
    "by name": ("list", {"a": "mse", "z": CROSS}, None, (1, 1)),
    "weighted": ("list", [CROSS, "mse"], [2.0, 0.01], (2, 0.01)),
    "by name, weighted": ("dict", {"a": "mse", "z": CROSS}, {"a": 0.01, "z": 2.0}, (2, 0.01)),
    "dict": ("dict", {"z": CROSS, "a": "mse"}, None, (1, 1)),
    "one without a loss": ("list", [CROSS, None], None, (1, 0)),
    "the other without": ("dict", {"z": None, "a": "mse"}, None, (0, 1)),
}


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
@pytest.mark.parametrize("name", TWO)
def test_every_output_has_a_loss_of_its_own(name: str) -> None:
    kind, loss, loss_weights, (first, second) = TWO[name]
    values = VALUES[:, :2]
    targets: Any = {"z": CLASSES, "a": values} if kind == "dict" else [CLASSES, values]
    model = Distilling(two_headed(1, kind), two_headed(2, kind), 0.4)
    model.compile(keras.optimizers.SGD(0.0), loss, loss_weights, run_eagerly=True)
    taught, own = (f(X, training=False) for f in (model.teacher, model))
    keys: Any = ("z", "a") if kind == "dict" else (0, 1)
    t, s = (
        [keras.ops.convert_to_numpy(found[key]).astype(np.float64) for key in keys]
        for found in (taught, own)
    )
    data = first * cross_entropy(s[0]) + second * np.square(s[1] - values).mean()
    distance = first * divergence(logs(t[0]), logs(s[0])) + second * np.square(s[1] - t[1]).mean()
    trained = model.train_on_batch(X, targets, return_dict=True)["loss"]
    assert float(trained) == pytest.approx(0.6 * data + 0.4 * distance, rel=2e-5)
    evaluated = model.evaluate(X, targets, verbose=0, return_dict=True)["loss"]
    assert evaluated == pytest.approx(data, rel=2e-5)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_without_weight_it_is_plain_training_bit_for_bit(weight: float) -> None:
    options = {"kernel_regularizer": keras.regularizers.L2(0.01)}
    trained = distilling(weight, "softmax", CROSS, rate=0.1, **options)
    alone = network(1, "softmax", **options)
    alone.compile(keras.optimizers.SGD(0.1), CROSS)
    for model in (trained, alone):
        keras.utils.set_random_seed(3)
        model.fit(X, CLASSES, epochs=3, batch_size=4, shuffle=False, verbose=0)
    student = keras.Model(trained.inputs[0], trained.outputs[0])
    assert (digest(student) == digest(alone)) == (weight == 0)


def test_the_teacher_is_not_changed_and_the_student_is() -> None:
    def build(seed: int) -> keras.Model:
        inputs = keras.Input((4,))
        x = L.Dropout(0.5)(L.BatchNormalization()(L.Dense(6)(inputs)))
        return randomize(keras.Model(inputs, L.Dense(3, activation="softmax")(x)), seed)

    student, teacher = build(1), build(2)
    model = Distilling(student, teacher, 0.5)
    model.compile(optimizer=keras.optimizers.AdamW(0.1), loss=CROSS)
    before = digest(student), digest(teacher)
    model.fit(X, CLASSES, epochs=2, batch_size=5, verbose=0)
    assert digest(teacher) == before[1]
    assert digest(student) != before[0]
    theirs = {id(v) for v in model.trainable_variables}
    assert theirs == {id(v) for v in student.trainable_variables}


def test_a_student_need_not_be_compiled() -> None:
    student, teacher = network(1, "softmax"), network(2, "softmax")
    assert not student.compiled
    model = Distilling(student, teacher, 1.0)
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss=CROSS)
    assert float(model.train_on_batch(X, CLASSES)) > 0.01
    assert not student.compiled


def test_which_distance_belongs_to_which_loss() -> None:
    names = {
        CROSS: "SoftTargets",
        "kl_divergence": "SameLoss",
        "huber": "SameLoss",
        "binary_focal_crossentropy": "SameLoss",
    }
    assert {name: type(distillation_loss(name)).__name__ for name in names} == names
    serialized = keras.losses.serialize(SPARSE)
    assert vars(distillation_loss(serialized))["from_logits"]
    focal = keras.losses.CategoricalFocalCrossentropy(from_logits=True)
    term = distillation_loss(focal)
    z = np.array([[0.0, 3.0, 1.0]], "float32")
    expected = float(focal(keras.ops.softmax(z), z))
    assert float(term.compute_loss(z, z)) == pytest.approx(expected)
    assert float(focal(z, z)) != pytest.approx(expected)
