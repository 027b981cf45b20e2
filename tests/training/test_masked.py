"""Removed groups stay at zero, whatever the optimizer does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
from helpers_training import compiled, digest, images, network

from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.training.grouped_kernels import GroupedKernel, grouped_kernels
from keras_structsparse.training.optimizer.masked import Masked

Array = Any

INNER = {
    "adam": lambda: keras.optimizers.Adam(0.05),
    "adamw": lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
}


def masked_network(
    optimizer: keras.optimizers.Optimizer,
) -> tuple[keras.Model, Masked, Mapping[str, GroupedKernel]]:
    """A compiled network and its optimizer, which is built."""
    keras.utils.set_random_seed(0)
    model = network()
    kernels = grouped_kernels(PrunableLayers.of(model), ["conv"], "half_ring")
    masked = Masked(optimizer, kernels)
    compiled(model, masked)
    masked.build(model.trainable_variables)
    return model, masked, kernels


def some_masks(kernels: Mapping[str, GroupedKernel]) -> dict[int, Array]:
    """One kernel without its outer half-rings, another one gone with its gamma."""
    own = kernels["conv"]
    assert own.gamma is not None
    kernel, gamma = np.ones(own.kernel.shape), np.ones(own.gamma.shape)
    kernel[0, :, :, 1] = kernel[:, 0, :, 1] = 0
    kernel[..., 4], gamma[4] = 0, 0
    return {id(own.kernel): kernel, id(own.gamma): gamma}


def put_to_zero(kernels: Mapping[str, GroupedKernel], masks: Mapping[int, Array]) -> None:
    for variable in kernels["conv"].variables:
        variable.assign(keras.ops.convert_to_numpy(variable) * masks[id(variable)])


@pytest.mark.parametrize("name", INNER)
def test_masked_entries_stay_exactly_zero(name: str) -> None:
    model, masked, kernels = masked_network(INNER[name]())
    model.fit(*images(), epochs=1, verbose=0)  # The moments of all entries are not zero.
    masks = some_masks(kernels)
    put_to_zero(kernels, masks)
    masked.set_masks(masks)
    before = [keras.ops.convert_to_numpy(v).copy() for v in kernels["conv"].variables]
    model.fit(*images(), epochs=2, verbose=0)
    for variable, old in zip(kernels["conv"].variables, before, strict=True):
        mask, new = masks[id(variable)], keras.ops.convert_to_numpy(variable)
        assert (new[mask == 0] == 0).all()
        assert (new[mask == 1] != old[mask == 1]).all()


@pytest.mark.parametrize("name", INNER)
def test_without_masks_the_entries_come_back(name: str) -> None:
    model, _, kernels = masked_network(INNER[name]())
    model.fit(*images(), epochs=1, verbose=0)
    masks = some_masks(kernels)
    put_to_zero(kernels, masks)
    model.fit(*images(), epochs=1, verbose=0)
    own = kernels["conv"]
    assert (keras.ops.convert_to_numpy(own.kernel)[masks[id(own.kernel)] == 0] != 0).any()


@pytest.mark.parametrize("name", INNER)
def test_masks_of_ones_change_no_bit(name: str) -> None:
    model, masked, _ = masked_network(INNER[name]())
    keras.utils.set_random_seed(0)
    alone = compiled(network(), INNER[name]())
    assert digest(model) == digest(alone)
    for each in (model, alone):
        keras.utils.set_random_seed(1)
        each.fit(*images(), epochs=2, verbose=0)
    assert digest(model) == digest(alone)
    inner = masked.optimizer
    assert int(keras.ops.convert_to_numpy(masked.iterations)) == 4
    for left, right in zip(inner.variables, alone.optimizer.variables, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (left, right)))


def test_masks_are_variables_of_the_optimizer_and_kernels_are_not() -> None:
    model, masked, kernels = masked_network(INNER["adam"]())
    theirs = {id(v) for v in masked.variables}
    assert not theirs & {id(v) for v in model.weights}
    assert len(theirs) == len(masked.variables)
    assert {id(v) for v in masked.optimizer.variables} < theirs
    masked.set_masks(some_masks(kernels))
    values = [keras.ops.convert_to_numpy(v).copy() for v in masked.variables]
    _, again, others = masked_network(INNER["adam"]())
    for variable, value in zip(again.variables, values, strict=True):
        variable.assign(value)
    own = others["conv"]
    mask = keras.ops.convert_to_numpy(again._masks[id(own.kernel)])
    np.testing.assert_array_equal(mask, some_masks(others)[id(own.kernel)])
    assert mask.min() == 0


def test_a_list_of_variables_would_belong_to_the_optimizer() -> None:
    class Careless(Masked):
        def __init__(self, optimizer: Any, kernels: Mapping[str, GroupedKernel]) -> None:
            super().__init__(optimizer, kernels)
            self.all = [v for own in kernels.values() for v in own.variables]

    kernels = grouped_kernels(PrunableLayers.of(network()), ["conv"], "half_ring")
    counts = [len(kind(INNER["adam"](), kernels).variables) for kind in (Masked, Careless)]
    assert counts[1] == counts[0] + 2


def test_the_learning_rate_is_that_of_the_wrapped_optimizer() -> None:
    _, masked, _ = masked_network(INNER["adam"]())
    masked.learning_rate = 0.25
    inner = masked.optimizer.learning_rate
    assert float(keras.ops.convert_to_numpy(inner)) == 0.25
    assert masked.learning_rate is inner


def test_a_file_cannot_hold_it(tmp_path: Any) -> None:
    model, _, _ = masked_network(INNER["adam"]())
    with pytest.raises(ValueError, match="Masked: expected the model to be saved after"):
        model.save(tmp_path / "model.keras")
