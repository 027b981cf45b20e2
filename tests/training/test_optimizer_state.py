"""Training goes on after surgery as it would have gone on before: the optimizer's state follows."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import Array, chain, randomize, use_float64
from keras import layers as L
from keras import optimizers as O

from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.regularizers import KernelSize
from keras_structsparse.regularizers.attachment import attach
from keras_structsparse.surgery import origins, prune
from keras_structsparse.surgery.plans import Plan, masks
from keras_structsparse.training.optimizer.proximal import Proximal
from keras_structsparse.training.optimizer_state import carry_optimizer

Optimizer = Any

KEPT = (0, 2, 3)
PLAN = Plan({"stem": [3, 0, 3, 3, 0], "branch": [3, 3, 0, 0, 0], "hidden": [1, 0, 1, 1]})


@pytest.fixture
def _float64() -> None:
    use_float64()


def network() -> keras.Model:
    """Normalisation, a sum with a narrow side, constants that go into biases and carriers."""
    inputs = keras.Input((7, 6, 2))
    x = L.Conv2D(5, 5, padding="same", name="stem")(inputs)
    x = L.Activation("sigmoid")(L.BatchNormalization(name="norm")(x))
    y = L.Conv2D(5, 3, padding="same", activation="tanh", name="branch")(x)
    x = L.DepthwiseConv2D(1, name="depthwise")(L.Add()([x, y]))
    x = L.Conv2D(4, 1, name="mixer")(x)
    x = L.Dense(4, "sigmoid", name="hidden", use_bias=False)(L.Flatten()(x))
    return randomize(keras.Model(inputs, L.Dense(2, use_bias=False, name="last")(x)))


def batch() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 7, 6, 2)), rng.normal(size=(8, 2))


def trained(optimizer: Optimizer, model: keras.Model, steps: int = 5) -> keras.Model:
    model.compile(optimizer, "mse", metrics=["mae"], run_eagerly=True)
    for _ in range(steps):
        model.train_on_batch(*batch())
    return model


def apply_mask(model: keras.Model, plan: Plan = PLAN) -> None:
    """Set a plan's entries to zero in a model itself, whose optimizer keeps its state."""
    changes = masks(PrunableLayers.of(model), plan)
    for layer in model.layers:
        for weight in layer.weights:
            weight.assign(changes.get(id(layer), {}).get(weight.name, weight))


def arrays(model: keras.Model) -> list[Array]:
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


def step_of(model: keras.Model) -> list[Array]:
    """By what the next step moves every weight."""
    before = arrays(model)
    model.train_on_batch(*batch())
    return [after - start for after, start in zip(arrays(model), before, strict=True)]


def gap(model: keras.Model, pruned: keras.Model, before: list[Array]) -> float:
    """The largest difference of the next steps, over the weights that are left.

    But not over the offset of the carrier: it stands for those of other channels.
    """
    pairs = []
    for new, after, origin in zip(
        pruned.weights, step_of(pruned), origins(model, pruned), strict=True
    ):
        if origin is not None:
            left = np.isin(origin.places[-1], KEPT) if new.name == "beta" else ...
            pairs.append((after[left], origin.of(before[origin.weight])[left]))
    assert len(pairs) == 14
    assert max(np.abs(new).max() for new, _ in pairs) > 1e-3
    return float(max(np.abs(new - old).max() for new, old in pairs))


OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "momentum": lambda: O.SGD(0.05, momentum=0.9),
    "adam": lambda: O.Adam(0.05),
    "amsgrad": lambda: O.Adam(0.05, amsgrad=True),
    "rmsprop": lambda: O.RMSprop(0.05, momentum=0.9, centered=True),
    "nadam": lambda: O.Nadam(0.05),
    "schedule": lambda: O.SGD(O.schedules.CosineDecay(0.1, 9), momentum=0.9, nesterov=True),
    "averages": lambda: O.SGD(0.05, momentum=0.9, use_ema=True, ema_momentum=0.5),
    "gathered": lambda: O.SGD(0.05, momentum=0.9, gradient_accumulation_steps=2),
}


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_next_step_moves_what_is_left_as_before(name: str) -> None:
    """The control: with a new optimizer it does not."""
    model = trained(OPTIMIZERS[name](), network())
    pruned = carry_optimizer(model, prune(model, PLAN, realize="crop"))
    other = trained(OPTIMIZERS[name](), prune(model, PLAN, realize="crop"), steps=0)
    apply_mask(model)
    before = step_of(model)
    assert gap(model, pruned, before) < 1e-10
    assert int(pruned.optimizer.iterations) == int(model.optimizer.iterations)
    assert gap(model, other, before) > 1e-3


def losses(model: keras.Model) -> tuple[float, float]:
    loss, other = model.evaluate(*batch(), verbose=0)
    return loss, other


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_the_loss_is_the_same_in_float32(name: str) -> None:
    model = trained(OPTIMIZERS[name](), network())
    full = losses(model)
    pruned = carry_optimizer(model, prune(model, PLAN))
    apply_mask(model)
    np.testing.assert_allclose(losses(pruned), losses(model), rtol=1e-6)
    assert abs(full[0] - losses(model)[0]) > 1e-3
    assert gap(model, pruned, step_of(model)) < 1e-5


def penalized(model: keras.Model) -> keras.Model:
    return attach(model, KernelSize(1e-3), layers=["stem"])


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("inner", ["momentum", "adam", "averages"])
def test_proximal_training_goes_on_with_a_regularizer(inner: str) -> None:
    model = trained(Proximal(OPTIMIZERS[inner]()), penalized(network()))
    whole = Plan({**PLAN.sizes, "stem": [5, 0, 5, 5, 0]})  # Momentum would revive a ring.
    pruned = carry_optimizer(model, penalized(prune(model, whole, realize="crop")))
    assert type(pruned.optimizer) is Proximal
    apply_mask(model, whole)
    assert gap(model, pruned, step_of(model)) < 1e-10


def slots(model: keras.Model) -> dict[str, Any]:
    kinds = ("_momentum", "_average")
    return {v.name: v for v in model.optimizer.variables if v.name.endswith(kinds)}


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("inner", ["momentum", "averages"])
def test_without_a_regularizer_the_wrapped_optimizer_goes_on(inner: str) -> None:
    model = trained(Proximal(OPTIMIZERS[inner]()), penalized(network()))
    pruned = carry_optimizer(model, prune(model, Plan({})))
    assert type(pruned.optimizer) is O.SGD
    assert int(pruned.optimizer.iterations) == 5
    old, new = slots(model), slots(pruned)
    assert sum(name.endswith("_momentum") for name in new) == 12
    assert pruned.optimizer.use_ema == (inner == "averages")
    for name in new:
        np.testing.assert_allclose(new[name], old[name], rtol=1e-12)


@pytest.mark.parametrize("spared", [(), ("bias", "gamma", "beta")])
@pytest.mark.parametrize("wrap", [Proximal, lambda optimizer: optimizer])
def test_what_is_left_out_of_weight_decay_stays_out(spared: tuple[str, ...], wrap: Any) -> None:
    """The control: where nothing is left out, all decays."""
    optimizer = O.SGD(0.05, momentum=0.9, weight_decay=0.1)
    if spared:
        optimizer.exclude_from_weight_decay(var_names=list(spared))
    model = trained(wrap(optimizer), penalized(network()))
    pruned = carry_optimizer(model, prune(model, PLAN, realize="split"))
    names = {v.name for v in pruned.trainable_variables}
    decayed = {v.name for v in pruned.trainable_variables if pruned.optimizer._use_weight_decay(v)}
    assert names == {"kernel", "bias", "gamma", "beta"}
    assert decayed == names - {*spared}


def test_the_state_of_loss_scaling_goes_along() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    model = trained(O.SGD(0.01, momentum=0.9), network())
    model.optimizer.dynamic_scale.assign(64.0)
    pruned = carry_optimizer(model, prune(model, PLAN))
    assert type(pruned.optimizer) is type(model.optimizer) is O.LossScaleOptimizer
    assert float(pruned.optimizer.dynamic_scale) == 64.0
    assert int(pruned.optimizer.step_counter) == int(model.optimizer.step_counter) > 0


def block(name: str) -> keras.Model:
    conv = L.Conv2D(3, 3, padding="same", name="conv")
    return keras.Sequential([keras.Input((7, 6, 3)), conv, L.ReLU()], name=name)


@pytest.mark.usefixtures("_float64")
def test_layers_of_one_name_keep_their_own_state() -> None:
    model = chain(block("a"), block("b"), L.Flatten(), L.Dense(2), shape=(7, 6, 3))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 7, 6, 3))
    model.compile(O.SGD(0.1, momentum=0.9), "mse", run_eagerly=True)
    model.train_on_batch(images, batch()[1])
    pruned = carry_optimizer(model, prune(model, Plan({"b/conv": [3, 0, 3]})))
    momenta = [v for v in model.optimizer.variables if v.name.endswith("conv_kernel_momentum")]
    (first,) = (v for v in pruned.optimizer.variables if v.name == "a_conv_kernel_momentum")
    (second,) = (v for v in pruned.optimizer.variables if v.name == "b_conv_kernel_momentum")
    np.testing.assert_array_equal(first, momenta[0])
    np.testing.assert_array_equal(second, np.asarray(momenta[1])[..., [0, 2]])
    assert not np.array_equal(*momenta)


@pytest.mark.usefixtures("_float64")
def test_a_new_bias_starts_without_momentum_and_with_its_value_as_average() -> None:
    model = chain(
        L.Conv2D(3, 3, activation="sigmoid", name="conv"),
        L.GlobalAveragePooling2D(),
        L.Dense(2, use_bias=False, name="last"),
        shape=(7, 6, 2),
    )
    trained(O.SGD(0.1, momentum=0.9, use_ema=True), model)
    pruned = carry_optimizer(model, prune(model, Plan({"conv": [3, 0, 3]})))
    state = {v.name: np.asarray(v) for v in pruned.optimizer.variables}
    bias = np.asarray(pruned.get_layer("last").bias)
    assert np.abs(bias).min() > 0
    assert not state["last_bias_momentum"].any()
    np.testing.assert_array_equal(state["last_bias_average"], bias)
    assert state["conv_bias_momentum"].all()


@pytest.mark.usefixtures("_float64")
def test_averages_follow_what_a_bias_takes_up() -> None:
    model = chain(
        L.Conv2D(3, 3, activation="sigmoid", name="conv"),
        L.GlobalAveragePooling2D(),
        L.Dense(2, name="last"),
        shape=(7, 6, 2),
    )
    trained(O.SGD(0.1, use_ema=True), model)
    pruned = carry_optimizer(model, prune(model, Plan({"conv": [3, 0, 3]})))

    def lag(which: keras.Model) -> Array:
        (average,) = (v for v in which.optimizer.variables if v.name.endswith("last_bias_average"))
        return np.asarray(average) - np.asarray(which.get_layer("last").bias)

    np.testing.assert_allclose(lag(pruned), lag(model), atol=1e-12)
    assert np.abs(lag(model)).min() > 1e-6


def test_what_the_user_compiled_keeps_its_settings() -> None:
    model = trained(O.SGD(0.1, momentum=0.9), network())
    pruned = prune(model, PLAN)
    pruned.compile(O.SGD(0.01, momentum=0.9), "mae")
    carry_optimizer(model, pruned)
    assert pruned.loss == "mae"
    assert float(pruned.optimizer.learning_rate) == pytest.approx(0.01)
    assert int(pruned.optimizer.iterations) == 5


def test_what_cannot_be_carried_is_refused() -> None:
    model = network()
    pruned = prune(model, PLAN)
    with pytest.raises(ValueError, match="expected a compiled model"):
        carry_optimizer(model, pruned)
    trained(O.SGD(0.1), model, steps=1)
    pruned.compile(O.Adam(0.1), "mse")
    with pytest.raises(ValueError, match=r"compiled with SGD, .* Received: Adam"):
        carry_optimizer(model, pruned)
    with pytest.raises(ValueError, match="holds no record of surgery"):
        carry_optimizer(model, network())
    other = chain(L.Conv2D(5, 3, name="stem"), L.Dense(2, name="last"), shape=(7, 6, 2))
    with pytest.raises(ValueError, match=r"made of another one.*layer 'stem' has kernel \(3, 3, 2"):
        carry_optimizer(other, pruned)


def test_a_pruned_model_needs_neither_the_old_one_nor_us() -> None:
    model = trained(O.SGD(0.1), network(), steps=1)
    pruned, kernel = prune(model, PLAN), weakref.ref(model.get_layer("stem"))
    assert not pruned.compiled
    del model
    keras.utils.clear_session(free_memory=False)
    gc.collect()
    assert kernel() is None
    assert pruned.get_layer("stem") is not None
