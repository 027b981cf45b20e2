"""Plans for a share of the cost: the share is met, scales do not matter, arguments exclude each
other."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl

import keras_structsparse as kss
from keras_structsparse.errors import ModelError
from keras_structsparse.profiling.planning import plan
from keras_structsparse.surgery import plans

REALIZE = ("auto", "split")


def network(norm: bool = True) -> keras.Model:
    inputs = keras.Input((8, 8, 2))
    x = inputs
    for number, (width, size) in enumerate(((8, 3), (6, 5), (6, 3))):
        x = kl.Conv2D(width, size, padding="same", name=f"conv{number}")(x)
        x = kl.ReLU()(kl.BatchNormalization(name=f"norm{number}")(x) if norm else x)
    x = kl.Dense(3, activation="softmax", name="head")(kl.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def left(model: keras.Model, found: kss.Plan, unit: str, realize: str = "auto") -> float:
    pruned = kss.prune(model, found, realize=realize)
    return float(getattr(kss.compare(model, pruned), f"{unit}_fraction"))


@pytest.mark.parametrize("unit", ["multiply_adds", "params"])
@pytest.mark.parametrize("groups", ["half_ring", "ring", "kernel"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_share_is_met(unit: str, groups: str, share: float) -> None:
    model = network()
    budget: dict[str, Any] = {unit: share}
    found = plan(model, groups=groups, realize="split", **budget)
    assert share - 0.15 < left(model, found, unit, "split") <= share
    assert found.sizes["head"] == (1, 1, 1)  # outputs are no kernels to remove
    sizes = {size for own in found.sizes.values() for size in own}
    allowed = {"kernel": {0, 1, 3, 5}, "ring": {0, 1, 3, 5}, "half_ring": set(range(6))}
    assert sizes <= allowed[groups]
    if groups == "kernel":
        assert set(found.sizes["conv1"]) <= {0, 5}


def test_kernels_get_smaller_only_where_that_saves_something() -> None:
    """Built as one convolution, a layer is as large as its largest kernel."""
    model = network()
    ring = np.ones((5, 5, 1, 1))
    ring[1:, 1:] = 100.0  # the outermost half-ring is nothing beside the rest
    model.get_layer("conv1").kernel.assign(ring * np.ones((5, 5, 8, 6)))
    found = {realize: plan(model, multiply_adds=0.8, realize=realize) for realize in REALIZE}
    assert set(found["auto"].sizes["conv1"]) <= {0, 5}
    assert 4 in found["split"].sizes["conv1"]  # the control


def test_the_scale_of_a_layer_does_not_matter() -> None:
    """The control: at a threshold it does."""
    model = network(norm=False)
    before = plan(model, multiply_adds=0.5), plan(model, tau=0.9)
    layer = model.get_layer("conv1")
    layer.set_weights([100 * value for value in layer.get_weights()])
    assert plan(model, multiply_adds=0.5) == before[0]
    assert plan(model, tau=0.9) != before[1]


def test_effective_kernels_are_compared_before_a_normalisation() -> None:
    model = network()
    gamma = np.array([1.0, 1e-3, 1.0, 1e-3, 1.0, 1.0])
    norm = model.get_layer("norm1")
    norm.set_weights([gamma, *norm.get_weights()[1:]])
    sizes = plan(model, multiply_adds=0.7).sizes["conv1"]
    assert [size == 0 for size in sizes] == [False, True, False, True, False, False]


def test_a_saliency_chooses_the_groups() -> None:
    model = network()
    rng = np.random.default_rng(0)
    data = rng.random((32, 8, 8, 2)), rng.integers(0, 3, 32)
    measured = kss.saliency(model, data, "sparse_categorical_crossentropy", groups="kernel")
    second = {name: np.ones_like(own) for name, own in measured.second.items()}
    second["conv1"][:, :3] = 1e-9
    found = plan(model, multiply_adds=0.8, saliency=kss.Saliency(second, second, "kernel"))
    assert found.sizes["conv1"][:3] == (0, 0, 0)
    assert left(model, found, "multiply_adds") <= 0.8
    other = {"conv1": np.ones((1, 7))}
    with pytest.raises(ModelError, match=r"7 kernels of 1 groups in a layer 'conv1'"):
        plan(model, params=0.5, saliency=kss.Saliency(other, other, "kernel"))


def test_without_a_share_it_is_the_plan_at_a_threshold() -> None:
    model = network()
    assert plan(model) == plans.plan(model)
    given: tuple[Any, ...] = (0.4, "ring", True, 2)
    assert plan(model, *given) == plans.plan(model, *given)
    assert kss.plan is plan


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tau": 0.1, "multiply_adds": 0.5}, r"multiply_adds or tau, .*tau=0.1"),
        ({"tau": 0.1, "params": 0.5}, r"params or tau"),
        ({"coupled": True, "params": 0.5}, r"params or coupled"),
        ({"round_to": 8, "params": 0.5}, r"params or round_to, .*round_to=8"),
        ({"multiply_adds": 0.5, "params": 0.5}, r"expected one of multiply_adds, params"),
        ({"multiply_adds": 0.0}, r"multiply_adds: expected a number in \(0, 1\]\. Received: 0"),
        ({"params": 1.5}, r"params: expected a number in \(0, 1\]\. Received: 1.5"),
        ({"saliency": kss.Saliency({}, {}, "ring")}, r"saliency: expected multiply_adds or params"),
        ({"multiply_adds": 0.5, "groups": "square"}, r"groups"),
        ({"multiply_adds": 0.5, "realize": "glue"}, r"realize"),
        ({"tau": -1.0}, r"tau: expected a finite number >= 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(network(), **given)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_share_that_cannot_be_met_is_said() -> None:
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), kl.Conv2D(4, 3, name="a"), kl.Flatten(), kl.Dense(200, name="b")]
    )
    with pytest.warns(UserWarning, match=r"plan: expected 1.0% of the multiply-adds. Received"):
        plan(model, multiply_adds=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        plan(model, multiply_adds=0.9)


def test_weights_that_are_not_finite_are_named() -> None:
    model = network()
    layer = model.get_layer("conv1")
    layer.set_weights([value * np.nan for value in layer.get_weights()])
    with pytest.raises(ModelError, match="'conv1'"):
        plan(model, multiply_adds=0.5)
