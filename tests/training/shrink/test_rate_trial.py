"""Learning rates are tried on the rebuilt network, and the best one tunes it."""

from __future__ import annotations

import contextlib
import json
import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import pytest
from helpers_shrinking import ready, shrunk, values

import keras_structsparse as kss
from keras_structsparse.plots import comparison_figure
from keras_structsparse.training.shrink import rate_trial, report, smallest, stages
from keras_structsparse.training.shrink.checkpoints import STATE
from keras_structsparse.training.shrink.result import TriedRate, best_rate

pytestmark = pytest.mark.filterwarnings("ignore:shrink. accuracy changed:UserWarning")

RATES = kss.ShrinkMethod(rates=(1, 4))
EPOCHS = 8  # Four remove, and of four that tune, each of two rates is tried for one.


class Epochs(keras.callbacks.Callback):
    """The epochs that began, and the rates in the logs; Ctrl-C at the end of one."""

    def __init__(self, kill: int = -1) -> None:
        super().__init__()
        self.kill, self.epochs, self.rates = kill, [], []  # type: ignore[var-annotated]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.rates.append((logs or {}).get("trying"))
        if epoch == self.kill:
            raise KeyboardInterrupt


def tried(name: str = "dense", seed: int = 0, method: Any = RATES, **options: Any) -> Any:
    model, data = ready(name)
    keras.utils.set_random_seed(seed)
    return shrunk(model, data, data, **{"epochs": EPOCHS, "method": method, **options})


@pytest.mark.parametrize("name", ["dense", "residual"])
def test_the_best_rate_is_gone_on_with_and_all_stays_within_the_epochs(name: str) -> None:
    seen = Epochs()
    result = tried(name, callbacks=[seen])
    assert [each.factor for each in result.rates] == [1.0, 4.0]
    assert result.rates[1].rate == pytest.approx(4 * result.rates[0].rate)
    assert seen.epochs == list(range(EPOCHS))
    assert seen.rates == [None] * 4 + [each.rate for each in result.rates] + [None] * 2
    assert all(len(result.history[n]) == EPOCHS for n in ("loss", "val_loss", "val_accuracy"))
    assert "trying" not in result.history
    schedule = result.model.optimizer.get_config()["learning_rate"]["config"]
    chosen = best_rate(result.rates)
    steps = 2 * EPOCHS - 2  # The epoch of the other rate was of another network.
    assert schedule["decay_steps"] == steps
    start = 0.5 * (1 + math.cos(math.pi * 10 / steps)) * schedule["initial_learning_rate"]
    assert start == pytest.approx(chosen.rate)
    assert result.comparison.multiply_adds_fraction <= 0.5
    assert f"{chosen.rate:.2g} was chosen" in result.card


def losses(monkeypatch: pytest.MonkeyPatch, found: Mapping[float, float]) -> None:
    """Let the networks after the trials have these losses, by factor."""
    left = iter(found.values())
    monkeypatch.setattr(rate_trial, "recalibrated", lambda *_: {"loss": next(left)})


@pytest.mark.parametrize(
    ("found", "factors", "chosen"),
    [
        ({1: 0.5, 2: 0.4, 3: 0.3}, [1, 2, 3], 3),
        ({1: 0.5, 2: 0.4, 3: 0.6}, [1, 2, 3], 2),
        ({1: 0.5, 2: 0.6}, [1, 2], 1),
        ({1: 0.5, 2: math.nan}, [1, 2], 1),
        ({1: math.nan, 2: 0.4, 3: 0.5}, [1, 2, 3], 2),
    ],
)
def test_the_first_rate_that_does_not_help_ends_the_trial(
    monkeypatch: pytest.MonkeyPatch, found: Mapping[float, float], factors: Any, chosen: float
) -> None:
    losses(monkeypatch, found)
    result = tried(method=kss.ShrinkMethod(rates=(1, 2, 3)), epochs=10)
    assert [each.factor for each in result.rates] == factors
    assert best_rate(result.rates).factor == chosen
    assert len(result.history["loss"]) == 10


@pytest.mark.parametrize(("second", "chosen"), [(0.4, 1), (0.6, 0)])
def test_the_network_of_the_best_rate_is_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, second: float, chosen: int
) -> None:
    """It has the weights after its own trial, not those after the last one."""
    trained: list[Any] = []  # The weights after each trial, then those that are tuned.

    def noted(job: Any, pruned: Any, teacher: Any, state: Any, *rest: Any) -> Any:
        if len(rest) == 2:  # The tuning.
            trained.append(state.values)
        history = stages.tune(job, pruned, teacher, state, *rest)
        trained.append(values(pruned.weights))
        return history

    losses(monkeypatch, {1: 0.5, 4: second})
    for module in ("rate_trial", "shrink"):
        monkeypatch.setattr(f"keras_structsparse.training.shrink.{module}.tune", noted)
    model, data = ready("dense")
    with contextlib.suppress(StopIteration):  # There are two losses only.
        shrunk(model, data, data, epochs=EPOCHS, method=RATES)
    *trials, tuned, _ = trained
    same = [all((a == b).all() for a, b in zip(own, tuned, strict=False)) for own in trials]
    assert same == [number == chosen for number in range(2)]


def test_a_rate_that_diverges_loses_and_does_not_end_the_training() -> None:
    result = tried(method=kss.ShrinkMethod(rates=(1, 1e30)))
    assert [each.metrics == {} for each in result.rates] == [False, True]
    assert best_rate(result.rates).factor == 1.0
    assert "diverged" in result.card
    page = report.page(result, (), comparison_figure(result.comparison))
    assert f"<td>{result.rates[1].rate:.2g}</td><td>diverged</td>" in page
    assert all(math.isfinite(value) for value in result.after.values())
    later = tried(method=kss.ShrinkMethod(rates=(1, 1e30, 2e30)), epochs=10)
    assert len(later.rates) == 2
    with pytest.raises(kss.DivergedError):  # the control
        tried(method=kss.ShrinkMethod(rates=(1e30, 2e30)))


def job(**changes: Any) -> Any:
    """What decides whether rates are tried."""
    known = {"optimizer": None, "validation": 1, "factor": None, "method": RATES, "epochs": EPOCHS}
    return types.SimpleNamespace(**{**known, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"method": kss.ShrinkMethod(learning_rate=1e-3)},
        {"method": kss.ShrinkMethod(rates=(4,))},
        {"optimizer": keras.optimizers.SGD(0.01)},
        {"validation": None},
        {"epochs": 6},
        {"factor": 4.0},
    ],
)
def test_where_no_rate_is_tried(changes: Mapping[str, Any]) -> None:
    assert not rate_trial.has_trial(job(**changes))
    assert rate_trial.has_trial(job())  # the control


def test_without_a_trial_nothing_is_said_of_one() -> None:
    model, data = ready("dense")
    result = shrunk(model, data, None, epochs=EPOCHS, method=RATES)
    assert result.rates == ()
    assert "Learning rates" not in result.card


@pytest.mark.parametrize("factor", [1, 8])
def test_a_single_rate_is_taken_without_a_trial(factor: float) -> None:
    method = kss.ShrinkMethod(rates=(factor,))
    result = tried(method=method, epochs=4)
    assert result.rates == ()
    usual = tried(method=kss.ShrinkMethod(), epochs=4)
    rates = [
        each.model.optimizer.get_config()["learning_rate"]["config"] for each in (result, usual)
    ]
    assert rates[0]["decay_steps"] == rates[1]["decay_steps"] == 8
    begun = [each["initial_learning_rate"] for each in rates]
    assert begun[0] == pytest.approx(factor * begun[1])
    assert (result.history == usual.history) == (factor == 1)


def test_the_epochs_of_the_trials() -> None:
    method = kss.ShrinkMethod()
    for epochs in range(2, 200):
        tuning = epochs - method.removal_epochs(epochs)
        assert 3 * method.trial_epochs(epochs) <= (0.3 if tuning >= 10 else 0.6) * tuning + 1e-6
        assert (method.trial_epochs(epochs) > 0) == (epochs > 8)


@pytest.mark.parametrize("kill", [4, 6])
def test_a_trial_that_was_killed_goes_on(tmp_path: Path, kill: int) -> None:
    folder = tmp_path / "work"
    with pytest.raises(KeyboardInterrupt):
        tried(workdir=folder, callbacks=[Epochs(kill)])
    seen = Epochs()
    result = tried(workdir=folder, callbacks=[seen])
    assert seen.epochs == list(range(kill, EPOCHS))  # Only finished epochs are stored.
    assert len(result.history["val_loss"]) == EPOCHS
    assert [each.factor for each in result.rates] == [1.0, 4.0]
    again = tried(workdir=folder, callbacks=[Epochs(0)])
    assert again.rates == result.rates
    assert again.history == result.history
    for own, other in zip(values(again.model.weights), values(result.model.weights), strict=True):
        assert (own == other).all()


def test_it_is_the_same_with_a_directory_and_with_the_same_seed(tmp_path: Path) -> None:
    first, second = tried(), tried(workdir=tmp_path / "work")
    assert first.rates == second.rates
    assert first.history == second.history
    assert tried(seed=1).history != first.history  # the control


def test_for_a_largest_drop_they_are_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smallest, "ATTEMPTS", 3)
    model, data = ready("dense")
    options = {"max_drop": 0.9, "epochs": EPOCHS, "method": RATES}
    seen = Epochs()
    shrunk(model, data, data, **options, workdir=tmp_path / "work", callbacks=[seen])
    assert sum(rate is not None for rate in seen.rates) == 2
    assert len(seen.epochs) == 3 * EPOCHS
    folders = sorted((tmp_path / "work").glob("share-*"), key=lambda path: path.stat().st_mtime)
    assert sum((folder / "rate-1" / STATE).exists() for folder in folders) == 1


def test_rates_are_checked() -> None:
    assert kss.ShrinkMethod(rates=[1, 3]).rates == (1.0, 3.0)  # type: ignore[arg-type]
    for rates in ((), (3, 1), (1, 1), (0, 1), "13", 3, (1, math.inf)):
        with pytest.raises(ValueError, match="rates: expected"):
            kss.ShrinkMethod(rates=rates)  # type: ignore[arg-type]


def test_the_given_model_is_not_changed() -> None:
    model, data = ready("residual")
    before = values([*model.variables, *model.optimizer.variables])
    assert shrunk(model, data, data, epochs=EPOCHS, method=RATES).rates
    after = values([*model.variables, *model.optimizer.variables])
    assert all((own == old).all() for own, old in zip(after, before, strict=True))


def test_a_rate_without_a_number_is_the_worst() -> None:
    rates = [TriedRate(1, 0.1, 1, {}), TriedRate(2, 0.2, 1, {"loss": math.nan})]
    assert [each.loss for each in rates] == [math.inf] * 2
    assert json.dumps(rates[0].metrics) == "{}"
