"""What surgery would leave, counted without surgery."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse import models
from keras_structsparse.profiling.estimate import remaining

NETWORKS = ("digits-plain", "digits-residual", "fashion-mnist-residual")
SIZES_LEAVE = {"crop": 0.8, "auto": 0.8, "split": 0.6}
"""Less than this share of the multiply-adds, where every layer has kernels of several sizes."""


def counted(model: keras.Model, plan: kss.Plan, realize: str = "auto") -> tuple[int, int]:
    """The multiply-adds by the estimate, and those of the network that surgery makes."""
    estimate = sum(remaining(model, plan.sizes, realize).values())
    return estimate, kss.profile(kss.prune(model, plan, realize=realize)).multiply_adds


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_missing_from_a_whole_network(name: str) -> None:
    model = models.build(name)
    own = {layer.name: layer.multiply_adds for layer in kss.profile(model).layers}
    assert remaining(model, {}) == {name: work for name, work in own.items() if work}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NETWORKS)
def test_fewer_kernels_are_counted_as_surgery_leaves_them(name: str, seed: int) -> None:
    model, rng = models.build(name), np.random.default_rng(seed)
    sizes = {
        layer: [size * int(rng.random() < 0.7) for size in own]
        for layer, own in kss.plan(model, 0.0).sizes.items()
        if len(own) == 16
    }
    estimate, exact = counted(model, kss.Plan(sizes))
    assert estimate == pytest.approx(exact, rel=0.03)
    assert exact < 0.9 * kss.profile(model).multiply_adds


@pytest.mark.parametrize("realize", ["auto", "crop", "split"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NETWORKS)
def test_smaller_kernels_are_estimated(name: str, seed: int, realize: str) -> None:
    model, rng = models.build(name), np.random.default_rng(seed)
    sizes = {
        layer: np.minimum(rng.integers(1, 4, len(own)), own).tolist()
        for layer, own in kss.plan(model, 0.0).sizes.items()
        if len(own) == 16
    }
    estimate, exact = counted(model, kss.Plan(sizes), realize)
    assert estimate == pytest.approx(exact, rel=0.1)
    assert exact < SIZES_LEAVE[realize] * kss.profile(model).multiply_adds


def test_an_empty_branch_costs_nothing() -> None:
    model = models.build("digits-residual")
    whole, left = (remaining(model, sizes) for sizes in ({}, {"conv3": [0] * 16}))
    assert set(whole) - set(left) == {"conv2", "conv3"}
    estimate, exact = counted(model, kss.Plan({"conv3": [0] * 16}))
    assert estimate == exact


def test_channels_first_are_followed() -> None:
    def counts(order: str) -> dict[str, int]:
        shape = (8, 8, 3) if order == "channels_last" else (3, 8, 8)
        options = {"padding": "same", "data_format": order}
        stack = [L.Conv2D(4, 3, name=name, **options) for name in ("a", "b", "c")]
        model = keras.Sequential([keras.Input(shape), *stack])
        return remaining(model, {"a": (3, 0, 2, 0), "b": (3, 3, 0, 0)})

    last = counts("channels_last")
    assert counts("channels_first") == last
    assert last == {"a": 3 * 64 * 18, "b": 2 * 64 * 18, "c": 2 * 64 * 36}


def conv(x: Any, width: int, name: str, **options: Any) -> Any:
    return L.Conv2D(width, 3, padding="same", name=name, **options)(x)


@pytest.mark.parametrize(
    "body",
    [
        lambda x: L.Add()([x, conv(x, 8, "a")]),
        lambda x: L.Add()([x, conv(x, 8, "a")])[..., :1],
        lambda x: L.Add()([conv(x, 8, "a") * conv(x, 1, "gate"), conv(x, 8, "b")]),
        lambda x: L.DepthwiseConv2D(3)(L.Add()([x, conv(x, 8, "a")]))[..., :1],
        lambda x: L.LayerNormalization()(conv(x, 8, "a")),
        lambda x: conv(x, 8, "a", activation="softmax"),
        lambda x: keras.ops.roll(conv(x, 8, "a"), 1, -1),
    ],
)
def test_channels_that_surgery_must_keep_are_counted(body: Any) -> None:
    inputs = keras.Input((8, 8, 8))
    model = keras.Model(inputs, L.Dense(2)(L.Flatten()(conv(body(inputs), 4, "reader"))))
    plan = kss.Plan({"a": [3, 0, 0, 0, 0, 0, 0, 0]})
    estimate, exact = counted(model, plan)
    assert estimate == pytest.approx(exact, rel=0.02)
    fewer = kss.Plan({**plan.sizes, "reader": [3, 0, 0, 0]})
    assert counted(model, fewer)[0] < estimate
