"""A new head is trained alone, then with the rest; the result is found again."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as kl

from keras_structsparse.errors import OutputError
from keras_structsparse.training.head_training import frozen_epochs, trained_with_head

RNG = np.random.default_rng(0)
LABELS = np.arange(32) % 2
DATA = (RNG.random((32, 8, 8, 1)) + LABELS[:, None, None, None]).astype("float32"), LABELS


def backbone() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    x = kl.BatchNormalization(name="norm")(kl.Conv2D(4, 3, name="conv")(inputs))
    return keras.Model(inputs, kl.ReLU()(x))


class Watch(keras.callbacks.Callback):
    """Stores a kernel and a statistic of the backbone after every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[float] = []
        self.means: list[float] = []

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.kernels.append(float(np.sum(self.model.get_layer("conv").get_weights()[0])))
        self.means.append(float(np.sum(self.model.get_layer("norm").get_weights()[2])))


def test_the_backbone_is_frozen_at_first() -> None:
    base, watch = backbone(), Watch()
    kernel = float(np.sum(base.get_layer("conv").get_weights()[0]))
    model = trained_with_head(base, 2, DATA, DATA, 4, 8, [watch])
    assert watch.kernels[:2] == pytest.approx([kernel] * 2)
    assert watch.means[:2] == [0.0, 0.0]  # normalisations compute as in inference
    assert watch.kernels[2] != pytest.approx(kernel)
    assert watch.means[2] != 0.0
    assert float(np.sum(base.get_layer("conv").get_weights()[0])) == kernel
    assert model.output_shape == (None, 2)
    assert all(layer.trainable for layer in model.layers)
    assert "accuracy" in model.evaluate(*DATA, verbose=0, return_dict=True)


def test_frozen_epochs_leave_some_for_the_rest() -> None:
    assert [frozen_epochs(n) for n in (2, 3, 6, 100)] == [1, 1, 3, 3]


def test_a_trained_network_is_found_again(tmp_path: Path) -> None:
    base, watch = backbone(), Watch()
    first = trained_with_head(base, 2, DATA, None, 2, 8, workdir=tmp_path)
    again = trained_with_head(base, 2, DATA, None, 2, 8, [watch], workdir=tmp_path)
    assert not watch.kernels
    for left, right in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    with pytest.raises(OutputError, match="workdir: expected a directory of this model"):
        trained_with_head(base, 3, DATA, None, 2, 8, workdir=tmp_path)
