"""What the quickstart writes and prints of its points."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import keras
from rich.console import Console
from rich.table import Table

from keras_structsparse._files import write_text
from keras_structsparse.plots import architecture_figure, frontier_figure, save
from keras_structsparse.profiling.latency import Latency
from keras_structsparse.profiling.pareto import pareto
from keras_structsparse.profiling.profile import profile
from keras_structsparse.surgery.verification import Verification
from keras_structsparse.sweeps.points import Point, widths_and_sizes

FORMAT = "keras_structsparse.points/1"


@dataclass(frozen=True)
class Dense:
    """The dense network that the points are compared with.

    Attributes:
        multiply_adds: For one image.
        params: Its weights.
        validation: Accuracy on the validation split.
        accuracy: Accuracy on the test split.
    """

    multiply_adds: int
    params: int
    validation: float
    accuracy: float


@dataclass(frozen=True)
class Frontier:
    """All points of a run, and the chosen one.

    Attributes:
        dense: The dense network.
        points: The points, by alpha.
        chosen: Index of the chosen point.
    """

    dense: Dense
    points: tuple[Point, ...]
    chosen: int

    @property
    def best(self) -> Point:
        """The chosen point."""
        return self.points[self.chosen]


@dataclass(frozen=True)
class Checks:
    """What was measured on the chosen network.

    Attributes:
        verification: Pruned against masked in float64.
        reloaded: By file, the relative difference of its outputs in a process without us.
        latencies: Of the dense and the pruned network.
    """

    verification: Verification
    reloaded: Mapping[str, float]
    latencies: Sequence[Latency]


def write_figures(folder: Path, base: keras.Model, frontier: Frontier, title: str) -> None:
    """Write frontier.png, and architecture.png of the chosen point.

    Args:
        folder: Where to.
        base: The base architecture.
        frontier: The points.
        title: What the networks were trained on.
    """
    figure = frontier_figure(
        frontier.points,
        frontier.dense.accuracy,
        frontier.chosen,
        title=f"Test accuracy against multiply-adds, {title}",
    )
    save(figure, folder / "frontier.png")
    best = frontier.best
    figure = architecture_figure(
        widths_and_sizes(base),
        best.sizes,
        title=f"Learned architecture, {title}, α = {best.alpha:g}",
    )
    save(figure, folder / "architecture.png")


def write_points(
    path: Path, frontier: Frontier, checks: Checks, settings: Mapping[str, Any]
) -> None:
    """Write the points, and what was measured, as JSON.

    Everything but the entry "measured" is the same for the same seed.

    Args:
        path: The file.
        frontier: The points.
        checks: The measurements.
        settings: What the run was started with.
    """
    record = {
        "format": FORMAT,
        "settings": settings,
        "dense": asdict(frontier.dense),
        "points": [asdict(point) for point in frontier.points],
        "pareto": list(pareto(_costs_and_values(frontier.points))),
        "chosen": frontier.chosen,
        "measured": {
            "float64_difference": checks.verification.error,
            "float64_control": checks.verification.control,
            "reloaded_difference": dict(checks.reloaded),
            "latency_ms": [asdict(row) for row in checks.latencies],
            "machine": platform.machine(),
            "versions": _versions(),
        },
    }
    write_text(path, json.dumps(record, indent=1) + "\n")


def points_table(frontier: Frontier) -> Table:
    """The dense network and all points; the chosen one is marked."""
    table = Table(title="accuracy on the test split", title_justify="left")
    for heading in (
        "",
        "alpha",
        "tau",
        "multiply-adds",
        "of dense",
        "params",
        "surgery",
        "fine-tuned",
    ):
        table.add_column(heading, justify="right")
    dense = frontier.dense
    size = (f"{dense.multiply_adds:,}", "100.0%", f"{dense.params:,}")
    table.add_row("", "dense", "", *size, "", f"{dense.accuracy:.1%}")
    for index, point in enumerate(frontier.points):
        table.add_row(
            "→" if index == frontier.chosen else "",
            f"{point.alpha:g}",
            f"{point.tau:g}",
            f"{point.multiply_adds:,}",
            f"{point.multiply_adds_fraction:.1%}",
            f"{point.params:,}",
            f"{point.accuracy_at_surgery:.1%}",
            f"{point.accuracy_finetuned:.1%}",
            style="bold" if index == frontier.chosen else None,
        )
    return table


def latency_table(latencies: Sequence[Latency]) -> Table:
    """Median time a batch of the dense and the pruned network."""
    table = Table(title="latency, median of a batch", title_justify="left")
    for heading in ("batch", "dense", "pruned", "pruned / dense"):
        table.add_column(heading, justify="right")
    medians = {(row.batch_size, row.name): row.median for row in latencies}
    for size in dict.fromkeys(row.batch_size for row in latencies):
        before, after = medians[size, "dense"], medians[size, "pruned"]
        table.add_row(str(size), f"{before:.2f} ms", f"{after:.2f} ms", f"{after / before:.2f}")
    return table


def report(console: Console, frontier: Frontier, checks: Checks) -> None:
    """Print the tables, the checks and the choice."""
    best, dense = frontier.best, frontier.dense
    console.print(points_table(frontier))
    console.print(latency_table(checks.latencies))
    console.print(str(checks.verification), highlight=False)
    for name, difference in checks.reloaded.items():
        console.print(f"{name} reloaded without keras_structsparse: difference {difference:.1e}")
    console.print(
        f"chosen by validation accuracy, {best.validation_finetuned:.1%} "
        f"(dense {dense.validation:.1%}): alpha {best.alpha:g}, "
        f"{best.multiply_adds_fraction:.1%} of the multiply-adds, "
        f"test accuracy {best.accuracy_finetuned:.1%} (dense {dense.accuracy:.1%})"
    )


def dense_summary(model: keras.Model, validation: float, accuracy: float) -> Dense:
    """The dense network's size and accuracies."""
    size = profile(model)
    return Dense(size.multiply_adds, size.params, validation, accuracy)


def _costs_and_values(points: Sequence[Point]) -> list[tuple[float, float]]:
    return [(point.multiply_adds_fraction, point.accuracy_finetuned) for point in points]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("keras-structsparse", "keras", keras.backend.backend(), "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
