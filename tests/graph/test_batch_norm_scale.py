"""Networks whose batch normalisations get a scale."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import assert_same_function, random_batch, randomize, use_float64
from keras import layers as L

import keras_structsparse as kss


def network() -> keras.Model:
    """Pairs without scale, with one, behind padding, nested; and normalisations that are none."""
    inner = keras.Sequential(
        [keras.Input((6, 6, 4)), L.Conv2D(4, 3, name="conv"), norm("norm", False)], name="inner"
    )
    inputs = keras.Input((8, 8, 2))
    x = norm("first", False)(inputs)
    x = norm("flat", False)(L.ZeroPadding2D(1)(L.Conv2D(4, 3, name="padded")(x)))
    x = norm("scaled", True)(L.Conv2D(4, 3, name="plain")(L.ReLU()(x)))
    x = norm("last", False)(L.ReLU()(inner(x)))
    x = L.Dropout(0.5)(L.GlobalAveragePooling2D()(x))
    return randomize(keras.Model(inputs, norm("ends", False)(L.Dense(2, name="classes")(x))))


def norm(name: str, scale: bool) -> Any:
    return L.BatchNormalization(scale=scale, name=name)


def test_the_network_computes_the_same_and_can_be_regularized() -> None:
    use_float64()
    model = network()
    twin = kss.with_scales(model)
    inputs = random_batch(model)
    assert_same_function(model, twin, inputs)
    with pytest.raises(kss.ModelError, match=r"kss\.with_scales"):
        kss.attach(model, kss.KernelSize())
    kss.attach(twin, kss.KernelSize())
    assert kss.regularizers_of(twin)["padded"].scale == twin.get_layer("flat").gamma.path
    # Control: the scale is used.
    twin.get_layer("flat").gamma.assign(np.full(4, 1.1))
    with pytest.raises(AssertionError, match="relative difference"):
        assert_same_function(model, twin, inputs)


def test_only_pairs_change_and_the_model_does_not() -> None:
    model = network()
    before = model.get_weights()
    twin = kss.with_scales(model)
    scales = {name: twin.get_layer(name).scale for name in ("first", "flat", "scaled", "last")}
    assert scales == {"first": False, "flat": True, "scaled": True, "last": False}
    assert twin.get_layer("inner").get_layer("norm").scale
    assert twin.get_layer("ends").scale
    np.testing.assert_equal(model.get_weights(), before)
    assert not model.get_layer("flat").scale


def test_kernels_behind_a_new_scale_die_and_are_removed_exactly() -> None:
    use_float64()
    twin = kss.with_scales(network())
    twin.get_layer("inner").get_layer("norm").gamma.assign([1.0, 0.0, -1.0, 0.0])
    plan = kss.plan(twin, tau=0)
    assert plan.widths["inner/conv"] == 2
    pruned = kss.prune(twin, plan)
    assert_same_function(kss.masked(twin, plan), pruned, random_batch(twin))
    assert pruned.get_layer("inner_conv").kernel.shape[-1] < 4
