"""keras-tuner hands out trials, in one process or from a chief to workers on several machines.

keras-tuner cannot resume from half-written files of its own, so they are not used. The run
directory says which trials are finished, and every search starts with the missing ones.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras_tuner

from keras_structsparse.sweeps.chief import Finished, Patient, Say, Sessions, serve
from keras_structsparse.sweeps.settings import Trial

Chain = Sequence[Trial]
"""Trials of which each needs the one before; often a single one."""

Work = Callable[[Chain], float]
"""Runs the trials of a chain and gives their best value."""

KEY, OBJECTIVE = "trial", "value"


CHIEF, WORKER = "chief", "worker"


@dataclass(frozen=True)
class Around:
    """What a search runs in.

    Attributes:
        finished: Whether the run directory has all trials, whoever has trained them.
        say: Takes a line that says what is waited for.
    """

    finished: Finished
    say: Say


class TrialOracle(Sessions, keras_tuner.Oracle):
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
        around: What it runs in.
    """

    oracle: Any

    def __init__(
        self,
        oracle: Any,
        work: Callable[[Mapping[str, Any]], float],
        folder: str,
        around: Around,
    ) -> None:
        self._work = work
        super().__init__(oracle, directory=folder, project_name="search")
        if self.oracle is not oracle:  # a client of the chief
            self.oracle = Patient(self.oracle, around.finished, around.say)

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Do the work; an error in it ends the search."""
        try:
            return {OBJECTIVE: self._work(trial.hyperparameters.values)}
        except Exception as error:
            raise keras_tuner.errors.FatalError(str(error)) from error


def consult(oracle: Any, work: Callable[[Mapping[str, Any]], float], around: Around) -> None:
    """Run the trials of an oracle, here or as the chief or a worker: see :func:`search`.

    Args:
        oracle: The oracle.
        work: What to do with the values that it hands out. What it raises is raised.
        around: What it runs in.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            tuner = TrialTuner(oracle, work, folder, around)
            if role() == CHIEF:
                oracle.say = around.say
                serve(lambda: tuner.search(verbose=0), around.finished)
            else:
                tuner.search(verbose=0)
        except keras_tuner.errors.FatalError as error:
            raise error.__cause__ or error from None


def _name(chain: Chain) -> str:
    return "-then-".join(dict.fromkeys([chain[0].name, chain[-1].name]))


def role() -> str:
    """What this process is, by keras-tuner's variables: :data:`CHIEF`, :data:`WORKER` or empty."""
    if "KERASTUNER_ORACLE_IP" not in os.environ:
        return ""
    return CHIEF if CHIEF in os.environ.get("KERASTUNER_TUNER_ID", CHIEF) else WORKER


def search(chains: Sequence[Chain], missing: Sequence[Chain], work: Work, around: Around) -> None:
    """Run chains of trials: here; or as the chief or a worker that the environment says this is.

    The environment variables are those of keras-tuner: ``KERASTUNER_TUNER_ID`` ("chief", or a
    name for each worker), ``KERASTUNER_ORACLE_IP`` and ``KERASTUNER_ORACLE_PORT``. The chief hands
    out chains and runs none. A worker that was killed is to be started again with the same name.

    Args:
        chains: All chains of the sweep.
        missing: Those of which a trial is not finished.
        work: What to do for each. What it raises ends this process's part of the search.
        around: What it runs in.
    """
    if missing:
        # All of them: a chief may have counted the missing ones earlier.
        named = {_name(chain): chain for chain in chains}
        consult(TrialOracle(missing), lambda values: work(named[values[KEY]]), around)
