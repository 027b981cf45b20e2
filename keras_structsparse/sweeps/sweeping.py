"""Alpha sweeps: the frontier of accuracy against multiply-adds, one training per alpha and seed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any

from keras_structsparse._files import check_room
from keras_structsparse._typing import StrPath
from keras_structsparse._validation import one_of
from keras_structsparse.data.datasets import Dataset
from keras_structsparse.errors import DatasetError
from keras_structsparse.export.reloading import check_reloads
from keras_structsparse.sweeps.claims import Claim, Say, TakenOverError, claimed
from keras_structsparse.sweeps.points import Point, score
from keras_structsparse.sweeps.progress import Lines, Progress, Stages
from keras_structsparse.sweeps.run_directory import Correlations, Run, open_run
from keras_structsparse.sweeps.settings import STRATEGIES, Settings, Trial
from keras_structsparse.sweeps.trial import Build, Outcome, built, evaluate, train, without_zeros


def sweep(
    build: Build,
    data: Dataset,
    settings: Settings,
    out: StrPath,
    strategy: Any = None,
    console: Any = None,
    *,
    progress: Progress | None = None,
) -> Run:
    """Train a family of networks, from dense to very sparse, and write down their points.

    Every alpha is trained once per seed; every useful threshold of it is a point. With a path, each
    but the first starts from the network of the one before. Killed at any moment and called again
    with the same arguments, it runs the trials that are missing, and those whose networks are lost.

    Args:
        build: Gives the base network, new, with softmax outputs.
        data: The data set; the validation split chooses, the test split is only reported on.
        settings: The settings. Two calls with the same directory must have the same.
        out: The run directory: new, empty, or that of an earlier call.
        strategy: A ``tf.distribute`` strategy to train under.
        console: Prints one line for each trial, a ``rich.console.Console`` for example; standard
            output unless given.
        progress: Follows the sweep instead of printing lines.

    Returns:
        The finished run; in a worker the run as it is.

    Raises:
        ImportError: keras-tuner is not installed.
        DatasetError: A split of the data is empty.
        ModelError: ``build`` gives no model that can be trained, stored and loaded again.
        OutputError: ``out`` holds something else, cannot be written, or has no room.
    """
    _check(data)
    _check_tuner()
    run = open_run(out, settings)
    from keras_structsparse.sweeps.tuner import WORKER, role

    if role() != WORKER:
        run.tidy()
        _forget_lost(run)
    missing = [c for c in settings.chains if not all(run.has(trial) for trial in c)]
    scope = nullcontext if strategy is None else strategy.scope
    count = sum(not run.has(trial) for chain in missing for trial in chain)
    if settings.search is not None:
        count = max(settings.search.trials + 1 - len(run.trials()), 0)
    shown = progress or Lines(console)
    if count:
        _check_build(run, build, settings, count)

    def do(before: Trial | None, trial: Trial) -> None:
        start = time.perf_counter()
        with claimed(run.claim(trial), trial.name, shown.note) as claim:
            if run.has(trial):  # Another process was faster.
                return
            link = (before, trial)
            outcomes, found = _run(run, build, data, settings, link, shown.stage, scope, claim)
            seconds = time.perf_counter() - start
            claim.check()
            run.add(trial, outcomes, seconds, found)
        shown.finished(_line(trial, [point for point, _ in outcomes], seconds))

    shown.begin(count)
    try:
        if settings.search is None:
            _in_chains(run, settings, missing, do, shown.note)
        else:
            _searching(run, settings, do, shown.note)
    finally:
        shown.end()
    return run


Do = Callable[[Trial | None, Trial], None]
"""Runs a trial, after the one before it on its path, and writes it down."""


def _in_chains(
    run: Run, settings: Settings, missing: Sequence[Sequence[Trial]], do: Do, say: Say
) -> None:
    """All trials that are known beforehand."""
    from keras_structsparse.sweeps.tuner import Around, search

    def work(chain: Sequence[Trial]) -> float:
        for before, trial in zip((None, *chain), chain, strict=False):
            _done(run, do, before, trial)
        known = run.trials()
        return max(score(known[trial], budget=1.0) for trial in chain)

    search(settings.chains, missing, work, Around(lambda: not run.missing(), say))


def _done(run: Run, do: Do, before: Trial | None, trial: Trial) -> None:
    """Run a trial until it is finished, by this process or another one."""
    while not run.has(trial):
        # Another process takes over what stood still for minutes; its result counts.
        with suppress(TakenOverError):
            do(before, trial)


def _searching(run: Run, settings: Settings, do: Do, say: Say) -> None:
    """The trials that a Bayesian search proposes."""
    from keras_structsparse.sweeps.bayesian_oracle import search_between
    from keras_structsparse.sweeps.tuner import Around

    assert settings.search is not None
    budget, wanted = settings.search.budget, settings.search.trials + 1

    def work(trial: Trial) -> float:
        _done(run, do, None, trial)
        return score(run.trials()[trial], budget)

    known = run.trials()
    around = Around(lambda: len(run.trials()) >= wanted, say)
    search_between(
        settings, [(trial, score(known[trial], budget)) for trial in known], work, around
    )


def _run(
    run: Run,
    build: Build,
    data: Dataset,
    settings: Settings,
    link: tuple[Trial | None, Trial],
    stages: Stages,
    scope: Any,
    claim: Claim,
) -> tuple[list[Outcome], Correlations]:
    """Train for the trial of a link; it starts where the one before has ended, if there is any."""
    before, trial = link
    with scope():
        start = None if before is None else run.start(before)
    if before is not None and start is None:
        return [], {}  # A larger alpha revives no kernel of a dead network.
    trained = train(build, data, settings, trial, stages, scope, start)
    left = without_zeros(trained) if settings.path is not None and trial.alpha else None
    if left is not None:
        claim.check()
        run.keep(trial, left)
    return evaluate(trained, data, settings, trial, stages, scope), trained.correlations


def _line(trial: Trial, points: Sequence[Point], seconds: float) -> str:
    """The result of a trial, for the progress."""
    found = ", ".join(
        f"{point.validation_finetuned:.1%} at {point.multiply_adds_fraction:.1%}"
        for point in points
    )
    said = f"validation accuracy {found} of the multiply-adds" if points else "dead"
    values = {"alpha": trial.alpha, "reweight": trial.reweight, "rate": trial.learning_rate}
    named = [f"{key} {value:g}" for key, value in values.items() if value]
    name = ", ".join([*(named or ["dense"]), f"seed {trial.seed}"])
    return f"{name} in {seconds:.0f} s: {said}"


def _check_build(run: Run, build: Build, settings: Settings, trials: int) -> None:
    """Fail now rather than after hours: the networks can be stored, and there is room for them."""
    size = check_reloads(built(build), "build")
    each = 2 if settings.path else 1
    what = f"{each * trials} networks as large as that of build"
    check_room(run.folder, size * each * trials, what, "--out")


def _forget_lost(run: Run) -> None:
    """Make trials whose networks are lost unfinished, and say so."""
    for trial, names in run.lost().items():
        warnings.warn(
            f"run: {run.folder / 'models' / names[0]} is missing or damaged, so {trial.name} is "
            "trained again",
            stacklevel=3,
        )
        run.forget(trial)


def _check(data: Dataset) -> None:
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    for name, part in parts.items():
        if not len(part):
            raise DatasetError(
                f"data: expected images in every split. Received: '{data.name}' with none in {name}"
            )


def _check_tuner() -> None:
    try:
        import keras_structsparse.sweeps.tuner  # noqa: F401
    except ModuleNotFoundError as error:
        raise ImportError(
            "sweep: expected keras-tuner and tensorboard, which hand out the trials: "
            f"pip install 'keras-structsparse[tuner]'. Received: {error}"
        ) from error


def distribution(strategy: str) -> Any:
    """The ``tf.distribute`` strategy of a name; None for "none".

    Args:
        strategy: One of :data:`keras_structsparse.sweeps.settings.STRATEGIES`.
    """
    one_of("strategy", strategy, STRATEGIES)
    if strategy == "none":
        return None
    import tensorflow as tf

    return tf.distribute.MirroredStrategy()
