"""keras-tuner hands out trials, in one process or from a chief to workers on several machines.

keras-tuner cannot resume from half-written files of its own, so they are not used. The run
directory says which trials are finished, and every search starts with the missing ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras_tuner

from keras_structsparse.sweeps.settings import Trial

Chain = Sequence[Trial]
"""Trials of which each needs the one before; often a single one."""

Work = Callable[[Chain], float]
"""Runs the trials of a chain and gives their best value."""

KEY, OBJECTIVE = "trial", "value"


class TrialOracle(keras_tuner.Oracle):
    """Hands out a list of chains of trials, each once, in order.

    Args:
        chains: The chains. keras-tuner calls each of them a trial.
    """

    def __init__(self, chains: Sequence[Chain]) -> None:
        self._names = [_name(chain) for chain in chains]
        space = keras_tuner.HyperParameters()
        space.Choice(KEY, self._names)
        super().__init__(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            max_trials=len(chains),
            hyperparameters=space,
            allow_new_entries=False,
            tune_new_entries=False,
        )

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next chain."""
        return {"status": "RUNNING", "values": {KEY: self._names[int(trial_id)]}}


class TrialTuner(keras_tuner.engine.base_tuner.BaseTuner):
    """Runs the trials of an oracle.

    Args:
        oracle: The oracle.
        work: What to do with the values that it hands out.
        folder: Where keras-tuner may write.
    """

    def __init__(
        self, oracle: Any, work: Callable[[Mapping[str, Any]], float], folder: str
    ) -> None:
        self._work = work
        super().__init__(oracle, directory=folder, project_name="search")

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Do the work; an error in it ends the search."""
        try:
            return {OBJECTIVE: self._work(trial.hyperparameters.values)}
        except Exception as error:
            raise keras_tuner.errors.FatalError(str(error)) from error


def consult(oracle: Any, work: Callable[[Mapping[str, Any]], float]) -> None:
    """Run the trials of an oracle, here or as the chief or a worker: see :func:`search`.

    Args:
        oracle: The oracle.
        work: What to do with the values that it hands out. What it raises is raised.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            TrialTuner(oracle, work, folder).search(verbose=0)
        except keras_tuner.errors.FatalError as error:
            raise error.__cause__ or error from None


def _name(chain: Chain) -> str:
    return "-then-".join(dict.fromkeys([chain[0].name, chain[-1].name]))


def search(chains: Sequence[Chain], missing: Sequence[Chain], work: Work) -> None:
    """Run chains of trials: here; or as the chief or a worker that the environment says this is.

    The environment variables are those of keras-tuner: ``KERASTUNER_TUNER_ID`` ("chief", or a
    name for each worker), ``KERASTUNER_ORACLE_IP`` and ``KERASTUNER_ORACLE_PORT``. The chief hands
    out chains and runs none. A worker that was killed is to be started again with the same name.

    Args:
        chains: All chains of the sweep.
        missing: Those of which a trial is not finished.
        work: What to do for each. What it raises ends this process's part of the search.
    """
    if missing:
        # All of them: a chief may have counted the missing ones earlier.
        named = {_name(chain): chain for chain in chains}
        consult(TrialOracle(missing), lambda values: work(named[values[KEY]]))
