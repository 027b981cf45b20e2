"""A share of the multiply-adds as the target of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import randomize

import keras_structsparse as kss
from keras_structsparse import models
from keras_structsparse.data import datasets
from keras_structsparse.training.callbacks.target_multiply_adds import TargetMultiplyAdds, _Steering
from keras_structsparse.training.fit import compile_for, fit
from keras_structsparse.training.recipes import Recipe

Array = Any

TOLERANCE = 0.02
REGULARIZERS = {"size": kss.KernelSize, "count": kss.KernelCount}


def network() -> keras.Model:
    return models.build("digits-residual")


def share(model: keras.Model, tau: float = 1e-3) -> float:
    pruned = kss.prune(model, tau=tau)
    return kss.profile(pruned).multiply_adds / kss.profile(model).multiply_adds


def trained(
    name: str,
    target: float,
    seed: int,
    epochs: int,
    images: int | None = None,
    before: Sequence[keras.callbacks.Callback] = (),
) -> tuple[keras.Model, TargetMultiplyAdds, dict[str, list[float]]]:
    """A network after a training on the digits with a budget."""
    data = datasets.load("digits", validation=0.2, seed=0)
    recipe = Recipe(epochs=epochs, batch_size=32)
    keras.utils.set_random_seed(seed)
    model = network()
    x, y = data.train.x[:images], data.train.y[:images]
    compile_for(model, recipe, len(x), REGULARIZERS[name](1e-3))
    budget = TargetMultiplyAdds(target)
    return model, budget, fit(model, (x, y), recipe, callbacks=[*before, budget])


class Alphas(keras.callbacks.Callback):
    """Notes alpha in the last batch but one, and at the end, of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.within: list[float] = []
        self.between: list[float] = []

    def _alpha(self) -> float:
        return float(next(iter(kss.regularizers_of(self.model).values())).alpha)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == self.params["steps"] - 1:
            self.within.append(self._alpha())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.between.append(self._alpha())


def test_a_short_training_reaches_its_target() -> None:
    noted = Alphas()
    model, budget, history = trained("size", 0.4, 0, 3, images=640, before=[noted])
    # Checkpoints hold alpha, although the penalty is off once the target is met.
    assert noted.within[-1] == 0
    assert min(noted.between) > 0
    assert abs(share(model) - 0.4) <= TOLERANCE
    assert budget.reached == pytest.approx(share(model))
    assert budget.threshold is not None
    first, *_, last = history["multiply_adds_fraction"]
    assert first > 0.5  # It was not there from the start.
    assert last == pytest.approx(0.4, abs=TOLERANCE)
    assert float(next(iter(kss.regularizers_of(model).values())).alpha) > 0
    # What was cut is exactly zero: the threshold has nothing left to do.
    assert share(model, tau=0.0) == share(model)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("target", [0.6, 0.4, 0.2])
@pytest.mark.parametrize("name", list(REGULARIZERS))
def test_targets_are_reached(name: str, target: float, seed: int) -> None:
    model, budget, history = trained(name, target, seed, 10)
    assert abs(share(model) - target) <= TOLERANCE
    assert budget.reached == pytest.approx(share(model))
    assert history["accuracy"][-1] > 0.8


# --- what it refuses ---


@pytest.mark.parametrize("target", [0, 0.0, -0.4, 1.5, math.nan, math.inf, "0.4", None])
def test_targets_that_are_no_shares_are_refused(target: Any) -> None:
    with pytest.raises(ValueError, match=f"target: expected a .*Received: {target!r}"):
        TargetMultiplyAdds(target)


@pytest.mark.parametrize("argument", ["tau", "tolerance"])
@pytest.mark.parametrize("value", [-1e-3, math.nan, "1"])
def test_bad_thresholds_are_refused(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{argument}: expected .*Received: {value!r}"):
        TargetMultiplyAdds(0.4, **{argument: value})


def begun(budget: TargetMultiplyAdds, model: keras.Model) -> TargetMultiplyAdds:
    budget.set_model(model)
    budget.set_params({"steps": 10**6, "epochs": 1})  # No look is due for long.
    budget.on_train_begin()
    return budget


@pytest.mark.parametrize("alpha", [None, 0.0])
def test_there_must_be_an_alpha_to_steer(alpha: float | None) -> None:
    model = network() if alpha is None else kss.attach(network(), kss.KernelSize(alpha))
    with pytest.raises(ValueError, match=r"TargetMultiplyAdds: expected .* alpha > 0\. Received"):
        begun(TargetMultiplyAdds(0.4), model)


def test_a_network_that_is_smaller_already_is_refused() -> None:
    model = kss.attach(network(), kss.KernelSize(1e-3))
    sparse = kss.plan(model, tau=0.0)
    half = kss.Plan(
        {
            name: [*sizes[::2], *[0] * (len(sizes) // 2)]
            for name, sizes in sparse.sizes.items()
            if len(sizes) == 16
        }
    )
    smaller = kss.attach(network(), kss.KernelSize(1e-3))
    smaller.set_weights(kss.masked(model, half).get_weights())
    begun(TargetMultiplyAdds(0.6), model)
    with pytest.raises(ValueError, match=r"target: expected at most .* Received: 0\.6"):
        begun(TargetMultiplyAdds(0.6), smaller)


# --- steering ---


def test_the_plan_falls_from_one_to_the_target() -> None:
    planned = [_Steering(0.2).planned(progress) for progress in np.linspace(0, 1, 41)]
    assert planned[0] == 1.0
    assert planned[-1] == planned[20] == pytest.approx(0.2)
    assert planned == sorted(planned, reverse=True)


@pytest.mark.parametrize(("share", "rises"), [(1.0, True), (0.9, True), (0.1, False)])
def test_alpha_follows_the_distance_from_the_plan(share: float, rises: bool) -> None:
    steering = _Steering(0.2)
    first, second = (steering.alpha_at(0.4, share) for _ in range(2))
    assert (first > 1.0) is rises
    assert (second > first) is rises


def test_alpha_starts_from_nothing() -> None:
    assert [_Steering(0.2).alpha_at(progress, 1.0) for progress in (0.0, 0.05)] == [0.0, 0.5]


@pytest.mark.parametrize("realize", ["auto", "crop", "split"])
def test_what_counts_is_what_surgery_makes_of_layers_with_several_sizes(realize: str) -> None:
    model = kss.attach(randomize(network()), kss.KernelSize(1e-3))
    begun(TargetMultiplyAdds(0.4, realize=realize), model)._arrive(0.5, 0.5)
    left = {
        each: kss.profile(kss.prune(model, tau=0.0, realize=each)).multiply_adds
        for each in ("auto", "crop", "split")
    }
    whole = kss.profile(model).multiply_adds
    assert left[realize] / whole == pytest.approx(0.4, abs=TOLERANCE)
    assert left["split"] < left["crop"]


def test_an_unknown_realization_is_refused() -> None:
    with pytest.raises(ValueError, match=r"realize: expected one of .*Received: 'splt'"):
        TargetMultiplyAdds(0.4, realize="splt")


def test_what_was_cut_does_not_come_back_with_a_step() -> None:
    model = kss.attach(randomize(network()), kss.KernelSize(1e-3))
    budget = begun(TargetMultiplyAdds(0.4), model)
    budget._arrive(0.5, 0.5)
    left = kss.plan(model, tau=0.0)

    def disturb() -> None:
        for weight in model.trainable_weights:
            weight.assign(weight + 0.01)

    disturb()
    assert share(model) > 0.9
    budget.on_train_batch_end(0)
    assert kss.plan(model, tau=0.0) == left
    assert share(model) == pytest.approx(0.4, abs=TOLERANCE)


@pytest.mark.slow
def test_a_share_that_has_fallen_too_far_is_given_back() -> None:
    model = kss.attach(randomize(network()), kss.KernelSize(1e-3))
    budget = begun(TargetMultiplyAdds(0.4), model)
    budget._arrive(0.5, 0.5)
    plan = budget._plan
    budget._remove_to(0.2)
    assert share(model) < 0.3
    budget._correct_removal()
    assert share(model) == pytest.approx(0.4, abs=TOLERANCE)
    left = kss.plan(model, tau=0.0)
    differing = [name for name, sizes in plan.sizes.items() if left.sizes[name] != sizes]
    assert len(differing) < len(plan.sizes)


def test_several_alphas_keep_their_ratio() -> None:
    model = kss.attach(network(), kss.KernelSize(1e-3), layers=["conv1"])
    kss.attach(model, kss.KernelCount(1e-2), layers=["conv2"])
    budget = begun(TargetMultiplyAdds(0.4), model)
    budget._set_alphas(0.25)
    alphas = [float(r.alpha) for r in kss.regularizers_of(model).values()]
    np.testing.assert_allclose(alphas, [2.5e-4, 2.5e-3], rtol=1e-6)
