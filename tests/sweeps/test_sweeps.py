"""Sweeps: what they try, what they write, and how they go on after anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_sweeps import SETTINGS, build, dataset, points

import keras_structsparse as kss
from keras_structsparse.data.datasets import Dataset, Split
from keras_structsparse.errors import DatasetError, ModelError, OutputError
from keras_structsparse.models.card import Card
from keras_structsparse.profiling.kernel_correlation import mean_correlation
from keras_structsparse.sweeps import Settings, Trial, open_run, read_run, sweep
from keras_structsparse.sweeps.candidates import find_candidates
from keras_structsparse.sweeps.choosing import Wish, choose_network, hand_over
from keras_structsparse.sweeps.settings import differences
from keras_structsparse.sweeps.trial import Outcome, evaluate, train
from keras_structsparse.training.fit import accuracy
from keras_structsparse.training.penalty_config import PenaltyConfig
from keras_structsparse.training.recipes import Recipe


def outcomes_of(data: Dataset, settings: Settings, trial: Trial) -> list[Outcome]:
    """Train once and evaluate every threshold, as a sweep does."""
    trained = train(build, data, settings, trial)
    return evaluate(trained, data, settings, trial)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished sweep of two alphas."""
    return sweep(build, dataset(), SETTINGS, tmp_path_factory.mktemp("sweep") / "run")


# --- what a sweep leaves ---


def test_every_alpha_and_the_dense_network_have_points(run: Any) -> None:
    assert {found.trial for found in run.found()} == set(SETTINGS.trials)
    dense, *others = run.found()
    assert dense.trial == Trial(0.0, 0)
    assert dense.point.multiply_adds_fraction == 1.0
    assert len(others) > len(SETTINGS.alphas), "one training gives several points"


def test_points_are_those_of_the_networks_beside_them(run: Any) -> None:
    data = dataset()
    for found in run.found():
        model = keras.models.load_model(found.model)
        assert kss.profile(model).multiply_adds == found.point.multiply_adds
        assert kss.profile(model).params == found.point.params
        test, validation = ((part.x, part.y) for part in (data.test, data.validation))
        assert accuracy(model, test) == found.point.accuracy_finetuned
        assert accuracy(model, validation) == found.point.validation_finetuned


def test_a_larger_alpha_leaves_less(run: Any) -> None:
    least = {
        alpha: min(f.point.multiply_adds for f in run.found() if f.trial.alpha == alpha)
        for alpha in (0.0, *SETTINGS.alphas)
    }
    assert list(least.values()) == sorted(least.values(), reverse=True)
    assert least[SETTINGS.alphas[-1]] < least[0.0]


def test_the_test_split_chooses_nothing() -> None:
    data = dataset()
    other = replace(data, test=Split(data.test.x, np.roll(data.test.y, 1)))
    trial = SETTINGS.trials[-1]
    ours, theirs = (
        [point for point, _ in outcomes_of(each, SETTINGS, trial)] for each in (data, other)
    )
    assert [(p.tau, p.sizes) for p in ours] == [(p.tau, p.sizes) for p in theirs]
    assert [p.accuracy_finetuned for p in ours] != [p.accuracy_finetuned for p in theirs]


def test_fine_tuning_changes_the_networks_and_not_their_sizes() -> None:
    tuned = replace(SETTINGS, tuning=Recipe(epochs=1, batch_size=32, ramp=0.0))
    trial = SETTINGS.trials[-1]
    plain, better = (
        [point for point, _ in outcomes_of(dataset(), each, trial)] for each in (SETTINGS, tuned)
    )
    assert [p.sizes for p in plain] == [p.sizes for p in better]
    assert [p.validation_at_surgery for p in plain] == [p.validation_at_surgery for p in better]
    assert [p.validation_finetuned for p in plain] != [p.validation_finetuned for p in better]


def test_records_hold_the_correlation_of_kernels_after_every_epoch(run: Any) -> None:
    found = run.correlations()
    assert list(found) == list(SETTINGS.trials)
    for values in found.values():
        assert list(values) == ["conv1", "conv2", "head"]
        assert {len(own) for own in values.values()} == {SETTINGS.recipe.epochs}
    dense = keras.models.load_model(run.found()[0].model)
    for name, own in found[SETTINGS.trials[0]].items():
        kernel = dense.get_layer(name).kernel.numpy()
        assert own[-1] == pytest.approx(mean_correlation(kernel), abs=1e-6)
        assert own[0] != own[-1], "the control: it changes in training"


# --- going on ---


def test_a_finished_sweep_runs_nothing_again(run: Any) -> None:
    before = {file: file.stat().st_mtime_ns for file in run.folder.rglob("*.*")}

    def never() -> keras.Model:
        raise AssertionError("no trial is missing")

    sweep(never, dataset(), SETTINGS, run.folder)
    assert {file: file.stat().st_mtime_ns for file in run.folder.rglob("*.*")} == before


def test_what_is_missing_is_run_and_nothing_else(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    failing = counted(3)  # The first network is not trained: it proves that it can be stored.
    with pytest.raises(RuntimeError, match="enough"):
        sweep(failing, dataset(), SETTINGS, folder)
    assert {found.trial for found in read_run(folder).found()} == set(SETTINGS.trials[:2])
    # What a killed process was writing.
    (folder / "trials" / ".alpha-0.5-seed-0.0123456789ab.json").write_text("{")
    again = counted(99)
    sweep(again, dataset(), SETTINGS, folder)
    assert again.calls == 1 + len(SETTINGS.trials) - 2
    assert points(read_run(folder)) == points(run)
    assert not list(folder.rglob(".alpha*"))


class counted:
    """A build function that fails after some calls."""

    def __init__(self, most: int) -> None:
        self.calls, self.most = 0, most

    def __call__(self) -> keras.Model:
        """Build, or fail."""
        self.calls += 1
        if self.calls > self.most:
            raise RuntimeError("enough")
        return build()


def test_other_settings_are_refused_and_named(run: Any) -> None:
    other = replace(SETTINGS, alphas=(0.5,), recipe=replace(SETTINGS.recipe, epochs=7))
    with pytest.raises(
        OutputError, match=r"alphas: the run has .*0\.002.*received \[0\.5\]"
    ) as info:
        sweep(build, dataset(), other, run.folder)
    assert "recipe.epochs: the run has 5, received 7" in str(info.value)
    assert "seeds" not in str(info.value)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda record: {**record, "format": "keras_structsparse.sweep/0"}, "expected .*format"),
        (lambda record: [record], "its content is list"),
    ],
)
def test_runs_of_other_versions_are_refused(
    tmp_path: Path, spoil: Callable[[Any], Any], complaint: str
) -> None:
    run = open_run(tmp_path / "run", SETTINGS)
    (run.folder / "settings.json").write_text(json.dumps(spoil(SETTINGS.record())))
    with pytest.raises(OutputError, match=complaint):
        open_run(tmp_path / "run", SETTINGS)


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(OutputError, match=r"--out: expected .* which holds 'thesis\.tex'"):
        sweep(build, dataset(), SETTINGS, tmp_path)
    with pytest.raises(OutputError, match="run: expected a directory of a sweep"):
        read_run(tmp_path)


# --- what is refused at once ---


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"alphas": ()}, "alphas: expected different numbers"),
        ({"alphas": (1e-3, 1e-3)}, "alphas: expected different numbers"),
        ({"alphas": (0.0, 1e-3)}, "alphas: expected numbers > 0"),
        ({"alphas": (float("nan"),)}, "alphas: expected a finite number"),
        ({"taus": (-1.0,)}, "taus: expected a finite number >= 0"),
        ({"seeds": ()}, "seeds: expected different numbers"),
        ({"form": PenaltyConfig("none")}, "form: expected one with a penalty"),
        ({"realize": "one"}, "realize: expected one of"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(SETTINGS, **change)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_an_empty_split_is_refused(part: str, tmp_path: Path) -> None:
    data = dataset()
    nothing: Any = {part: Split(data.test.x[:0], data.test.y[:0])}
    empty: Dataset = replace(data, **nothing)
    with pytest.raises(DatasetError, match=f"none in {part}"):
        sweep(build, empty, SETTINGS, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_build_must_give_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"build: expected .*Received: 'model'"):
        sweep(lambda: "model", dataset(), SETTINGS, tmp_path / "run")


class Forgetful(keras.layers.Layer):
    """A layer whose configuration lacks its argument."""

    def __init__(self, factor: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.factor = factor

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}

    def call(self, inputs: Any) -> Any:
        return self.factor * inputs


def with_last(layer: keras.Layer) -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    return keras.Model(inputs, layer(keras.layers.Dense(10, "softmax")(x)))


@pytest.mark.parametrize(
    ("layer", "complaint"),
    [
        (lambda: keras.layers.Lambda(lambda x: 2 * x), "saved and loaded again.* Lambda layer"),
        (lambda: Forgetful(0.5), r"with the same outputs.*get_config lack an argument"),
        (lambda: keras.layers.ReLU(name="größe $|<"), r"names of layers.*Received: 'größe"),
    ],
)
def test_what_cannot_be_stored_is_said_before_the_first_training(
    tmp_path: Path, layer: Callable[[], keras.Layer], complaint: str
) -> None:
    scope: dict[str, Any] = {"Forgetful": Forgetful}
    expected = pytest.raises(ModelError, match=rf"build: expected .*{complaint}")
    with keras.saving.custom_object_scope(scope), expected:
        sweep(lambda: with_last(layer()), dataset(), SETTINGS, tmp_path / "run")
    assert not (tmp_path / "run" / "trials").exists()


def test_room_for_all_networks_is_needed_before_the_first_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = type("Usage", (), {"free": 20_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    with pytest.raises(OutputError, match=r"--out: expected [0-9,]+ free bytes for 3 networks"):
        sweep(build, dataset(), SETTINGS, tmp_path / "run")
    assert not (tmp_path / "run" / "trials").exists()


def test_forms_are_checked() -> None:
    with pytest.raises(ValueError, match=r"kind: expected one of .* Received: 'kernels'"):
        PenaltyConfig("kernels")
    with pytest.raises(ValueError, match="reweight: expected"):
        PenaltyConfig("none", reweight=0.1)
    wrong: dict[str, Any] = {
        "norm": "l3",
        "groups": "rings",
        "weights": "foo",
        "coupled": "no",
        "reweight": -1.0,
    }
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=f"{name}: expected .* Received: '?{value}"):
            PenaltyConfig(**{name: value})
    made = PenaltyConfig("kernel-size", "linf", "ring", 0.1).regularizer(0.5)
    assert isinstance(made, kss.KernelSize)
    assert (float(made.alpha), made.norm, made.groups, made.reweight) == (0.5, "linf", "ring", 0.1)
    made = PenaltyConfig("multiply-adds", "group_scaled", "ring", 0.1).regularizer(0.5)
    assert isinstance(made, kss.MultiplyAdds)
    assert (made.norm, made.groups, made.reweight) == ("group_scaled", "ring", 0.1)


# --- choosing ---


def test_choices_are_made_by_the_validation_split(run: Any) -> None:
    found = [f for f in run.found() if f.trial.alpha]
    cheapest = min(f.point.multiply_adds for f in found)
    chosen = choose_network(run, Wish(max_multiply_adds=cheapest))
    assert chosen.point.multiply_adds == cheapest
    anything = choose_network(run, Wish(max_drop=1.0))
    assert anything.point.multiply_adds == cheapest
    best = choose_network(run, Wish(max_latency=1e6))
    assert best.point.validation_finetuned == max(f.point.validation_finetuned for f in found)
    for name in ("max_multiply_adds", "max_latency"):
        with pytest.raises(
            ValueError, match=rf"{name}: expected at least .* Received: (0|1e-09 ms)"
        ):
            choose_network(run, Wish(**{name: 1e-9}))
    with pytest.raises(ValueError, match="wish: expected one of"):
        Wish()


def test_the_chosen_network_is_handed_over_with_its_card(run: Any, tmp_path: Path) -> None:
    chosen = choose_network(run, Wish(max_drop=1.0))
    folder = hand_over(run, chosen, tmp_path / "chosen")
    model = keras.models.load_model(folder / "model.keras")
    assert kss.profile(model).multiply_adds == chosen.point.multiply_adds
    assert (folder / "saved_model" / "saved_model.pb").is_file()
    card = (folder / "card.md").read_text()
    assert f"| alpha | {chosen.trial.alpha:g} |" in card
    assert f"{chosen.point.multiply_adds:,}" in card
    record = Card.from_json((folder / "card.json").read_text())
    assert record.to_markdown() == card
    assert (record.alpha, record.seed) == (chosen.trial.alpha, chosen.trial.seed)
    assert record.accuracy == chosen.point.accuracy_finetuned
    assert record.input_shape == (8, 8, 1)
    content = (folder / "model.keras").read_bytes()
    assert record.sha256 == hashlib.sha256(content).hexdigest()
    assert min(record.latency_ms, record.dense_latency_ms) > 0


def test_settings_are_written_down(run: Any) -> None:
    record = json.loads((run.folder / "settings.json").read_text())
    assert record["form"] == asdict(PenaltyConfig())
    assert record["alphas"] == list(SETTINGS.alphas)
    assert Settings(**{**vars(SETTINGS), "seeds": (0, 1)}).record() != record


def test_layers_of_several_sizes_are_realised_as_the_settings_say() -> None:
    sizes = kss.Plan({"conv1": (3, 1, 1, 1, 3, 2), "conv2": (3, 3, 2, 1, 1, 1)})
    model, left = kss.masked(build(), sizes), {}
    for realize in ("crop", "split"):
        wanted = replace(SETTINGS, realize=realize, taus=(0.0,))
        (candidate,) = find_candidates(model, dataset(), wanted)
        assert candidate.plan.sizes["conv1"] == sizes.sizes["conv1"]
        left[realize] = candidate.multiply_adds
    assert left["split"] < left["crop"] == kss.profile(model).multiply_adds


# --- statistics estimated anew ---


def test_statistics_are_estimated_anew_before_thresholds_are_judged() -> None:
    anew = replace(SETTINGS, reestimate=50)
    trial, data = SETTINGS.trials[-1], dataset()
    old, new = (outcomes_of(data, each, trial) for each in (SETTINGS, anew))
    for point, model in new:
        found = model.get_layer("norm1").moving_mean.numpy()
        rows = model.get_layer("conv1")(data.train.x[::12][:50]).numpy()
        rows = rows.reshape(-1, rows.shape[-1])
        spread = rows.min(0) < rows.max(0)
        np.testing.assert_allclose(found[spread], rows.mean(0)[spread], rtol=1e-3, atol=1e-5)
        validation = data.validation.x, data.validation.y
        assert accuracy(model, validation) == point.validation_at_surgery
    means = [outcomes[-1][1].get_layer("norm1").moving_mean.numpy() for outcomes in (old, new)]
    assert means[0].shape != means[1].shape or not np.allclose(*means), "the control"


def test_a_run_without_estimation_goes_on() -> None:
    record = SETTINGS.record()
    old = {name: value for name, value in record.items() if name != "reestimate"}
    assert differences(old, record) == []
    anew = replace(SETTINGS, reestimate=50)
    assert differences(old, anew.record()) == ["reestimate: the run has None, received 50"]
    with pytest.raises(ValueError, match="reestimate: expected a whole number >= 1"):
        replace(SETTINGS, reestimate=-1)
