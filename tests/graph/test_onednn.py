"""Convolutions that oneDNN cannot train: which they are, and who is warned of them."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_structsparse.graph import onednn
from keras_structsparse.graph.onednn import REGISTER, overflowing, overflows, warn_of_overflows
from keras_structsparse.regularizers import KernelCount
from keras_structsparse.regularizers.attachment import attach
from keras_structsparse.training.optimizer.proximal import Proximal

FAULT = r"'strided': strided 1x1 convolutions over fewer than 16 channels.*TF_ENABLE_ONEDNN_OPTS=0"


def model(layer: keras.Layer, channels: int = 3, rank: int = 2) -> keras.Model:
    return keras.Sequential([keras.Input((8,) * rank + (channels,)), layer])


def strided() -> keras.Model:
    return model(L.Conv2D(8, 1, strides=2, name="strided"))


def attached(network: keras.Model) -> None:
    """A function of the library that warns whoever calls it."""
    warn_of_overflows(network)


def test_the_bound() -> None:
    assert overflows((1, 1, REGISTER - 1, 4), (2, 2))
    assert overflows((1, 1, 4, 4), (1, 3))
    assert not overflows((1, 1, REGISTER, 4), (2, 2))
    assert not overflows((1, 1, 4, 4), (1, 1))
    assert not overflows((1, 3, 4, 4), (2, 2))
    assert not overflows((1, 1, 1, 4, 4), (2, 2, 2))


@pytest.mark.parametrize(
    ("network", "found"),
    [
        (lambda: model(L.Conv1D(32, 1, strides=2, name="c"), rank=1), True),
        (lambda: model(L.Conv2D(32, 1, strides=2, name="c")), True),
        (lambda: model(L.Conv2DTranspose(4, 1, strides=2, name="c"), 32), True),
        (lambda: model(model(L.Conv2D(32, 1, strides=2, name="c"))), True),
        (lambda: model(L.Conv2DTranspose(32, 1, strides=2, name="c"), 4), False),
        (lambda: model(L.Conv2D(4, 1, strides=2, name="c"), REGISTER), False),
        (lambda: model(L.Conv2D(4, 1, strides=2, name="c", trainable=False)), False),
        (lambda: model(L.Conv2D(4, 3, strides=2, name="c")), False),
        (lambda: model(L.Conv3D(4, 1, strides=2, name="c"), rank=3), False),
        (lambda: model(L.SeparableConv2D(4, 1, strides=2, name="c")), False),
    ],
)
def test_only_kernels_that_are_trained_over_few_channels_are_found(
    network: Callable[[], keras.Model], found: bool
) -> None:
    assert overflowing(network()) == ["c"] * found


def test_the_layer_and_what_helps_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(onednn, "_USED", {keras.backend.backend(): lambda: True})
    monkeypatch.setattr(onednn, "SWITCHES", {keras.backend.backend(): "TF_ENABLE_ONEDNN_OPTS=0"})
    with pytest.warns(UserWarning, match=FAULT) as caught:
        attached(strided())
    assert "\n" not in str(caught[0].message)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("machine", "used"), [("arm64", True), ("x86_64", False), ("AMD64", False)]
)
def test_nobody_is_warned_where_onednn_is_not_used(
    machine: str, used: bool, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(onednn, "_USED", {keras.backend.backend(): lambda: used})
    warn_of_overflows(strided())
    assert not recwarn.list


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the switch of TensorFlow")
@pytest.mark.parametrize(("value", "used"), [("0", False), ("1", True), (None, True)])
def test_the_switch_is_read(value: str | None, used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", value)
    assert onednn._tensorflow_uses_it() is used


@pytest.fixture
def affected(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor and a backend with the fault."""
    backend = keras.backend.backend()
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(onednn, "_USED", {backend: lambda: True})
    monkeypatch.setattr(onednn, "SWITCHES", {backend: "TF_ENABLE_ONEDNN_OPTS=0"})


def regularized(strides: int = 2) -> keras.Model:
    """A model whose layers were given their regularizers when they were made."""
    layer = L.Conv2D(8, 1, strides=strides, name="strided", kernel_regularizer=KernelCount(1e-3))
    return model(layer)


@pytest.mark.usefixtures("affected")
@pytest.mark.parametrize("optimizer", [lambda: Proximal(keras.optimizers.SGD()), lambda: "sgd"])
def test_a_loaded_model_with_regularizers_of_its_own_is_named_once(
    optimizer: Callable[[], object], tmp_path: Path
) -> None:
    regularized().save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.compile(optimizer(), "mse")
    batch = np.ones((1, 8, 8, 3)), np.ones((1, 4, 4, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded.test_on_batch(*batch)  # evaluates only
    with pytest.warns(UserWarning, match=FAULT):
        loaded.train_on_batch(*batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded.fit(*batch, verbose=0)  # nothing is said twice


@pytest.mark.usefixtures("affected")
@pytest.mark.parametrize("first", [warn_of_overflows, lambda model: attach(model, KernelCount(1))])
def test_who_was_warned_before_is_not_warned_in_training(
    first: Callable[[keras.Model], object],
) -> None:
    network = regularized()
    with pytest.warns(UserWarning, match=FAULT):
        first(network)
    network.compile("sgd", "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network.train_on_batch(np.ones((1, 8, 8, 3)), np.ones((1, 4, 4, 8)))


@pytest.mark.usefixtures("affected")
def test_a_training_that_is_safe_warns_of_nothing() -> None:
    network = regularized(strides=1)
    network.compile("sgd", "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network.train_on_batch(np.ones((1, 8, 8, 3)), np.ones((1, 8, 8, 8)))
