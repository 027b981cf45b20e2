"""What the loss would lose without groups, against differences of the loss."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import randomize, use_float64
from helpers_saliency import EXACT, TOLERANCE, brute, small
from helpers_shrinking import Batches
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.group_prices import joint_kernels
from keras_structsparse.training import measured_saliency
from keras_structsparse.training.grouped_kernels import grouped_kernels
from keras_structsparse.training.measured_saliency import InferenceMode, Measurement
from keras_structsparse.training.training_data import TrainingData

Array = Any
RNG = np.random.default_rng(5)
X = RNG.normal(size=(8, 4, 4, 2)).astype("float32")
CLASSES = RNG.integers(0, 3, 8)
VALUES = RNG.random((8, 1)).astype("float32")
WEIGHTS = RNG.random(8).astype("float32")

cross_entropy = keras.losses.SparseCategoricalCrossentropy(dtype="float64")


def entropy_of(out: Any, y: Array, weights: Array | float = 1.0) -> float:
    """The cross-entropy in float64: the losses of JAX and torch are float32."""
    found = keras.ops.convert_to_numpy(out)
    return float((-np.log(found[np.arange(len(y)), y]) * weights).mean())


def squares_of(out: Any, y: Array, weights: Array | float = 1.0) -> float:
    """The mean squared error in float64."""
    return float((np.square(keras.ops.convert_to_numpy(out) - y).mean(axis=-1) * weights).mean())


def halves(*arrays: Array) -> list[tuple[Array, ...]]:
    return [tuple(array[i::2] for array in arrays) for i in (0, 1)]


def assert_near(found: kss.Saliency, expected: tuple[dict[str, Array], dict[str, Array]]) -> None:
    for own, theirs in zip((found.first, found.second), expected, strict=True):
        assert list(own) == list(theirs) == ["a", "up", "b"]
        for name, array in own.items():
            assert array.shape == theirs[name].shape
            scale = theirs[name].max()
            assert scale > 1e-5
            np.testing.assert_allclose(array, theirs[name], atol=TOLERANCE * scale)
            assert np.abs(array - theirs[name][:, ::-1]).max() > 0.02 * scale  # the control


@pytest.mark.parametrize("groups", ["half_ring", "ring", "kernel"])
def test_it_is_the_slope_of_the_loss_in_inference_mode(groups: str) -> None:
    use_float64()
    model = small()
    batches = halves(X, CLASSES)
    found = kss.saliency(model, Batches(batches), cross_entropy, groups=groups, batches=9)
    expected = brute(model, batches, entropy_of, groups)
    assert_near(found, expected)
    assert found.groups == groups


def test_arrays_are_measured_in_batches() -> None:
    use_float64()
    model = small("value")
    whole = kss.saliency(model, (X, VALUES), "mse", batch_size=8)
    assert_near(whole, brute(model, [(X, VALUES)], squares_of))
    parts = kss.saliency(model, (X, VALUES), "mse", batch_size=3)
    assert not np.allclose(parts.first["b"], whole.first["b"], rtol=1e-3)
    one = kss.saliency(model, (X, VALUES), "mse", batch_size=3, batches=1)
    assert not np.allclose(parts.first["b"], one.first["b"], rtol=1e-3)


def test_sample_weights_and_loss_weights_count() -> None:
    use_float64()
    model = small("both")
    model.compile("sgd", [cross_entropy, "mse"], loss_weights=[0.5, 3.0])
    batches = [(x, (y, v), (w, w)) for x, y, v, w in halves(X, CLASSES, VALUES, WEIGHTS)]

    def loss(out: Any, y: Any, w: Any) -> Any:
        return 0.5 * entropy_of(out[0], y[0], w[0]) + 3.0 * squares_of(out[1], y[1], w[1])

    found = kss.saliency(model, Batches(batches))
    assert_near(found, brute(model, batches, loss))
    given = kss.saliency(model, Batches(batches), [cross_entropy, "mse"])
    assert not np.allclose(given.first["b"], found.first["b"], rtol=1e-2)


def test_all_kinds_of_data_give_the_same() -> None:
    model = small()
    model.compile("sgd", cross_entropy)
    found = [kss.saliency(model, data, batch_size=8) for data in (_kinds(X, CLASSES))]
    for each in found[1:]:
        for name, own in found[0].first.items():
            np.testing.assert_allclose(each.first[name], own, rtol=1e-4, atol=1e-7)
    other = kss.saliency(model, (X, (CLASSES + 1) % 3), batch_size=8)
    assert not np.allclose(other.first["b"], found[0].first["b"], rtol=1e-2)


def _kinds(x: Any, y: Any) -> list[Any]:
    kinds: list[Any] = [(x, y), [x, y], Batches([(x, y)])]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        kinds.append(tf.data.Dataset.from_tensor_slices((x, y)).batch(8))
    return kinds


def test_inputs_may_be_named() -> None:
    image, number = keras.Input((4, 4, 2), name="image"), keras.Input((2,), name="number")
    x = L.GlobalAveragePooling2D()(L.Conv2D(3, 3, name="a")(image))
    x = L.Dense(4, activation="tanh", name="b")(L.Concatenate()([x, number]))
    model = keras.Model({"image": image, "number": number}, L.Dense(1)(x))
    inputs = {"image": X, "number": X[:, 0, 0]}
    found = [kss.saliency(model, data, "mse", batch_size=8) for data in _kinds(inputs, VALUES)]
    assert {name: own.shape for name, own in found[0].second.items()} == {"a": (3, 3), "b": (1, 4)}
    for each in found[1:]:
        np.testing.assert_allclose(each.first["a"], found[0].first["a"], rtol=1e-4, atol=1e-7)


def test_frozen_kernels_and_outputs_are_left_out() -> None:
    model = small("both")
    model.get_layer("a").trainable = False
    found = kss.saliency(model, (X, (CLASSES, VALUES)), [cross_entropy, "mse"])
    assert list(found.first) == list(found.second) == ["up", "b"]


def test_the_model_is_not_changed() -> None:
    model = small()
    model.compile(keras.optimizers.Adam(0.1), cross_entropy, metrics=["accuracy"])
    model.fit(X, CLASSES, epochs=1, verbose=0)
    kept = (model.optimizer, model.loss, model.train_function, model.trainable)
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]

    def state() -> list[Array]:
        return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]

    before = state()
    kss.saliency(model, (X, CLASSES))
    assert all(
        each is old
        for each, old in zip(
            (model.optimizer, model.loss, model.train_function), kept, strict=False
        )
    )
    for own, old in zip(state(), before, strict=True):
        np.testing.assert_array_equal(own, old)
    model.fit(X, CLASSES, epochs=1, verbose=0)
    pairs = zip(state(), before, strict=True)
    assert sum(not np.array_equal(own, old) for own, old in pairs) > 10  # the control


def bad(**changes: Any) -> dict[str, Any]:
    return {"model": small(), "data": (X, CLASSES), "loss": cross_entropy, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": None}, "loss: expected a loss, or a compiled model"),
        ({"data": 3}, "train: expected arrays"),
        ({"data": (X, CLASSES[1:])}, "train: expected as many inputs as labels"),
        ({"groups": "rings"}, "groups: expected one of"),
        ({"batches": 0}, "batches: expected a whole number >= 1"),
        ({"batch_size": 0}, "batch_size: expected a whole number >= 1"),
        ({"batch_size": 2.5}, "batch_size: expected a whole number >= 1"),
    ],
)
def test_errors_name_the_argument(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kss.saliency(**bad(**changes))


def test_a_network_without_inner_layers_is_refused() -> None:
    model = keras.Sequential([keras.Input((4, 4, 2)), L.Flatten(), L.Dense(3)], name="net")
    with pytest.raises(kss.ModelError, match=r"'net': expected trainable convolutions"):
        kss.saliency(model, (X, CLASSES), cross_entropy)


def spearman(left: Array, right: Array) -> float:
    first, second = (np.argsort(np.argsort(each)) for each in (left, right))
    return float(np.corrcoef(first, second)[0, 1])


def trained_on_digits() -> tuple[keras.Model, Array, Array]:
    """Two layers with normalisations and one without."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = data.images[:900, :, :, None].astype("float32") / 16, data.target[:900]
    stack = []
    for name, width in (("a", 8), ("b", 12)):
        stack += [L.Conv2D(width, 3, padding="same", use_bias=False, name=name)]
        stack += [L.BatchNormalization(momentum=0.8), L.ReLU()]
    top = [L.MaxPooling2D(4), L.Flatten(), L.Dense(24, activation="relu", name="c")]
    top += [L.Dense(10, activation="softmax")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *stack, *top])
    model.compile(keras.optimizers.Adam(0.01), cross_entropy)
    model.fit(x, y, epochs=6, batch_size=32, verbose=0)
    return model, x, y


def changes_of_the_loss(model: keras.Model, x: Array, y: Array) -> Array:
    """How much the loss changes without each kernel."""
    found = []
    base = float(cross_entropy(y, model(x, training=False)))
    for name in ("a", "b", "c"):
        kernel = model.get_layer(name).kernel
        value = np.array(keras.ops.convert_to_numpy(kernel))
        for index in range(value.shape[-1]):
            without = value.copy()
            without[..., index] = 0
            kernel.assign(without)
            found.append(float(cross_entropy(y, model(x, training=False))) - base)
        kernel.assign(value)
    return np.array(found)


class TrainingMode(InferenceMode):
    """The control: normalisation by the statistics of the batch."""

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        return super(InferenceMode, self).call(inputs, training=True)


@pytest.mark.skipif(not EXACT, reason="slow, and the same on every backend")
def test_it_ranks_removals_and_training_mode_hides_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = trained_on_digits()
    true = changes_of_the_loss(model, x, y)

    def measured() -> Array:
        found = kss.saliency(model, (x, y), groups="kernel")
        return np.concatenate([own.ravel() for own in found.second.values()])

    good = measured()
    assert spearman(good, true) > 0.4
    monkeypatch.setattr(measured_saliency, "InferenceMode", TrainingMode)
    bad = measured()
    normed = slice(0, 20)  # the layers that a normalisation follows
    assert np.median(good[normed]) > 0.05 * np.median(true[normed]) > 100 * np.median(bad[normed])


def test_kernels_that_write_one_channel_are_measured_together() -> None:
    """Where one computes the negative of the other, both together change nothing."""
    inputs = keras.Input((4, 4, 2))
    first, second = (L.Conv2D(3, 3, padding="same", name=name)(inputs) for name in "ab")
    x = L.Conv2D(2, 1, activation="relu", name="c")(L.Add()([first, second]))
    model = randomize(keras.Model(inputs, L.Dense(1, name="head")(L.GlobalAveragePooling2D()(x))))
    a, b = (model.get_layer(name).kernel for name in "ab")
    own, other = map(keras.ops.convert_to_numpy, (a, b))
    b.assign(np.concatenate([-own[..., :1], other[..., 1:]], axis=-1))
    found = PrunableLayers.of(model)
    kernels = grouped_kernels(found, ["a", "b"], "kernel")
    joint = joint_kernels(found, kernels)
    measure = Measurement(model, kernels, {"loss": "mse"}, joint=joint)
    data = TrainingData.of((X, VALUES), 8)
    measured = measure.on(data, 1, 8, "kernel", np.random.default_rng(0))
    alone = [measured.saliency.second[name][0] for name in "ab"]
    assert joint == tuple((("a", j), ("b", j)) for j in range(3))
    assert measured.joint[0] < 1e-6 * alone[0][0]
    # In one batch the changes add up, with their signs.
    roots = [np.sqrt(own[1:]) for own in alone]
    either = np.square(roots[0] + roots[1]), np.square(roots[0] - roots[1])
    near = [np.isclose(measured.joint[1:], own, rtol=1e-3) for own in either]
    assert np.logical_or(*near).all()
    again = measure.on(data, 1, 8, "kernel", np.random.default_rng(0))
    np.testing.assert_allclose(again.joint, measured.joint, rtol=1e-5, atol=1e-12)
