"""A Bayesian search over alpha, the reweighting and the learning rate.

keras-tuner's Gaussian process proposes the trainings. It is fed from the run directory only, so a
search that was killed continues with the trials that it would have tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras_tuner
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.sweeps.chief import Sessions
from keras_structsparse.sweeps.settings import Settings, Trial
from keras_structsparse.sweeps.tuner import OBJECTIVE, Around, consult

Score = tuple[Trial, float]
"""A finished trial and its value, see :func:`keras_structsparse.sweeps.points.score`."""

ATTEMPTS = 50
"""How often the oracle proposes another trial in place of one that is finished."""

ALPHA, REWEIGHT, RATE = "alpha", "reweight", "learning_rate"


class BayesianOracle(Sessions, keras_tuner.oracles.BayesianOptimizationOracle):
    """Hands out the dense network's trial, then those that a Gaussian process proposes.

    The proposals depend on the seed and the finished trials alone, not on their order or on the
    process that ran them.

    Args:
        settings: The settings of the sweep, with a search.
        finished: The finished trials.
    """

    trials: dict[str, Any]

    def __init__(self, settings: Settings, finished: Sequence[Score]) -> None:
        assert settings.search is not None
        self._dense = Trial(0.0, settings.seeds[0])
        space = keras_tuner.HyperParameters()
        ranges = {
            ALPHA: (min(settings.alphas), max(settings.alphas)),
            REWEIGHT: settings.search.reweight,
            RATE: settings.search.learning_rate,
        }
        for name, ends in ranges.items():
            if ends is not None:
                space.Float(name, *ends, sampling="log")
        super().__init__(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            max_trials=settings.search.trials + 1,
            # keras-tuner's default for this number of dimensions, and one for the dense network.
            num_initial_points=3 * len(space.space) + 1,
            # The oracle takes a seed of 0 for none.
            seed=settings.seeds[0] + 1,
            hyperparameters=space,
            allow_new_entries=False,
            tune_new_entries=False,
        )
        for trial, value in sorted(finished, key=lambda pair: pair[0].alpha):
            self._remember(trial, value)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The values of the next trial."""
        tried = [trial.hyperparameters.values for trial in self.trials.values()]
        if not any(values[ALPHA] == 0 for values in tried):
            return {"status": "RUNNING", "values": values_of(self._dense)}
        for attempt in range(ATTEMPTS):
            self._seed_state = ATTEMPTS * (self.seed + len(tried)) + attempt
            self._random_state = np.random.RandomState(self._seed_state)
            found = super().populate_space(trial_id)
            # Short names of files.
            values = {name: float(f"{value:.4g}") for name, value in found["values"].items()}
            if values not in tried:
                return {**found, "values": values}
        return {"status": "STOPPED", "values": None}

    def _vectorize_trials(self) -> tuple[Array, Array]:
        """The trials with a penalty, in an order of their own."""
        whole = self.trials
        self.trials = {
            name: trial for name, trial in whole.items() if trial.hyperparameters.values[ALPHA]
        }
        try:
            values, costs = super()._vectorize_trials()
        finally:
            self.trials = whole
        order = np.lexsort(values.T)
        return values[order], costs[order]

    def _remember(self, trial: Trial, value: float) -> None:
        """Take a trial for one that this oracle has handed out."""
        known = self.hyperparameters.copy()
        known.values = values_of(trial)
        name = str(len(self.trials)).zfill(len(str(self.max_trials)))
        kept = keras_tuner.engine.trial.Trial(known, name, status="COMPLETED")
        kept.score, kept.best_step = value, 0
        self._record_values(kept)
        self.trials[name] = kept
        self.start_order.append(name)
        self.end_order.append(name)


def values_of(trial: Trial) -> dict[str, float]:
    """The values that an oracle knows a trial by."""
    values = {ALPHA: trial.alpha, REWEIGHT: trial.reweight, RATE: trial.learning_rate}
    return {name: value for name, value in values.items() if value is not None}


def search_between(
    settings: Settings,
    finished: Sequence[Score],
    work: Callable[[Trial], float],
    around: Around,
) -> None:
    """Run the trials of a Bayesian search that are missing.

    Args:
        settings: The settings of the sweep, with a search.
        finished: The finished trials.
        work: Runs a trial and gives its score. What it raises ends the search.
        around: What it runs in.
    """
    assert settings.search is not None
    if len(finished) > settings.search.trials:
        return
    seed = settings.seeds[0]

    def run(values: Mapping[str, Any]) -> float:
        if not values[ALPHA]:  # keras-tuner has given values to the others.
            return work(Trial(0.0, seed))
        return work(Trial(values[ALPHA], seed, values.get(REWEIGHT), values.get(RATE)))

    consult(BayesianOracle(settings, finished), run, around)
