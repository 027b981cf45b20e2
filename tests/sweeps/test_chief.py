"""A chief and its workers bear each other's end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from keras_structsparse.sweeps import chief
from keras_structsparse.sweeps.chief import Patient, serve
from keras_structsparse.sweeps.settings import Trial
from keras_structsparse.sweeps.tuner import KEY, OBJECTIVE, TrialOracle

CHAINS = [(Trial(0.0, 0),), (Trial(0.1, 0),), (Trial(0.2, 0),)]


def oracle(folder: Any) -> TrialOracle:
    made = TrialOracle(CHAINS)
    made.verbose = 0
    made._set_project_dir(str(folder), "search")
    return made


def finished(trial: Any) -> Any:
    trial.status = "COMPLETED"
    return trial


def test_results_of_another_session_are_answered_and_change_nothing(tmp_path: Any) -> None:
    old, new = oracle(tmp_path / "old"), oracle(tmp_path / "new")
    before = old.create_trial("worker-1")
    own = new.create_trial("worker-2")
    for trial_id in (before.trial_id, "0", "nonsense", ""):
        assert not new.get_trial(trial_id).metrics.exists(OBJECTIVE)
        new.update_trial(trial_id, {OBJECTIVE: 0.5})
    new.end_trial(finished(before))
    assert {trial.status for trial in new.trials.values()} == {"RUNNING"}
    # The control: those of its own session are stored, and all chains are handed out.
    new.update_trial(own.trial_id, {OBJECTIVE: 0.7})
    new.end_trial(finished(own))
    assert [trial.score for trial in new.trials.values()] == [0.7]
    left = [new.create_trial(f"worker-{i}") for i in (1, 2)]
    handed = [own, *left]
    assert {trial.hyperparameters.values[KEY] for trial in handed} == {c[0].name for c in CHAINS}
    assert new.create_trial("worker-3").status == "STOPPED"


def test_a_chief_says_who_does_what_and_whom_it_waits_for(tmp_path: Any) -> None:
    made, said = oracle(tmp_path), list[str]()
    made.say = said.append
    for name in ("a", "b", "c", "d"):
        made.create_trial(name)
    assert said[0] == f"a trains {CHAINS[0][0].name}"
    assert said[3].startswith("nothing is left for d; waits for a (alpha-0.0-seed-0), b (alpha-0.1")


class GoneError(Exception):
    """Has a code as the errors of gRPC have."""

    def __init__(self, name: str) -> None:
        self.name = name

    def code(self) -> Any:
        return SimpleNamespace(name=self.name)


def client(*answers: Any) -> tuple[Any, list[Any]]:
    """A client that answers in turn: a value, an error, or seconds of silence."""
    asked: list[Any] = []
    left = iter(answers)

    def create_trial(tuner_id: str) -> Any:
        asked.append(tuner_id)
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, float):
            time.sleep(answer)
        return answer

    return SimpleNamespace(create_trial=create_trial, end_trial=create_trial), asked


def test_a_worker_asks_again_when_the_connection_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chief, "SILENCE", 0.2)
    said: list[str] = []
    found, asked = client(GoneError("UNAVAILABLE"), GoneError("DEADLINE_EXCEEDED"), "trial")
    assert Patient(found, lambda: False, said.append).create_trial("w") == "trial"
    assert asked == ["w"] * 3
    assert len(said) == 1
    assert said[0].startswith("waits for the chief at ")


def test_another_error_of_the_chief_is_one_of_the_connection() -> None:
    found, _ = client(GoneError("UNKNOWN"))
    with pytest.raises(ConnectionError, match="expected an answer of the chief"):
        Patient(found, lambda: False, print).create_trial("w")


def test_a_worker_without_a_chief_stops_when_all_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chief, "SILENCE", 0.05)
    done = threading.Event()
    threading.Timer(0.3, done.set).start()
    found, _ = client(5.0, 5.0)
    patient, start = Patient(found, done.is_set, lambda line: None), time.monotonic()
    assert patient.create_trial("w").status == "STOPPED"
    assert 0.3 <= time.monotonic() - start < 5.0
    patient.end_trial(SimpleNamespace(trial_id="x"))


def ending(seconds: float) -> Callable[[], None]:
    return lambda: time.sleep(seconds)


def test_a_chief_ends_with_its_workers_or_soon_after_the_last_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chief, "FAREWELL", 0.1)
    start = time.monotonic()
    serve(ending(0.0), lambda: False)
    serve(ending(60.0), lambda: True)
    assert time.monotonic() - start < 30
    start = time.monotonic()
    serve(ending(3.0), lambda: False)
    assert time.monotonic() - start >= 3.0, "while trials are missing it serves"

    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serve(fails, lambda: False)
