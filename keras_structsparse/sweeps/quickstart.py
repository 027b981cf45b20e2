"""A small sweep of handwritten digits, and its best network: written, checked and timed."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import keras

from keras_structsparse import models
from keras_structsparse._files import new_directory, write_text
from keras_structsparse._typing import Array, StrPath
from keras_structsparse.data import datasets
from keras_structsparse.export.clean_process import check_portable
from keras_structsparse.export.formats import export, load_model, save_model
from keras_structsparse.plots import architecture_figure, frontier_figure, save
from keras_structsparse.profiling.latency import Latency, latency
from keras_structsparse.profiling.pareto import pareto
from keras_structsparse.surgery.plans import Plan, plan
from keras_structsparse.surgery.verification import Verification, verify
from keras_structsparse.sweeps.choosing import Wish, choose_network
from keras_structsparse.sweeps.points import Point, widths_and_sizes
from keras_structsparse.sweeps.progress import Progress
from keras_structsparse.sweeps.removing import remove_run
from keras_structsparse.sweeps.report.report import write_report
from keras_structsparse.sweeps.run_directory import Found, Run
from keras_structsparse.sweeps.settings import Settings
from keras_structsparse.sweeps.sweeping import sweep
from keras_structsparse.training.penalty_config import PenaltyConfig
from keras_structsparse.training.recipes import Recipe

FORMAT = "keras_structsparse.points/1"

SETTINGS = Settings(
    "digits-residual",
    "digits",
    alphas=(4e-3, 8e-3, 1.2e-2, 1.6e-2, 3.2e-2, 6.4e-2),
    taus=(3e-2,),
    form=PenaltyConfig(reweight=0.1, weights="multiply_adds"),
    recipe=Recipe(epochs=18, batch_size=32),
    path=Recipe(epochs=12, batch_size=32, ramp=0.0),
    tuning=Recipe(epochs=10, batch_size=32, ramp=0.0),
)

MAX_DROP = 0.01
"""How far the chosen network may be below the dense one in validation accuracy."""

REPEATS = {1: 1000, 128: 150}
"""Batches to time, by batch size: a single image takes less time than the machine's noise."""


@dataclass(frozen=True)
class Outcome:
    """The networks of the sweep, and the measurements of the chosen one.

    Attributes:
        dense: The dense network.
        sparse: All others, by alpha.
        chosen: The index of the chosen one.
        verification: Pruned against masked network in float64.
        reloaded: By file, the relative difference of its outputs in a process without this package.
        latencies: Of the dense and of the chosen network.
    """

    dense: Found
    sparse: Sequence[Found]
    chosen: int
    verification: Verification
    reloaded: Mapping[str, float]
    latencies: Sequence[Latency]

    @property
    def best(self) -> Point:
        """The chosen point."""
        return self.sparse[self.chosen].point


def quickstart(out: StrPath, seed: int = 0, progress: Progress | None = None) -> Outcome:
    """Find small networks for the digits, and write one that is as good as the dense network.

    The sweep trains a path of alphas, prunes and fine-tunes. Its run directory, with the report, is
    the folder ``run``. The choice is made by the validation split; the test split is only
    reported on.

    Args:
        out: Directory for the results: new, empty, or written by an earlier call, whose files are
            replaced.
        seed: Seed of everything random; the same seed gives the same points.
        progress: Follows the sweep instead of printing lines.

    Returns:
        The points and the measurements, which are also in ``points.json``.

    Raises:
        OutputError: ``out`` holds something else or cannot be written.
    """
    folder = new_directory(out, "--out")
    remove_run(folder / "run")
    _make_repeatable()
    data = datasets.load(SETTINGS.dataset, validation=0.2, seed=0)

    def build() -> keras.Model:
        return models.build(SETTINGS.model, data.shape, data.classes)

    settings = replace(SETTINGS, seeds=(seed,))
    run = sweep(build, data, settings, folder / "run", progress=progress)
    write_report(run)
    (dense, *_), sparse = run.dense_and_sparse()
    chosen = _choose(run, dense, sparse)
    model = load_model(chosen.model)
    found = Outcome(
        dense,
        sparse,
        sparse.index(chosen),
        _verify(run, chosen),
        _write_model(folder, model, chosen.point, data.test.x[:64]),
        _latency({"dense": load_model(dense.model), "pruned": model}),
    )
    _write_figures(folder, found)
    _write_points(folder / "points.json", found, settings)
    return found


def _make_repeatable() -> None:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        # Two threads in one operation add up in an order that depends on the machine's load. A
        # process that has used TensorFlow before keeps the threads it has.
        with suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(1)


def _choose(run: Run, dense: Found, sparse: Sequence[Found]) -> Found:
    """The cheapest network that is as good as the dense one, or the best if none is."""
    best = max(found.point.validation_finetuned for found in sparse)
    missing = dense.point.validation_finetuned - best
    return choose_network(run, Wish(max_drop=max(MAX_DROP, missing)))


def _verify(run: Run, chosen: Found) -> Verification:
    """Repeat the surgery of a point, on the network that its training gave."""
    trained = run.start(chosen.trial)
    assert trained is not None, "it has a point, so it is not dead"
    return verify(trained.model, plan(trained.model, chosen.point.tau))


def _write_model(folder: Path, model: keras.Model, point: Point, images: Array) -> dict[str, float]:
    """Write the chosen network, and run it in a process that cannot import this package."""
    write_text(folder / "plan.json", Plan(point.sizes).to_json())
    paths = [save_model(model, folder / "pruned.keras"), export(model, folder / "saved_model")]
    found = check_portable(model, paths, images)
    return {Path(path).name: difference for path, difference in found.items()}


def _latency(networks: Mapping[str, keras.Model]) -> tuple[Latency, ...]:
    rows = [latency(networks, (size,), repeats) for size, repeats in REPEATS.items()]
    return tuple(row for group in rows for row in group)


def _write_figures(folder: Path, found: Outcome) -> None:
    """Write frontier.png, and architecture.png of the chosen point."""
    title = f"Test accuracy against multiply-adds, {SETTINGS.dataset}"
    points = [each.point for each in found.sparse]
    accuracy = found.dense.point.accuracy_finetuned
    save(frontier_figure(points, accuracy, found.chosen, title), folder / "frontier.png")
    base = {
        name: shape
        for name, shape in widths_and_sizes(load_model(found.dense.model)).items()
        if name in found.best.sizes
    }
    title = f"Learned architecture, {SETTINGS.dataset}, α = {found.best.alpha:g}"
    save(architecture_figure(base, found.best.sizes, title), folder / "architecture.png")


def _write_points(path: Path, found: Outcome, settings: Settings) -> None:
    """Write the points and the measurements as JSON.

    Everything but the entry "measured" is the same for the same seed.
    """
    dense, points = found.dense.point, [each.point for each in found.sparse]
    places = [(point.multiply_adds_fraction, point.accuracy_finetuned) for point in points]
    record = {
        "format": FORMAT,
        "settings": {**settings.record(), "seed": settings.seeds[0]},
        "dense": {
            "multiply_adds": dense.multiply_adds,
            "params": dense.params,
            "validation": dense.validation_finetuned,
            "accuracy": dense.accuracy_finetuned,
        },
        "points": [asdict(point) for point in points],
        "pareto": list(pareto(places)),
        "chosen": found.chosen,
        "measured": {
            "float64_difference": found.verification.error,
            "float64_control": found.verification.control,
            "reloaded_difference": dict(found.reloaded),
            "latency_ms": [asdict(row) for row in found.latencies],
            "machine": platform.machine(),
            "versions": _versions(),
        },
    }
    write_text(path, json.dumps(record, indent=1) + "\n")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("keras-structsparse", "keras", keras.backend.backend(), "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
