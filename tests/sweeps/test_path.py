"""Paths of alphas: each training starts from the network before, cut to its size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_sweeps import SETTINGS, build, dataset, points

import keras_structsparse as kss
from keras_structsparse.errors import OutputError
from keras_structsparse.regularizers.attachment import regularizers_of
from keras_structsparse.sweeps import Run, Trial, read_run, sweep, sweeping
from keras_structsparse.sweeps.settings import differences
from keras_structsparse.sweeps.trial import TrainedNetwork, train, without_zeros
from keras_structsparse.training.recipes import Recipe

PATH = replace(
    SETTINGS,
    alphas=(0.004, 0.01, 0.02),
    path=Recipe(epochs=2, batch_size=16, ramp=0.0),
    shrink_every=2,
)
WIDTHS = {"conv1": 6, "conv2": 6, "head": 10}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished path of three alphas."""
    return sweep(build, dataset(), PATH, tmp_path_factory.mktemp("sweep") / "run")


def test_trainings_that_need_each_other_are_one_chain() -> None:
    two = replace(PATH, seeds=(0, 1))
    assert [[trial.alpha for trial in chain] for chain in two.chains] == [
        [0.0],
        [0.004, 0.01, 0.02],
        [0.0],
        [0.004, 0.01, 0.02],
    ]
    assert sorted(t.name for c in two.chains for t in c) == sorted(t.name for t in two.trials)
    assert SETTINGS.chains == tuple((trial,) for trial in SETTINGS.trials)


def test_points_are_in_kernels_of_the_base(run: Any) -> None:
    assert {found.trial for found in run.found()} == set(PATH.trials)
    whole = kss.profile(build()).multiply_adds
    for found in run.found():
        model = keras.models.load_model(found.model)
        assert kss.profile(model).multiply_adds == found.point.multiply_adds
        assert found.point.multiply_adds_fraction == found.point.multiply_adds / whole
        if found.trial.alpha:
            assert [len(found.point.sizes[name]) for name in ("conv1", "conv2", "head")] == [
                6,
                6,
                10,
            ]
            left = sum(size > 0 for size in found.point.sizes["conv1"])
            assert left <= model.get_layer("conv1").filters <= left + 1  # a carrier


def test_correlations_are_of_layers_of_the_base(run: Any) -> None:
    found = run.correlations()
    assert list(found) == list(PATH.trials)
    epochs = [len(values["conv1"]) for values in found.values()]
    assert epochs == [5, 5, 2, 2], "the first two start anew"
    assert all(list(values) == list(WIDTHS) for values in found.values())
    assert all(0 < value <= 1 for values in found.values() for value in values["head"])


def test_what_is_gone_stays_gone(run: Any) -> None:
    gone: set[tuple[str, int]] = set()
    for alpha in PATH.alphas:
        state = run.start(Trial(alpha, 0))
        left = {(base, n) for base, numbers in state.ancestry.layers.values() for n in numbers}
        assert not left & gone
        every = {(n, i) for n, width in state.ancestry.widths.items() for i in range(width)}
        gone = every - left
    assert gone, "the control: something has gone"


def test_a_network_goes_on_from_the_one_before_with_its_shares_of_alpha(run: Any) -> None:
    start = run.start(Trial(0.01, 0))
    before = [np.copy(keras.ops.convert_to_numpy(w)) for w in start.model.trainable_weights]
    idle = replace(PATH, path=Recipe(epochs=1, batch_size=16, learning_rate=1e-12, ramp=0.0))
    idle = replace(idle, form=replace(idle.form, weights="params"), shrink_every=None)
    trained = train(build, dataset(), idle, Trial(0.02, 0), start=start)
    for weight, value in zip(trained.model.trainable_weights, before, strict=True):
        np.testing.assert_allclose(weight, value, atol=1e-6)
    base = kss.attach(build(), kss.KernelSize(0.02), weights="params")
    shares = {name: r.weight for name, r in regularizers_of(base).items()}
    found = regularizers_of(trained.model)
    assert {name: r.weight for name, r in found.items()} == {n: shares[n] for n in found}
    assert {float(np.asarray(r.alpha)) for r in found.values()} == {np.float32(0.02)}


def test_it_goes_on_within_a_path(run: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """A file that was written as the last is the last to be there: nothing else is."""
    done: list[Trial] = []

    def failing(*arguments: Any) -> TrainedNetwork:
        if len(done) == 3:
            raise RuntimeError("killed")
        done.append(arguments[3])
        return train(*arguments)

    monkeypatch.setattr(sweeping, "train", failing)
    with pytest.raises(RuntimeError, match="killed"):
        sweep(build, dataset(), PATH, tmp_path / "run")
    assert done == list(PATH.trials[:3])
    done.clear()
    sweep(build, dataset(), PATH, tmp_path / "run")
    assert done == [PATH.trials[3]]
    assert points(read_run(tmp_path / "run")) == points(run)


def test_a_dead_network_ends_its_path(tmp_path: Path) -> None:
    deadly = replace(PATH, alphas=(5.0, 6.0), recipe=replace(PATH.recipe, ramp=0.0))
    found = sweep(build, dataset(), deadly, tmp_path / "run").found()
    assert {f.trial.alpha for f in found} == {0.0}
    assert (tmp_path / "run" / "trials" / "alpha-6.0-seed-0.json").is_file()


def test_a_spoiled_start_is_refused(run: Any, tmp_path: Path) -> None:
    spoiled = Run(tmp_path, run.settings)
    (tmp_path / "models").mkdir()
    file = tmp_path / "models" / "alpha-0.01-seed-0-trained.json"
    for text in ("{", '{"ancestry": {}, "whole": 1}', '{"whole": 1}'):
        file.write_text(text)
        with pytest.raises(OutputError, match="expected the ancestry of a network"):
            spoiled.start(Trial(0.01, 0))


def test_settings_of_paths_are_checked_and_compared() -> None:
    with pytest.raises(ValueError, match="alphas: expected increasing ones for a path"):
        replace(PATH, alphas=(0.02, 0.01))
    with pytest.raises(ValueError, match=r"every: expected a whole number >= 1. Received: 0"):
        replace(PATH, shrink_every=0)
    old = {n: v for n, v in SETTINGS.record().items() if n not in ("path", "shrink_every")}
    assert differences(old, SETTINGS.record()) == []
    assert differences(old, PATH.record())


def test_the_network_to_start_from_is_plain() -> None:
    trained = train(build, dataset(), PATH, PATH.trials[1])
    left = without_zeros(trained)
    assert left is not None
    assert regularizers_of(left.model) == {}
    assert regularizers_of(trained.model)
