"""Networks that are shrunk to a budget."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import difference
from helpers_shrinking import CROSS, ready, shrunk, values

import keras_structsparse as kss
from keras_structsparse.export.clean_process import check_portable
from keras_structsparse.export.formats import load_model
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.training.shrink import smallest

pytestmark = [
    pytest.mark.filterwarnings("ignore:shrink. accuracy changed:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("residual", "multiply_adds"),
        ("separable", "params"),
        ("dense", "params"),
        ("series", "multiply_adds"),
    ],
)
def test_the_budget_is_met_and_the_network_computes_the_same(name: str, unit: str) -> None:
    model, data = ready(name)
    result = shrunk(model, data, data, **{unit: 0.5})
    before, after = (getattr(kss.profile(each), unit) for each in (model, result.model))
    assert 0.2 * before < after <= 0.5 * before
    assert getattr(result.comparison, unit) == (before, after)
    assert result.verification is None or bool(result.verification)
    assert not any("expected" in text for text in result.warnings)
    assert result.history["share"][-1] <= 0.5
    assert len(result.history["val_loss"]) == 2
    assert result.judge is not None
    assert result.judge.metric == "accuracy"
    evaluated = result.model.evaluate(*data, verbose=0, return_dict=True)
    assert evaluated == pytest.approx(dict(result.after), rel=1e-4)
    assert list(result.plan.sizes)


def test_what_cannot_be_met_is_said_with_numbers() -> None:
    model, data = ready("residual")
    for name in ("stem", "b", "c"):
        model.get_layer(name).trainable = False
    model.compile(keras.optimizers.Adam(0.01), CROSS, run_eagerly=True)
    with pytest.warns(UserWarning, match=r"shrink: expected 5.0% of the multiply-adds. Received"):
        result = shrunk(model, data, multiply_adds=0.05)
    left = result.comparison.multiply_adds_fraction
    assert left > 0.1
    assert f"Received {left:.1%}" in result.warnings[0]


def test_frozen_kernels_keep_their_entries() -> None:
    model, data = ready("plain")
    model.get_layer("b").trainable = False
    model.compile(keras.optimizers.Adam(0.05), CROSS, run_eagerly=True)
    old = values([model.get_layer("b").kernel])[0]
    sizes = {}
    result = shrunk(model, data, multiply_adds=0.6)
    sizes = result.plan.sizes
    assert set(sizes["b"]) == {2}
    kept = np.flatnonzero(sizes["a"])
    assert len(kept) < 6 or set(sizes["a"]) != {3}
    parts = [x for x in result.model.layers if x.name.startswith("b")]
    kernels = [values([x.kernel])[0] for x in parts if hasattr(x, "kernel")]
    assert all(np.isin(kernel, old).all() for kernel in kernels)
    assert kernels


def test_the_given_model_is_not_changed() -> None:
    model, data = ready("plain")
    kept = (model.optimizer, model.loss, model.train_function)
    variables = [*model.variables, *model.optimizer.variables]
    trainable = [layer.trainable for layer in model.layers]
    before, config = values(variables), str(model.get_compile_config())
    result = shrunk(model, data, data)
    for own, old in zip(values(variables), before, strict=True):
        np.testing.assert_array_equal(own, old)
    assert kept == (model.optimizer, model.loss, model.train_function)
    assert str(model.get_compile_config()) == config
    assert [layer.trainable for layer in model.layers] == trainable
    assert not {id(v) for v in result.model.variables} & {id(v) for v in model.variables}
    model.fit(*data, epochs=1, verbose=0)  # It trains on, and the control changes.
    pairs = zip(values(variables), before, strict=True)
    assert sum(not np.array_equal(own, old) for own, old in pairs) > 10


def test_the_result_is_compiled_as_the_model_was_and_trains_on() -> None:
    model, data = ready("dense", metrics=["accuracy"], weighted_metrics=["accuracy"])
    result = shrunk(model, data)
    own, theirs = (each.get_compile_config() for each in (model, result.model))
    for name in ("loss", "metrics", "weighted_metrics", "loss_weights"):
        assert own[name] == theirs[name]
    assert len(result.model.fit(*data, epochs=1, verbose=0).history) == 3


def test_without_validation_nothing_is_judged() -> None:
    model, data = ready("dense")
    result = shrunk(model, data)
    assert (dict(result.before), dict(result.after), result.judge) == ({}, {}, None)
    assert np.isnan(result.drop)
    assert "val_loss" not in result.history


def test_the_teacher_teaches_in_both_stages() -> None:
    """With the whole weight on the teacher, the labels do not count."""
    model, (x, y) = ready("dense")
    method = kss.ShrinkMethod(distillation=1.0)
    kernels = []
    for labels in (y, 1 - y):
        keras.utils.set_random_seed(0)
        result = shrunk(model, (x, labels), method=method, multiply_adds=1.0)
        kernels.append(values(result.model.weights))
    for own, other in zip(*kernels, strict=True):
        np.testing.assert_array_equal(own, other)
    trained = zip(kernels[0], values(model.weights), strict=True)
    assert any(not np.array_equal(a, b) for a, b in trained)


def test_early_stopping_ends_a_stage_but_the_budget_is_met() -> None:
    model, data = ready("dense")

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = True

    result = shrunk(model, data, epochs=6, callbacks=[Stop()])
    assert len(result.history["loss"]) == 2
    assert result.comparison.multiply_adds_fraction <= 0.5


def test_the_file_needs_nothing_of_this_package(tmp_path: Path) -> None:
    model, data = ready("residual", run_eagerly=False)
    result = shrunk(model, data, data)
    folder = result.save(tmp_path / "out", formats=())
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {"model.keras", "plan.json", "card.md", "history.json"}
    assert "| multiply-adds |" in (folder / "card.md").read_text()
    assert kss.Plan.from_json((folder / "plan.json").read_text()).sizes == result.plan.sizes
    path = folder / "model.keras"
    assert check_portable(result.model, [path], data[0])[path] < 1e-5
    loaded = keras.models.load_model(path)
    assert not loaded.compiled  # and no moments of an optimizer in the file
    assert kss.compare(model, loaded).layers == result.comparison.layers
    assert difference(result.model, model, data[0]) > 1e-2  # the control


def test_a_split_layer_is_known_in_the_file_and_when_it_is_shrunk_again(tmp_path: Path) -> None:
    model, data = ready("residual")
    plan = kss.Plan({"c": (3, 3, 1, 1)})
    pruned = kss.prune(model, plan, realize="split")
    pruned.compile("adam", CROSS)
    result = shrunk(pruned, data, multiply_adds=1.0)
    loaded = load_model(result.save(tmp_path / "out", formats=()) / "model.keras")
    for found in (result.model, loaded):
        parts = {each.name: each.parts for each in kss.compare(model, found).layers}
        assert len(parts["c"]) == 2
    lost = {each.name for each in kss.compare(model, copy_model(result.model)).layers}
    assert lost > set(parts)  # the control


def test_max_drop_finds_a_network_on_an_easy_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smallest, "ATTEMPTS", 2)
    model, data = ready("dense", run_eagerly=False)
    model.fit(*data, epochs=30, verbose=0)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        result = shrunk(model, data, data, max_drop=0.2, workdir=tmp_path / "work", epochs=4)
    assert result.drop <= 0.2
    assert result.comparison.multiply_adds_fraction < 0.9
    assert len(list((tmp_path / "work").glob("share-*"))) == 2
    said = [str(each.message) for each in heard if str(each.message).startswith("shrink:")]
    assert said == list(result.warnings)  # nothing of the attempts


def test_max_drop_refuses_the_impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smallest, "ATTEMPTS", 2)
    model, (x, y) = ready("dense", run_eagerly=False)
    model.fit(x, y, epochs=40, verbose=0)
    method = kss.ShrinkMethod(distillation=0.0, learning_rate=0.3)
    wrong = (x, 1 - y)  # Trained on wrong labels, every network is worse.
    with pytest.raises(kss.ModelError, match=r"expected a smaller network that loses at most 0.05"):
        shrunk(model, wrong, (x, y), max_drop=0.05, method=method, epochs=6)
