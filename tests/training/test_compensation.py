"""What is measured before groups are removed."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers_models import chain, randomize
from keras import layers as L

from keras_structsparse.graph.batch_norm_statistics import reestimate_batch_norm
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.inner_layers import inner_layers
from keras_structsparse.training.compensation import Compensation
from keras_structsparse.training.grouped_kernels import grouped_kernels


@pytest.mark.parametrize("named", [True, False], ids=["named inputs", "an array"])
def test_statistics_are_those_of_the_measured_inputs(named: bool) -> None:
    """Of all batches together; the control: statistics that lag behind the kernels."""
    stack = [
        L.Conv2D(4, 3, use_bias=False, name="conv"),
        L.BatchNormalization(name="norm"),
        L.ReLU(),
        L.Conv2D(3, 1, name="reader"),
        L.GlobalAveragePooling2D(),
        L.Dense(2, name="values"),
    ]
    model, other = (randomize(chain(*stack), 1) for _ in range(2))
    name = model.inputs[0].name
    if named:
        model = keras.Model({name: model.inputs[0]}, model.outputs)
    data = np.random.default_rng(0).standard_normal((12, 9, 9, 2)).astype("float32")
    before = [keras.ops.convert_to_numpy(w) for w in other.get_layer("norm").weights]
    reestimate_batch_norm(other, data)
    wanted = [keras.ops.convert_to_numpy(w) for w in other.get_layer("norm").weights]
    assert max(np.abs(a - b).max() for a, b in zip(before, wanted, strict=True)) > 0.1
    found = PrunableLayers.of(model)
    compensation = Compensation.of(found, grouped_kernels(found, inner_layers(found), "kernel"))
    batches = [(({name: part} if named else part),) for part in np.split(data, 3)]
    compensation.measure(batches)
    for weight, value in zip(model.get_layer("norm").weights, wanted, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), value, rtol=1e-4, atol=1e-5)
