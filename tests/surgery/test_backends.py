"""The invariant on every backend, with the channels first where the backend runs that.

A representative part of the tests of surgery, which run on TensorFlow: convolutions, streams and
gates, shared layers, and an optimizer that goes on.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_formats import BOTH, NETWORKS, PLANS, network
from helpers_models import assert_exact_surgery, assert_same_function, random_batch, use_float64
from keras import optimizers as O

from keras_structsparse import _keras_compat
from keras_structsparse.surgery import origins, prune
from keras_structsparse.surgery.plans import Plan, masked
from keras_structsparse.surgery.verification import verify
from keras_structsparse.training.optimizer_state import carry_optimizer

BACKEND = keras.backend.backend()
AXIS = -1 if BACKEND == "tensorflow" else 1
"""TensorFlow has no convolutions with the channels first on a CPU."""


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


# JAX compiles every operation for every shape.
@pytest.mark.parametrize("name", ["shared"] if BACKEND == "jax" else NETWORKS)
def test_pruned_equals_masked(name: str) -> None:
    model = network(NETWORKS[name], AXIS)
    # On torch a batch normalisation of Keras 3.15 rounds to float32, in a float64 model too.
    normed = any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)
    tolerance = 1e-6 if BACKEND == "torch" and normed else 1e-10
    pruned = assert_exact_surgery(model, PLANS[name], tolerance=tolerance)
    formats = {getattr(layer, "data_format", None) for layer in pruned.layers} - {None}
    assert formats == {"channels_last" if AXIS == -1 else "channels_first"}


def steps(model: keras.Model, count: int) -> list[Any]:
    images, labels = random_batch(model, samples=4), np.ones((4, 2))
    for _ in range(count):
        model.train_on_batch(images, labels)
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


def test_training_goes_on() -> None:
    """Where no constant goes into a bias, the next step is that of the whole network."""
    model, plan = network(NETWORKS["shared"], -1), Plan(BOTH)
    model.compile(O.SGD(0.02, momentum=0.9), "mse")
    before = steps(model, 2)
    pruned = carry_optimizer(model, prune(model, plan, realize="none"))
    reference = masked(model, plan)
    assert_same_function(reference, pruned, random_batch(model))
    for weight, value in zip(model.weights, reference.get_weights(), strict=True):
        weight.assign(value)
    whole, cut = steps(model, 1), steps(pruned, 1)
    assert max(np.abs(a - b).max() for a, b in zip(whole, before, strict=True)) > 1e-3
    found = [o for o in origins(model, pruned) if o is not None]
    assert len(found) == len(cut)
    for new, origin in zip(cut, found, strict=True):
        np.testing.assert_allclose(new, origin.of(whole[origin.weight]), atol=1e-10)


def test_dense_layers_are_verified_in_float64() -> None:
    """Keras computes products of float64 in float32 on these backends, unless it is told not to."""
    keras.utils.set_random_seed(0)
    stack = [keras.layers.Dense(12, "relu", name="a"), keras.layers.Dense(8, "relu", name="b")]
    model = keras.Sequential([keras.Input((9,)), *stack, keras.layers.Dense(3, "softmax")])
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    with _keras_compat.float64_kept():
        values = keras.ops.convert_to_tensor(rng.normal(size=(4, 4)), "float64")
        product = keras.ops.convert_to_numpy(keras.ops.matmul(values, values))
    values = keras.ops.convert_to_numpy(values)
    np.testing.assert_allclose(product, values @ values, rtol=1e-13)
    for _ in range(4):
        sizes = {name: rng.integers(0, 2, count).tolist() for name, count in (("a", 12), ("b", 8))}
        result = verify(model, Plan({n: [1, *s[1:]] for n, s in sizes.items()}))
        assert result.passed
        assert result.error < 1e-13 < result.control
