"""Coupled groups on models: what is joined, that training solves it, that streams narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_coupled import short_network
from helpers_models import random_batch, residual_network, use_float64
from keras import layers as L

import keras_structsparse as kss

Array = Any

STREAMS = [("stem", "b1b"), ("shortcut", "b2b", "b3b")]
"""The layers of `residual_network` that write the same channels."""


def test_the_layers_of_a_stream_are_joined_and_nothing_else() -> None:
    model = kss.attach(residual_network(), kss.KernelSize(), coupled=True)
    found = kss.regularizers_of(model)
    joined = {name for name, r in found.items() if r.links is not None}
    assert joined == {name for stream in STREAMS for name in stream}
    names = [
        {w.kernel.split("/")[0] for w in stream.writers}
        for r in found.values()
        if r.links is not None
        for stream in r.links.joint
    ]
    assert sorted(names, key=len) == [set(stream) for stream in STREAMS]


def test_only_layers_that_are_chosen_are_joined() -> None:
    model = kss.attach(residual_network(), kss.KernelSize(), ["stem", "b1a"], coupled=True)
    assert [r.links for r in kss.regularizers_of(model).values()] == [None, None]


@pytest.mark.parametrize(
    ("regularizer", "words"),
    [(kss.KernelSize(norm="linf"), "norm='linf'"), (kss.KernelCount(power=2), "power=2")],
)
def test_without_a_joint_step_there_is_no_coupling(regularizer: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"coupled: expected .*{words}"):
        kss.attach(residual_network(), regularizer, coupled=True)


@pytest.mark.parametrize("coupled", ["yes", 1, None])
def test_coupled_is_true_or_false(coupled: Any) -> None:
    with pytest.raises(ValueError, match=r"coupled: expected True or False. Received"):
        kss.attach(residual_network(), kss.KernelSize(), coupled=coupled)


def sum_of_two(strong: int = 3) -> tuple[keras.Model, Array, Array]:
    """A linear regression by two layers whose outputs are added; few outputs are strong."""
    use_float64()
    keras.utils.set_random_seed(0)
    left, right = keras.Input((4,)), keras.Input((3,))
    sides = [
        L.Dense(6, use_bias=False, name=name)(x) for name, x in (("left", left), ("right", right))
    ]
    model = keras.Model([left, right], L.Add()(sides))
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(64, 7))
    truth = rng.normal(size=(7, 6)) * np.where(np.arange(6) < strong, 1.0, 0.02)
    return model, inputs, inputs @ truth + 0.05 * rng.normal(size=(64, 6))


@pytest.mark.parametrize(
    ("make", "steps", "coupled"),
    [
        (lambda: keras.optimizers.SGD(0.1, momentum=0.9), 800, True),
        pytest.param(
            lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 3000)),
            3000,
            True,
            marks=pytest.mark.slow,
        ),
        (lambda: keras.optimizers.SGD(0.1, momentum=0.9), 800, False),
    ],
    ids=["sgd", "adam", "control"],
)
def test_training_reaches_the_solution_of_the_joint_group_lasso(
    make: Any, steps: int, coupled: bool
) -> None:
    """The two layers are one of seven inputs, whose solution fulfils known conditions."""
    model, inputs, targets = sum_of_two()
    kss.attach(model, kss.KernelCount(0.1), ["left", "right"], coupled=coupled)
    model.compile(kss.Proximal(make()), "mse")
    data = [np.tile(part, (steps, 1)) for part in (inputs[:, :4], inputs[:, 4:], targets)]
    model.fit(data[:2], data[2], batch_size=64, shuffle=False, verbose=0)
    kernel = np.concatenate(model.get_weights())
    gradient = 2 * inputs.T @ (inputs @ kernel - targets) / targets.size
    norms, alpha = np.linalg.norm(kernel, axis=0), 0.1 * 2**0.5
    alive = norms > 0
    living = np.abs(gradient[:, alive] + alpha * kernel[:, alive] / norms[alive]).max()
    dead = (np.linalg.norm(gradient[:, ~alive], axis=0) - alpha).max(initial=0.0)
    if coupled:
        assert max(living, dead) < 1e-4
        assert alive.sum() == 3
    else:
        assert max(living, dead) > 1e-3


def small(**options: Any) -> keras.Model:
    use_float64()
    return residual_network(**options)


def compiled(model: keras.Model, eagerly: bool = False) -> keras.Model:
    """With the optimizer; eagerly, a step takes a second and tracing takes none."""
    optimizer = kss.Proximal(keras.optimizers.SGD(0.05, momentum=0.9))
    model.compile(optimizer, "mse", run_eagerly=eagerly)
    return model


def data(model: keras.Model) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return random_batch(model, samples=32), rng.normal(size=(32, 4))


@pytest.mark.parametrize(
    "regularizer",
    [pytest.param(kss.KernelCount(0.05), marks=pytest.mark.slow), kss.KernelSize(0.03)],
)
def test_kernels_of_a_stream_die_together_and_it_gets_narrower(regularizer: Any) -> None:
    model = compiled(kss.attach(short_network(), regularizer, coupled=True))
    inputs = random_batch(model, samples=32).astype("float32")
    targets = np.stack([inputs.mean(axis=(1, 2, 3)), inputs.max(axis=(1, 2, 3))], axis=1)
    model.fit(inputs, targets, epochs=12, batch_size=16, verbose=0)
    plan = kss.plan(model, tau=0)
    dead = {name: np.array(sizes) == 0 for name, sizes in plan.sizes.items()}
    np.testing.assert_array_equal(dead["stem"], dead["outer"])
    assert 0 < dead["stem"].sum() < 6
    assert kss.verify(model, plan)
    pruned = kss.prune(model, plan)
    widths = {layer.name: layer.kernels[1] for layer in kss.compare(model, pruned).layers}
    # One channel may stay to carry the constants of all that went.
    left = 6 - dead["stem"].sum()
    assert widths["outer"] in (left, left + 1)
    assert widths["outer"] < 6


def test_only_the_proximal_step_knows_the_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kss.Proximal, "_proximal_step", lambda *arguments: [])
    weights = []
    for alpha in (0.0, 0.1):
        keras.utils.set_random_seed(0)
        attached = kss.attach(small(), kss.KernelSize(alpha), coupled=True)
        model = compiled(attached, eagerly=True)
        model.fit(*data(model), epochs=1, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    assert kss.penalty(model) > 1, "the control does not fail"
    for left, right in zip(*weights, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-10)


@pytest.mark.slow
def test_saves_loads_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model = compiled(kss.attach(short_network(), kss.KernelSize(0.02), coupled=True))
    inputs, targets = random_batch(model, samples=32), np.ones((32, 2))
    model.fit(inputs, targets, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert kss.penalty(loaded) == kss.penalty(model) > 0
    before = model.get_weights()
    for each in (model, loaded):
        each.fit(inputs, targets, epochs=2, shuffle=False, verbose=0)
    for left, right in zip(model.get_weights(), loaded.get_weights(), strict=True):
        assert np.array_equal(left, right)
    assert any(not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_joined_kernel_that_is_frozen_is_an_error() -> None:
    model = kss.attach(small(normalize=False), kss.KernelSize(0.02), coupled=True)
    model.get_layer("b1b").trainable = False
    with pytest.raises(ValueError, match=r"expected one trainable variable 'b1b/kernel'"):
        compiled(model).fit(*data(model), verbose=0)


def test_a_plan_may_remove_joined_kernels_together() -> None:
    """Where one kernel of a channel is above the threshold, the others stay."""
    model = small(normalize=False)
    for name, norm in (("stem", 1.0), ("b1b", 0.01)):
        kernel = np.zeros(model.get_layer(name).kernel.shape)
        kernel[2, 2, 0] = norm
        kernel[2, 2, 0, 0] = 0.01
        model.get_layer(name).kernel.assign(kernel)
    apart, together = (kss.plan(model, tau=0.05, coupled=c).sizes for c in (False, True))
    assert apart["stem"] == together["stem"] == (0, *[1] * 7)
    assert apart["b1b"] == (0,) * 8
    assert together["b1b"] == (0, *[1] * 7)
    assert apart["b1a"] == together["b1a"]


def test_the_mean_of_a_stream_decides_for_all_of_it() -> None:
    model = small(normalize=False)
    for name, norm in (("stem", 0.06), ("b1b", 0.03)):
        kernel = np.zeros(model.get_layer(name).kernel.shape)
        kernel[2, 2, 0] = norm
        model.get_layer(name).kernel.assign(kernel)
    assert kss.plan(model, tau=0.05).widths["stem"] == 8
    together = kss.plan(model, tau=0.05, coupled=True)
    assert together.widths["stem"] == together.widths["b1b"] == 0
    assert kss.plan(model, tau=0.04, coupled=True).widths["b1b"] == 8
