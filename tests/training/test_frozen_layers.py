"""What is frozen is left alone; behind a frozen normalisation the kernel itself is penalised."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_prox import numpy
from helpers_training import compiled, images
from keras import layers as L
from keras import optimizers as O

import keras_structsparse as kss
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.training.callbacks.budget_fitter import BudgetFitter, reapply
from keras_structsparse.training.optimizer.batched_prox import proximal_steps
from keras_structsparse.training.optimizer.regularized_variables import (
    new_kernel,
    regularized_kernels,
    step_length,
    with_stepped_value,
)

Array = Any

NAMES = ("c0", "n0", "c1", "n1", "c2", "n2")


def network() -> keras.Model:
    inputs = x = keras.Input((6, 6, 2))
    for index in range(3):
        x = L.Conv2D(4, 3, padding="same", name=f"c{index}")(x)
        x = L.ReLU()(L.BatchNormalization(name=f"n{index}")(x))
    x = L.Dense(3, activation="softmax", name="classes")(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def frozen(seed: int, attach_first: bool) -> tuple[keras.Model, set[str]]:
    """A network with random layers frozen, before or after a regularizer was attached."""
    rng = np.random.default_rng(seed)
    model = network()
    chosen = {name for name in NAMES if rng.random() < 0.4}
    if chosen >= {"c0", "c1", "c2"}:
        chosen -= {"c2"}
    if attach_first:
        kss.attach(model, kss.KernelSize(0.2))
    for name in chosen:
        model.get_layer(name).trainable = False
    if not attach_first:
        kss.attach(model, kss.KernelSize(0.2))
    return model, chosen


def values(model: keras.Model) -> dict[str, Array]:
    return {v.path: numpy(v).copy() for v in model.weights}


def check_left_alone(model: keras.Model, chosen: set[str], before: dict[str, Array]) -> None:
    after = values(model)
    for path, value in before.items():
        same = np.array_equal(value, after[path])
        assert same or path.split("/")[0] not in chosen, path
        # The control: a kernel that is trained has changed.
        trained = path in ("c0/kernel", "c1/kernel", "c2/kernel") and path[:2] not in chosen
        assert not same or not trained, path


@pytest.mark.parametrize("attach_first", [True, False])
def test_steps_leave_frozen_layers_alone(attach_first: bool) -> None:
    for seed in range(3):
        model, chosen = frozen(seed, attach_first)
        before = values(model)
        compiled(model, kss.Proximal(O.Adam(0.01)), run_eagerly=True)
        model.train_on_batch(*images())
        check_left_alone(model, chosen, before)


def test_forced_cuts_leave_frozen_layers_alone() -> None:
    for seed in range(20):
        model, chosen = frozen(seed, attach_first=True)
        before = values(model)
        fitter = BudgetFitter(model, 1e-3)
        # A plan as a threshold reads it may have entries for frozen layers as well.
        plan, _ = fitter.select(0.4, 0.05)
        masks = fitter.remove(Plan({**plan.sizes, **{n: [1] * 4 for n in ("c0", "c1", "c2")}}))
        reapply(masks)
        check_left_alone(model, chosen, before)
        sizes = kss.plan(model, tau=1e-3).sizes
        assert all(max(sizes[n]) <= 1 for n in ("c0", "c1", "c2") if n not in chosen)
        assert all(min(sizes[n]) == 3 for n in ("c0", "c1", "c2") if n in chosen)


def test_a_target_takes_the_kernels_behind_frozen_normalisations() -> None:
    """Kernels become zero, their normalisations are left alone."""
    model = kss.attach(network(), kss.KernelCount(1e-3))
    for index in range(3):
        model.get_layer(f"n{index}").trainable = False
    gammas = [numpy(model.get_layer(f"n{i}").gamma).copy() for i in range(3)]
    target = kss.TargetMultiplyAdds(0.5, tolerance=0.1)
    compiled(model, kss.Proximal(O.SGD(0.05)), run_eagerly=True)
    model.fit(*images(), epochs=4, batch_size=32, verbose=0, callbacks=[target])
    pruned = kss.prune(model, tau=1e-3)
    assert target.reached is not None
    assert abs(target.reached - 0.5) <= 0.1
    assert target.reached == kss.profile(pruned).multiply_adds / kss.profile(model).multiply_adds
    for index, gamma in enumerate(gammas):
        assert np.array_equal(gamma, numpy(model.get_layer(f"n{index}").gamma))


# --- the proximal step through a fixed scale ---


def objective(regularizer: Any, kernel: Array, start: Array, scale: Array, step: float) -> float:
    """The penalty of the kernel as its normalisation scales it, and the squared distance."""
    own = float(numpy(regularizer.penalty(keras.ops.convert_to_tensor(kernel * scale))))
    return own + float(np.square(kernel - start).sum()) / (2 * step)


@pytest.mark.parametrize("power", [1, 2])
def test_the_step_is_the_proximal_operator_of_the_scaled_kernel(power: int) -> None:
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    rng = np.random.default_rng(power)
    model = kss.attach(network(), kss.KernelSize(0.3, power=power), "c1")
    norm, kernel = model.get_layer("n1"), model.get_layer("c1").kernel
    norm.gamma.assign(rng.normal(size=4))
    norm.moving_variance.assign(rng.uniform(0.1, 2.0, 4))
    model.get_layer("n1").trainable = False
    start, step = numpy(kernel).copy(), 0.7
    (item,) = regularized_kernels(model.trainable_variables)
    assert item.gamma is None
    scale = np.abs(numpy(norm.gamma)) / np.sqrt(numpy(norm.moving_variance) + 1e-3)
    np.testing.assert_allclose(numpy(item.fixed), scale, rtol=1e-10)
    scaled = with_stepped_value(item, keras.ops.convert_to_tensor(kernel))
    length = step_length(item, keras.ops.convert_to_tensor(step))
    ((effective, _),) = proximal_steps([scaled], [length])
    found = numpy(new_kernel(item, effective))
    plain = kss.KernelSize(0.3, power=power)
    best = objective(plain, found, start, scale, step)
    for _ in range(200):
        other = found + rng.normal(size=found.shape) * 10 ** rng.uniform(-6, 0)
        assert best <= objective(plain, other, start, scale, step) + 1e-12
    assert best < objective(plain, start, start, scale, step) - 1e-3, "the control"
    assert kss.penalty(model) == pytest.approx(
        float(numpy(plain.penalty(keras.ops.convert_to_tensor(start * scale))))
    )


def test_a_gradient_through_a_fixed_scale_is_that_of_the_penalty() -> None:
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    rng = np.random.default_rng(0)
    model = kss.attach(network(), kss.KernelSize(0.3), "c1")
    model.get_layer("n1").trainable = False
    model.get_layer("n1").gamma.assign(rng.normal(size=4))
    kernel = model.get_layer("c1").kernel
    regularizer, start = kernel.regularizer, numpy(kernel).copy()
    gradient, direction = numpy(regularizer.subgradient(kernel)), rng.normal(size=start.shape)
    ahead, behind = (
        float(numpy(regularizer.penalty(keras.ops.convert_to_tensor(start + h * direction))))
        for h in (1e-6, -1e-6)
    )
    assert (gradient * direction).sum() == pytest.approx((ahead - behind) / 2e-6, rel=1e-6)
