"""keras-tuner hands out trials, in one process or from a chief to workers on several machines.

Its own files are not relied on, for it cannot go on from half-written ones: what is finished is
known by the run directory, and every search is begun anew with the trials that are missing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras_tuner

from keras_structsparse.sweeps.settings import Trial

Work = Callable[[Trial], float]
"""Runs a trial and gives its best value."""

KEY, OBJECTIVE = "trial", "value"


class TrialOracle(keras_tuner.Oracle):
    """Hands out a list of trials, each once, in order.

    Args:
        trials: The trials.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._names = [trial.name for trial in trials]
        space = keras_tuner.HyperParameters()
        space.Choice(KEY, self._names)
        super().__init__(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            max_trials=len(trials),
            hyperparameters=space,
            allow_new_entries=False,
            tune_new_entries=False,
        )

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next trial."""
        return {"status": "RUNNING", "values": {KEY: self._names[int(trial_id)]}}


class TrialTuner(keras_tuner.engine.base_tuner.BaseTuner):
    """Runs the trials that an oracle hands out.

    Args:
        trials: All trials of the sweep: a chief may have counted the missing ones earlier.
        missing: Those to hand out.
        work: What to do for each.
        folder: Where keras-tuner may write.
    """

    def __init__(
        self, trials: Sequence[Trial], missing: Sequence[Trial], work: Work, folder: str
    ) -> None:
        self._trials = {trial.name: trial for trial in trials}
        self._work = work
        super().__init__(TrialOracle(missing), directory=folder, project_name="search")

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Run one trial; what goes wrong in it ends the search."""
        try:
            return {OBJECTIVE: self._work(self._trials[trial.hyperparameters.values[KEY]])}
        except Exception as error:
            raise keras_tuner.errors.FatalError(str(error)) from error


def search(trials: Sequence[Trial], missing: Sequence[Trial], work: Work) -> None:
    """Run trials: here; or as the chief or a worker that the environment says this is.

    The environment variables are those of keras-tuner: ``KERASTUNER_TUNER_ID`` ("chief", or a
    name for each worker), ``KERASTUNER_ORACLE_IP`` and ``KERASTUNER_ORACLE_PORT``. The chief hands
    out trials and runs none. A worker that was killed is to be started again with the same name.

    Args:
        trials: All trials of the sweep.
        missing: Those that are not finished.
        work: What to do for each. What it raises ends this process's part of the search.
    """
    if not missing:
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            TrialTuner(trials, missing, work, folder).search(verbose=0)
        except keras_tuner.errors.FatalError as error:
            raise error.__cause__ or error from None
