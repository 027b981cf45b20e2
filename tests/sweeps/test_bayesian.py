"""Bayesian searches: what they ask for, what they come to, and how they go on."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers_sweeps import SETTINGS, build, dataset, points

from keras_structsparse.sweeps import Settings, Trial, read_run, sweep
from keras_structsparse.sweeps.bayesian_oracle import BayesianOracle, search_between
from keras_structsparse.sweeps.points import Point, score
from keras_structsparse.sweeps.settings import Search
from keras_structsparse.sweeps.tuner import Around
from keras_structsparse.training.penalty_config import PenaltyConfig
from keras_structsparse.training.recipes import Recipe

SEARCH = Search(trials=11, budget=0.5, reweight=(0.03, 0.3), learning_rate=(0.01, 1.0))
"""The first nine are random."""
WIDE = Settings("net", "data", (1e-4, 1e-1), form=PenaltyConfig(reweight=0.1), search=SEARCH)
BEST = Trial(1e-2, 0, 0.1, 0.1)


def worth(trial: Trial) -> float:
    """Highest at BEST, and smooth in the logarithms."""
    if not trial.alpha:
        return 0.0
    assert trial.reweight is not None
    assert trial.learning_rate is not None
    return 1.0 - sum(
        (value / best) ** 0.5 + (best / value) ** 0.5 - 2.0
        for value, best in (
            (trial.alpha, 1e-2),
            (trial.reweight, 0.1),
            (trial.learning_rate, 0.1),
        )
    )


AROUND = Around(lambda: False, print)


def tried(settings: Settings, known: list[tuple[Trial, float]] | None = None) -> list[Trial]:
    """What a search tries."""
    found: list[Trial] = []

    def work(trial: Trial) -> float:
        found.append(trial)
        return worth(trial)

    search_between(settings, known or [], work, AROUND)
    return found


@functools.cache
def undisturbed() -> list[Trial]:
    """What a search tries that nobody stops."""
    return tried(WIDE)


def test_the_dense_network_comes_first_and_values_stay_in_their_ranges() -> None:
    dense, *others = undisturbed()
    assert dense == Trial(0.0, 0)
    assert len(set(others)) == SEARCH.trials
    for trial in others:
        assert 1e-4 <= trial.alpha <= 1e-1
        assert trial.reweight is not None
        assert 0.03 <= trial.reweight <= 0.3
        assert trial.learning_rate is not None
        assert 0.01 <= trial.learning_rate <= 1.0


def test_it_finds_what_chance_does_not() -> None:
    """The process behind it, not its random first trials, comes near the best values."""
    trials = tried(replace(WIDE, search=replace(SEARCH, trials=18)))[1:]
    first, later = trials[:9], trials[9:]
    assert max(map(worth, later)) > max(map(worth, first))
    assert max(map(worth, later)) > 0.9


def test_without_ranges_only_alpha_is_searched() -> None:
    settings = replace(WIDE, search=Search(trials=2, budget=0.5))
    trials: list[Trial] = []

    def work(trial: Trial) -> float:
        trials.append(trial)
        return 0.5

    search_between(settings, [], work, AROUND)
    assert [(t.reweight, t.learning_rate) for t in trials] == [(None, None)] * 3
    assert settings.form_of(trials[1]) == settings.form
    assert settings.recipe_of(trials[1]) == settings.recipe


@pytest.mark.parametrize("done", [0, 5, 11])
def test_a_search_that_was_stopped_goes_on_with_the_same_trials(done: int) -> None:
    whole = undisturbed()
    known = [(trial, worth(trial)) for trial in whole[:done]]
    assert tried(WIDE, known[::-1]) == whole[done:]


def test_a_gap_is_filled_with_another_trial() -> None:
    """Of two workers the one with the earlier trial was killed."""
    whole = undisturbed()
    known = [(trial, worth(trial)) for trial in [*whole[:3], *whole[4:]]]
    (last,) = tried(WIDE, known)
    assert last not in [trial for trial, _ in known]


def test_another_seed_searches_elsewhere() -> None:
    few = replace(WIDE, search=replace(SEARCH, trials=1))
    assert tried(few)[1].alpha != tried(replace(few, seeds=(1,)))[1].alpha


def test_a_finished_search_asks_for_nothing() -> None:
    known = [(trial, worth(trial)) for trial in undisturbed()]
    assert tried(WIDE, known) == []


def point(fraction: float, accuracy: float) -> Point:
    return Point(1.0, 0.0, 1, fraction, 1, accuracy, accuracy, 0.0, 0.0, {})


def test_scores() -> None:
    found = [point(0.3, 0.8), point(0.45, 0.85), point(0.7, 0.9)]
    assert score(found, 0.5) == 0.85
    assert score(found, 1.0) == 0.9
    assert score(found, 0.2) == pytest.approx(-0.1)
    assert score([], 0.5) == 0.0


def test_what_is_searched_is_what_is_trained() -> None:
    trial = Trial(1e-3, 0, reweight=0.2, learning_rate=0.5)
    assert WIDE.form_of(trial) == replace(WIDE.form, reweight=0.2)
    assert WIDE.recipe_of(trial) == replace(WIDE.recipe, learning_rate=0.5)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"alphas": (1e-3,)}, "alphas: expected at least two"),
        ({"seeds": (0, 1)}, "seeds: expected one"),
        ({"path": Recipe(1)}, "path: expected none"),
    ],
)
def test_settings_that_no_search_has(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        replace(WIDE, **change)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"trials": 0}, "trials: expected"),
        ({"budget": 0.0}, "budget: expected a number in"),
        ({"budget": 1.5}, "budget: expected a number in"),
        ({"reweight": (0.3, 0.1)}, "reweight: expected two rising"),
        ({"learning_rate": (0.0, 0.1)}, "learning_rate: expected a finite number > 0"),
    ],
)
def test_searches_out_of_range(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Search(**{"trials": 3, "budget": 0.5, **values})


def test_a_search_on_digits(tmp_path: Path) -> None:
    """Stopped in the middle and begun again, it ends with the points of one that was not."""
    search = Search(trials=3, budget=0.6, learning_rate=(0.02, 0.2))
    settings = replace(SETTINGS, search=search, recipe=Recipe(epochs=1, batch_size=32))
    run = sweep(build, dataset(), settings, tmp_path / "run")
    assert len(run.trials()) == 4
    assert {bool(found.trial.learning_rate) for found in run.found() if found.trial.alpha} == {True}
    before = points(run)
    last = max((tmp_path / "run" / "trials").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    last.unlink()
    assert len(read_run(tmp_path / "run").trials()) == 3
    assert points(sweep(build, dataset(), settings, tmp_path / "run")) == before


def test_an_oracle_knows_what_runs_elsewhere(tmp_path: Path) -> None:
    """A second worker gets other values while the first one trains."""
    oracle = BayesianOracle(WIDE, [])
    oracle._set_project_dir(tmp_path, "search")
    trials = [oracle.create_trial(f"worker-{index}") for index in range(3)]
    assert [trial.hyperparameters.values["alpha"] == 0 for trial in trials] == [True, False, False]
    assert trials[1].hyperparameters.values != trials[2].hyperparameters.values
