"""Damaged run directories end in the points of an undisturbed run, or in one line with the file."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import pytest
from helpers_damage import Damage, damages, outcome
from helpers_sweeps import SETTINGS, build, dataset, points
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from keras_structsparse._files import write_atomically
from keras_structsparse.errors import OutputError, StructSparseError
from keras_structsparse.sweeps import Run, Trial, open_run, read_run, run_directory, sweep, sweeping
from keras_structsparse.sweeps.choosing import Wish, choose_network
from keras_structsparse.training.recipes import Recipe

PATH = replace(
    SETTINGS,
    recipe=Recipe(epochs=1, batch_size=64),
    path=Recipe(epochs=1, batch_size=64, ramp=0.0),
)
"""A path: it has every kind of file."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run that nobody disturbed."""
    return sweep(build, dataset(), PATH, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def copy(whole: Run, tmp_path: Path) -> Path:
    """A copy of its directory."""
    return Path(shutil.copytree(whole.folder, tmp_path / "run"))


@pytest.fixture
def replayed(whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training gives what it gave in the undisturbed run: hypothesis needs many of them."""
    found, models = whole.found(), whole.folder / "models"

    def run(run: Run, build: Any, data: Any, settings: Any, link: Any, *_: Any) -> Any:
        _, trial = link
        for file in models.glob(f"{trial.name}-trained.*"):
            write_atomically(run.folder / "models" / file.name, partial(shutil.copyfile, file))
        own = [(each.point, None) for each in found if each.trial == trial]
        return own, whole.correlations().get(trial, {})

    def save(model: None, path: Path) -> None:
        write_atomically(path, partial(shutil.copyfile, models / path.name))

    monkeypatch.setattr(sweeping, "_run", run)
    monkeypatch.setattr(sweeping, "_check_build", lambda *_: None)
    monkeypatch.setattr(run_directory, "save_model", save)


@pytest.fixture(scope="module")
def expected(whole: Run) -> dict[str, Any]:
    """What comes of the undisturbed run."""
    return {use.__name__: use(whole.folder) for use in (read, resumed)}


def resumed(folder: Path) -> Any:
    """The points of the sweep that goes on."""
    return points(going_on(folder)[0])


def going_on(folder: Path) -> tuple[Run, list[str]]:
    """The sweep that goes on, and its warnings. keras-tuner gives some of its own."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run = sweep(build, dataset(), PATH, folder)
    return run, [str(each.message) for each in said if each.category is UserWarning]


def read(folder: Path) -> Any:
    """The points of the run as it is, and the choice of a network."""
    run = read_run(folder)
    chosen = choose_network(run, Wish(max_drop=1.0))
    return points(run), chosen.point, chosen.model.read_bytes()


def check(folder: Path, expected: Any, damage: Damage, use: Callable[[Path], Any]) -> None:
    """The undisturbed points, or an error that names the file."""
    unfinished = damage.kind == "gone" and damage.file.startswith("trials/")
    if use is read and unfinished:
        event("read: unfinished")
        assert [f"trials/{trial.name}.json" for trial in read_run(folder).missing()] == [
            damage.file
        ], "a report says so"
        return
    found, said = outcome(lambda: use(folder), StructSparseError)
    event(f"{use.__name__}: {'same' if said is None else 'refused'}")
    if said is None:
        assert found == expected[use.__name__], damage
        return
    name = Path(damage.file).name.removeprefix(".").partition("-tau-")[0]
    assert name.removesuffix(".keras") in said, f"{damage}: {said}"
    assert len(said) < 1000, damage


def attack(whole: Run, expected: Any, folder: Path, data: st.DataObject) -> None:
    """Damage a copy, read it and go on with it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole.folder, folder)
    damage = data.draw(damages(folder))
    check(folder, expected, damage, read)
    check(folder, expected, damage, resumed)


@pytest.mark.usefixtures("replayed")
@settings(suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage_is_mended_or_named(
    whole: Run, expected: Any, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    attack(whole, expected, tmp_path_factory.getbasetemp() / "damaged", data)


@pytest.mark.slow
@pytest.mark.usefixtures("replayed")
@settings(suppress_health_check=list(HealthCheck), max_examples=1000, derandomize=False)
@given(data=st.data())
def test_damage_is_mended_or_named_in_a_thousand_cases(
    whole: Run, expected: Any, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    attack(whole, expected, tmp_path_factory.getbasetemp() / "damaged", data)


# --- networks that are lost ---


@pytest.mark.parametrize("damage", ["missing", "empty", "changed"])
def test_a_lost_network_is_trained_again_and_said(whole: Run, copy: Path, damage: str) -> None:
    lost = read_run(copy).found()[-1]
    if damage == "missing":
        lost.model.unlink()
    else:
        content = lost.model.read_bytes()
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        lost.model.write_bytes(changed if damage == "changed" else b"")
    with pytest.raises(OutputError, match=rf"{lost.model}, which is missing or damaged\. .*again"):
        choose_network(read_run(copy), Wish(max_drop=1.0))
    run, said = going_on(copy)
    again = f"is missing or damaged, so {lost.trial.name} is trained again"
    assert said == [f"run: {lost.model} {again}"]
    assert points(run) == points(whole)
    assert run.lost() == {}


def test_only_the_lost_trial_is_trained_again(copy: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in copy.glob("trials/*")}
    first = read_run(copy).found()[0]
    first.model.unlink()
    going_on(copy)
    after = {file.name: file.stat().st_mtime_ns for file in copy.glob("trials/*")}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"{first.trial.name}.json"}


# --- runs belong to their settings ---


def test_trials_without_settings_are_refused_by_name(copy: Path) -> None:
    (copy / "settings.json").unlink()
    for other in (PATH, replace(PATH, alphas=(0.5,))):
        with pytest.raises(OutputError, match=r"settings\.json\. .*trials/alpha-0\.0-seed-0\.json"):
            open_run(copy, other)
    shutil.rmtree(copy / "trials")
    with pytest.raises(OutputError, match=r"models/alpha-0\.0-seed-0-tau-0\.0\.keras"):
        open_run(copy, PATH)
    shutil.rmtree(copy / "models")
    assert open_run(copy, PATH).found() == [], "the control"


def test_trials_of_other_settings_are_refused_by_name(copy: Path) -> None:
    record = json.loads((copy / "settings.json").read_text())
    record["recipe"]["epochs"] += 1
    (copy / "settings.json").write_text(json.dumps(record))
    other = replace(PATH, recipe=replace(PATH.recipe, epochs=PATH.recipe.epochs + 1))
    with pytest.raises(OutputError, match=r"trials/alpha-.*\.json, which is of other settings"):
        open_run(copy, other)
    with pytest.raises(OutputError, match="which is of other settings"):
        read_run(copy).found()


def test_an_entry_of_none_counts_as_missing(copy: Path) -> None:
    record = json.loads((copy / "settings.json").read_text())
    assert record.pop("reestimate", 0) is None
    (copy / "settings.json").write_text(json.dumps(record))
    assert len(open_run(copy, PATH).trials()) == len(PATH.trials)


def test_a_trial_under_another_name_is_refused(copy: Path) -> None:
    first, second, *_ = (copy / "trials" / f"{trial.name}.json" for trial in PATH.trials)
    second.write_bytes(first.read_bytes())
    with pytest.raises(OutputError, match=rf"{second}, which holds the trial alpha-0\.0-seed-0"):
        read_run(copy).found()


@pytest.mark.parametrize("part", ["trials", "models"])
def test_what_cannot_be_replaced_is_named_before_the_training(tmp_path: Path, part: str) -> None:
    folder = open_run(tmp_path / "run", PATH).folder
    (folder / part / "thing.keras").mkdir(parents=True)

    def never() -> keras.Model:
        raise AssertionError("nothing is trained")

    with pytest.raises(OutputError, match=rf"expected a file\. Received: .*{part}/thing\.keras"):
        sweep(never, dataset(), PATH, folder)
    shutil.rmtree(folder / part)
    (folder / part).touch()
    with pytest.raises(OutputError, match=rf"expected a directory\. Received: .*{part}"):
        sweep(never, dataset(), PATH, folder)


def test_trials_are_those_of_the_settings() -> None:
    assert Trial(0.002, 0) in PATH.trials
    assert Trial(0.003, 0) not in PATH.trials
