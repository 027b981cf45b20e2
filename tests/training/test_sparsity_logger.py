"""What the logs of an epoch say about the kernels."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.profiling.kernel_correlation import mean_correlation
from keras_structsparse.training.callbacks.sparsity_logger import SparsityLogger

Array = Any


def network() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    x = L.Conv2D(6, 5, padding="same", use_bias=False, name="conv1")(inputs)
    x = L.ReLU()(L.BatchNormalization(name="norm1")(x))
    x = L.Conv2D(4, 3, activation="relu", padding="same", name="conv2")(x)
    x = L.Dense(2, activation="softmax", name="classes")(L.GlobalMaxPooling2D()(x))
    model = kss.attach(keras.Model(inputs, x), kss.KernelSize(1e-3), weights="multiply_adds")
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def train(model: keras.Model, callbacks: list[keras.callbacks.Callback], epochs: int = 2) -> Any:
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 1))
    labels = np.arange(8) % 2
    return model.fit(images, labels, epochs=epochs, callbacks=callbacks, verbose=0).history


def entries(model: keras.Model, **options: Any) -> dict[str, float]:
    """What the logs of one epoch hold."""
    logger, logs = SparsityLogger(**options), dict[str, float]()
    logger.set_model(model)
    logger.on_train_begin()
    logger.on_epoch_end(0, logs)
    return logs


def prune_by_hand(model: keras.Model) -> kss.Plan:
    plan = kss.Plan({"conv1": (5, 5, 3, 2, 0, 0), "conv2": (3, 0, 1, 3)})
    model.set_weights(kss.masked(model, plan).get_weights())
    return plan


def test_a_whole_network_counts_in_full() -> None:
    model = network()
    logs = entries(model)
    whole = kss.profile(model)
    assert logs["conv1/width"] == logs["conv1/size_5"] == 6
    assert logs["total/width"] == 12
    assert logs["total/multiply_adds"] == whole.multiply_adds
    assert logs["total/multiply_adds_fraction"] == 1
    own = {layer.name: layer.multiply_adds for layer in whole.layers}
    assert logs["conv2/multiply_adds"] == own["conv2"]
    assert logs["total/penalty"] == pytest.approx(float(sum(model.losses)), rel=1e-6)
    assert logs["conv1/penalty"] == pytest.approx(float(model.losses[0]), rel=1e-6)
    assert "classes/penalty" not in logs


def test_correlations_are_those_of_the_kernels_that_are_left() -> None:
    model = network()
    prune_by_hand(model)
    logs = entries(model, tau=0.0)
    kernel = np.asarray(model.get_layer("conv2").kernel)
    assert logs["conv2/correlation"] == mean_correlation(kernel[..., [0, 2, 3]])
    assert 0 < logs["conv1/correlation"] < 1
    assert logs["conv1/correlation"] != logs["conv2/correlation"]


def test_a_sparse_network_counts_as_its_plan_and_its_surgery_say() -> None:
    model = network()
    plan = prune_by_hand(model)
    logs = entries(model, tau=0.0)
    for name, sizes in plan.sizes.items():
        assert logs[f"{name}/width"] == plan.widths[name]
        counts = [logs[f"{name}/size_{size}"] for size in range(max(sizes) + 1)]
        assert counts == [sizes.count(size) for size in range(max(sizes) + 1)]
    pruned = kss.profile(kss.prune(model, tau=0.0)).multiply_adds
    assert logs["total/multiply_adds"] == pytest.approx(pruned, rel=0.02)
    assert logs["total/multiply_adds_fraction"] < 0.6


def test_the_names_are_always_the_same() -> None:
    model = network()
    before = set(entries(model))
    prune_by_hand(model)
    assert set(entries(model)) == before
    assert {f"conv1/size_{size}" for size in range(6)} < before
    rings = set(entries(model, groups="ring"))
    assert {name for name in rings if name.startswith("conv1/size")} == {
        f"conv1/size_{size}" for size in (0, 1, 3, 5)
    }


def test_files_and_history_hold_every_entry(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "log.csv"
    history = train(model, [SparsityLogger(), keras.callbacks.CSVLogger(str(path))])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = set(entries(model))
    assert names < set(rows[0])
    assert names < set(history)
    assert [float(row["conv1/size_5"]) for row in rows] == history["conv1/size_5"] == [6, 6]
    assert all(math.isfinite(float(row[name])) for row in rows for name in names)


def test_a_logger_that_stands_behind_the_file_is_not_in_it(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    train(network(), [keras.callbacks.CSVLogger(str(path)), SparsityLogger()])
    assert "conv1/width" not in path.read_text()


def test_tensorboard_gets_scalars(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras writes for TensorBoard with TensorFlow")
    train(network(), [SparsityLogger(), keras.callbacks.TensorBoard(str(tmp_path))])
    events = accumulator.EventAccumulator(str(tmp_path / "train"))
    events.Reload()
    tags = {tag.removeprefix("epoch_") for tag in events.Tags()["tensors"]}
    assert {"conv1/width", "conv2/size_3", "total/multiply_adds_fraction"} < tags


@pytest.mark.parametrize(("argument", "value"), [("tau", -1.0), ("tau", math.nan)])
def test_bad_thresholds_are_refused(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{argument}: expected .*Received: {value}"):
        SparsityLogger(**{argument: value})


def test_groups_without_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="groups"):
        SparsityLogger(groups="kernel")
