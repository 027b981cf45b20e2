"""The main job end to end on scikit-learn's digits: train, choose, cut, check, export."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from keras_structsparse import models
from keras_structsparse._files import new_directory, write_text
from keras_structsparse._typing import Array
from keras_structsparse.cli.console import Advance, stage_progress
from keras_structsparse.cli.quickstart_record import (
    Checks,
    Dense,
    Frontier,
    dense_summary,
    report,
    write_figures,
    write_points,
)
from keras_structsparse.data import datasets
from keras_structsparse.errors import DeadNetworkError
from keras_structsparse.export.clean_process import check_portable
from keras_structsparse.export.formats import export, save_model
from keras_structsparse.profiling.latency import Latency, latency
from keras_structsparse.profiling.pareto import choose
from keras_structsparse.profiling.profile import profile
from keras_structsparse.regularizers import KernelSize
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.kernel_provenance import Ancestry
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.verification import verify
from keras_structsparse.sweeps.points import Point
from keras_structsparse.sweeps.threshold_selection import largest_threshold
from keras_structsparse.training.fit import Recipe, accuracy, compile_for, fit, restart

Weights = list[Array]

MODEL = "digits-residual"
ALPHAS = (4e-3, 8e-3, 1.2e-2, 1.6e-2, 3.2e-2, 6.4e-2)
WEIGHTS = "multiply_adds"
REWEIGHT = 0.1
TAUS = (1e-3, 3e-3, 1e-2, 3e-2)
DENSE = Recipe(epochs=18, batch_size=32, learning_rate=0.1)
PATH = Recipe(epochs=12, batch_size=32, learning_rate=0.1)
TUNING = Recipe(epochs=10, batch_size=32, learning_rate=0.1, ramp=0.0)

# All on the validation split: how much accuracy a larger threshold may cost before fine-tuning,
# and how far below the dense network the chosen point may lie after it.
THRESHOLD_DROP = 0.02
CHOICE_DROP = 0.01

# Batches to time, by batch size.
REPEATS = {1: 1000, 128: 150}


@dataclass(frozen=True)
class _Candidate:
    """A trained network and the plan read off it."""

    alpha: float
    tau: float
    weights: Weights
    plan: Plan
    validation: float


@dataclass(frozen=True)
class _Tuned:
    """A candidate after surgery and fine-tuning."""

    point: Point
    candidate: _Candidate
    model: keras.Model


def run(out: str | Path = "quickstart-out", seed: int = 0, console: Console | None = None) -> Path:
    """Find small networks for the digits and hand one back.

    Trains a dense network and one per alpha, reads off plans with several thresholds, rebuilds the
    networks without what the plans remove, fine-tunes them, and chooses one by its validation
    accuracy. The test split is only reported on.

    Args:
        out: Directory for the results; new, empty or one written by this function before.
        seed: Seed of everything random; the same seed gives the same points.
        console: Where to print; standard output unless given.

    Returns:
        The directory.

    Raises:
        OutputError: ``out`` holds something else or cannot be written.
    """
    console = console or Console()
    start = time.perf_counter()
    folder = new_directory(out, "--out")
    _make_repeatable()
    data = datasets.load("digits", validation=0.2, seed=0)
    # Not before: where the digits are not yet in the cache, building them draws random numbers.
    keras.utils.set_random_seed(seed)
    base = models.build(MODEL, data.shape, data.classes)
    epochs = DENSE.epochs + len(ALPHAS) * (PATH.epochs + TUNING.epochs)
    with stage_progress(console, epochs) as advance:
        dense, summary = _train_dense(base, data, advance)
        candidates = _train_sparse(base, data, advance)
        every = [_tune(base, candidate, data, advance) for candidate in candidates]
    tuned = [each for each in every if each is not None]
    points = tuple(each.point for each in tuned)
    frontier = Frontier(summary, points, _choose(points, summary.validation))
    candidate, pruned = tuned[frontier.chosen].candidate, tuned[frontier.chosen].model
    console.print("checking the chosen network")
    base.set_weights(candidate.weights)
    checks = Checks(
        verify(base, candidate.plan),
        _write_model(folder, pruned, candidate.plan, data.test.x[:64]),
        _latency({"dense": dense, "pruned": pruned}),
    )
    write_figures(folder, base, frontier, "digits")
    write_points(folder / "points.json", frontier, checks, _settings(seed))
    report(console, frontier, checks)
    console.print(f"wrote {folder} in {time.perf_counter() - start:.0f} s")
    return folder


def _make_repeatable() -> None:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        # Two threads in one operation add up in an order that depends on the machine's load. A
        # process that has used TensorFlow before keeps the threads it has.
        with suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(1)


def _train_dense(
    base: keras.Model, data: datasets.Dataset, advance: Advance
) -> tuple[keras.Model, Dense]:
    model = models.build(MODEL, data.shape, data.classes)
    model.set_weights(base.get_weights())
    compile_for(model, DENSE, len(data.train))
    fit(model, (data.train.x, data.train.y), DENSE, callbacks=[advance("dense network")])
    validation = accuracy(model, (data.validation.x, data.validation.y))
    return model, dense_summary(model, validation, accuracy(model, (data.test.x, data.test.y)))


def _train_sparse(base: keras.Model, data: datasets.Dataset, advance: Advance) -> list[_Candidate]:
    """The path of alphas: each training starts from the solution before, compiled once."""
    recipe, regularizer = PATH, KernelSize(ALPHAS[0], reweight=REWEIGHT)
    compile_for(base, PATH, len(data.train), regularizer, WEIGHTS)
    candidates = []
    for alpha in ALPHAS:
        restart(base.optimizer)
        regularizer.alpha.assign(alpha)
        ticks = advance(f"KernelSize, alpha {alpha:g}")
        fit(base, (data.train.x, data.train.y), recipe, callbacks=[ticks])
        candidates.append(_threshold(base, alpha, (data.validation.x, data.validation.y)))
        # With alpha from 0 again, what is dead would come back.
        recipe = replace(PATH, ramp=0.0)
    return candidates


def _threshold(model: keras.Model, alpha: float, validation: tuple[Array, Array]) -> _Candidate:
    """The plan of the largest threshold that costs little on the validation split."""
    tau, chosen, value = largest_threshold(model, TAUS, validation, THRESHOLD_DROP)
    return _Candidate(alpha, tau, model.get_weights(), chosen, value)


def _tune(
    base: keras.Model, candidate: _Candidate, data: datasets.Dataset, advance: Advance
) -> _Tuned | None:
    """Prune a candidate and fine-tune what is left; None if nothing is."""
    base.set_weights(candidate.weights)
    try:
        pruned = prune(base, candidate.plan)
    except DeadNetworkError:
        return None
    validation = (data.validation.x, data.validation.y)
    test = (data.test.x, data.test.y)
    size = profile(pruned)
    left = Ancestry.between(base, pruned).left_of(candidate.plan)
    point = Point(
        alpha=candidate.alpha,
        tau=candidate.tau,
        multiply_adds=size.multiply_adds,
        multiply_adds_fraction=size.multiply_adds / profile(base).multiply_adds,
        params=size.params,
        validation_at_surgery=candidate.validation,
        validation_finetuned=0.0,
        accuracy_at_surgery=accuracy(pruned, test),
        accuracy_finetuned=0.0,
        sizes={name: tuple(sizes) for name, sizes in left.sizes.items()},
    )
    compile_for(pruned, TUNING, len(data.train))
    ticks = advance(f"fine-tuning, alpha {candidate.alpha:g}")
    fit(pruned, (data.train.x, data.train.y), TUNING, callbacks=[ticks])
    point = replace(
        point,
        validation_finetuned=accuracy(pruned, validation),
        accuracy_finetuned=accuracy(pruned, test),
    )
    return _Tuned(point, candidate, pruned)


def _choose(points: Sequence[Point], dense: float) -> int:
    """The cheapest point that keeps up with the dense network, or else the best one."""
    values = [(p.multiply_adds_fraction, p.validation_finetuned) for p in points]
    if max(value for _, value in values) < dense - CHOICE_DROP:
        return max(range(len(points)), key=lambda i: values[i][1])
    return choose(values, max_drop=CHOICE_DROP, reference=dense)


def _write_model(
    folder: Path, pruned: keras.Model, chosen: Plan, images: Array
) -> dict[str, float]:
    """Write the chosen network, and reload it where this package cannot be imported."""
    write_text(folder / "plan.json", chosen.to_json())
    paths = [
        save_model(pruned, folder / "pruned.keras"),
        export(pruned, folder / "saved_model"),
    ]
    found = check_portable(pruned, paths, images)
    return {Path(path).name: difference for path, difference in found.items()}


def _latency(networks: Mapping[str, keras.Model]) -> tuple[Latency, ...]:
    """Single images take about a millisecond, less than the machine's noise: so many of them."""
    rows = [latency(networks, (size,), repeats) for size, repeats in REPEATS.items()]
    return tuple(row for group in rows for row in group)


def _settings(seed: int) -> dict[str, Any]:
    return {
        "dataset": "digits",
        "model": MODEL,
        "regularizer": "KernelSize",
        "weights": WEIGHTS,
        "reweight": REWEIGHT,
        "seed": seed,
        "alphas": ALPHAS,
        "taus": TAUS,
        "dense": asdict(DENSE),
        "path": asdict(PATH),
        "fine_tuning": asdict(TUNING),
    }
