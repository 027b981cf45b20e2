"""A chief and workers that outlive each other, and say what they wait for.

keras-tuner's own protocol has limits that are worked around here:

* Ids of trials are numbers from 0. A chief that was started again would take the result of a worker
  of the old one for another trial's; or, for an id that it does not know, raise an error that
  leaves a lock closed for ever. So ids carry the chief's session, and those of another session are
  answered and ignored: the run directory has the result.
* A worker waits up to an hour for a chief, in silence, and ends with an error if the connection
  breaks while it asks. Here it says so, asks again, and stops when the run directory is complete.
* A chief waits for the farewell of every worker, also of one that is gone. Here it ends soon after
  the run directory is complete.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial as TunerTrial

Say = Callable[[str], None]
Finished = Callable[[], bool]
"""Whether the run directory has all trials."""

SILENCE = 10.0
"""Seconds after which a worker says that it waits for the chief, and looks whether all is done."""

FAREWELL = 30.0
"""Seconds that workers get to hear from the chief that all is done."""


PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
"""Errors of gRPC that say nothing of the request."""


class Sessions:
    """Makes an oracle bear reports of workers that another chief has sent out.

    Comes before the oracle among the bases of a class.
    """

    say: Say = staticmethod(lambda line: None)
    trials: dict[str, Any]
    ongoing_trials: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._session = uuid.uuid4().hex[:8]

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Any:
        """The next trial for a worker, with an id of this session."""
        trial = super().create_trial(tuner_id)  # type: ignore[misc]
        if trial.status == "RUNNING":
            self.say(f"{tuner_id} trains {_named(trial)}")
        elif waiting := [f"{who} ({_named(own)})" for who, own in self.ongoing_trials.items()]:
            self.say(f"nothing is left for {tuner_id}; waits for {', '.join(waiting)}")
        outside = f"{self._session}-{trial.trial_id}"
        return TunerTrial(trial.hyperparameters, outside, trial.status, trial.message)

    def get_trial(self, trial_id: str) -> Any:
        """A trial; one without results for an id of another session."""
        inside = self._inside(trial_id)
        found = None if inside is None else self.trials.get(inside)
        return found or TunerTrial(keras_tuner.HyperParameters(), trial_id)

    @keras_tuner.synchronized
    def update_trial(self, trial_id: str, metrics: Any, step: int = 0) -> Any:
        """Store the result of a trial of this session."""
        if (inside := self._inside(trial_id)) is None:
            return self.get_trial(trial_id)
        return super().update_trial(inside, metrics, step)  # type: ignore[misc]

    @keras_tuner.synchronized
    def end_trial(self, trial: Any) -> None:
        """End a trial of this session."""
        if (inside := self._inside(trial.trial_id)) is not None:
            own = TunerTrial(trial.hyperparameters, inside, trial.status, trial.message)
            super().end_trial(own)  # type: ignore[misc]

    def _inside(self, trial_id: str) -> str | None:
        """The id that the oracle knows; None for one of another session."""
        session, _, inside = trial_id.partition("-")
        return inside if session == self._session and inside in self.trials else None


def _named(trial: Any) -> str:
    return ", ".join(str(value) for value in trial.hyperparameters.values.values())


class Patient:
    """What a worker asks the chief with: again and again, until the run directory is complete.

    Args:
        client: keras-tuner's client.
        finished: Whether all trials are finished.
        say: Takes the line that says what is waited for.
    """

    def __init__(self, client: Any, finished: Finished, say: Say) -> None:
        self._client, self._finished, self._say = client, finished, say

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def create_trial(self, tuner_id: str) -> Any:
        """The next trial; one that says that there are none if all are finished."""
        found = self._ask("create_trial", tuner_id)
        return found or TunerTrial(keras_tuner.HyperParameters(), "none", "STOPPED")

    def get_trial(self, trial_id: str) -> Any:
        """A trial; an empty one if all are finished."""
        found = self._ask("get_trial", trial_id)
        return found or TunerTrial(keras_tuner.HyperParameters(), trial_id)

    def update_trial(self, trial_id: str, metrics: Any, step: int = 0) -> Any:
        """Report a result."""
        return self._ask("update_trial", trial_id, metrics, step)

    def end_trial(self, trial: Any) -> None:
        """Report the end of a trial."""
        self._ask("end_trial", trial)

    def _ask(self, name: str, *args: Any) -> Any:
        """The answer; None if all trials are finished and the chief is silent."""
        said = False
        answers = _begun(getattr(self._client, name), args)
        while True:
            try:
                answer = answers.get(timeout=SILENCE)
            except queue.Empty:
                answer = None
            if _passes(answer):
                time.sleep(1)
                answers, answer = _begun(getattr(self._client, name), args), None
            if isinstance(answer, BaseException):
                raise ConnectionError(f"expected an answer of the chief. Received: {answer}")
            if answer is not None:
                return answer[0]
            if self._finished():
                return None
            if not said:
                self._say(f"waits for the chief at {address()}")
                said = True


def _passes(answer: Any) -> bool:
    """Whether an answer is an error of gRPC that passes when the chief or the network is back."""
    code = getattr(answer, "code", None)
    return callable(code) and getattr(code(), "name", "") in PASSING


def _begun(action: Callable[..., Any], args: tuple[Any, ...]) -> queue.Queue[Any]:
    """Do something in a thread; its result in a tuple, or its error, comes into the queue."""
    found: queue.Queue[Any] = queue.Queue()

    def run() -> None:
        try:
            found.put((action(*args),))
        except BaseException as error:
            found.put(error)

    threading.Thread(target=run, daemon=True, name="chief").start()
    return found


def serve(search: Callable[[], None], finished: Finished) -> None:
    """Be the chief until the workers have taken leave, or a while after all trials are finished.

    Args:
        search: Serves the workers. What it raises is raised.
        finished: Whether all trials are finished.
    """
    answers, since = _begun(search, ()), None
    while since is None or time.monotonic() - since < FAREWELL:
        try:
            answer = answers.get(timeout=1.0)
        except queue.Empty:
            since = since or (time.monotonic() if finished() else None)
            continue
        if isinstance(answer, BaseException):
            raise answer
        return


def address() -> str:
    """Where the chief is, as the environment says."""
    return f"{os.environ.get('KERASTUNER_ORACLE_IP')}:{os.environ.get('KERASTUNER_ORACLE_PORT')}"
