"""The console, and the tables that commands print on it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from keras_structsparse.models.card import Card
    from keras_structsparse.profiling.architecture import Architecture
    from keras_structsparse.profiling.latency import Latency
    from keras_structsparse.surgery.plans import Plan
    from keras_structsparse.sweeps.points import Point
    from keras_structsparse.sweeps.run_directory import Found
    from keras_structsparse.training.recipes import DataRecipe
    from keras_structsparse.training.shrink.measured import Row

WIDTH = 150
"""Columns where standard output is no terminal."""


def console() -> Console:
    """Standard output, wide enough for tables where it is no terminal; texts are as they are."""
    plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
    terminal = Console(**plain)
    if terminal.is_terminal or "COLUMNS" in os.environ:
        return terminal
    return Console(**plain, width=WIDTH)


def zoo_table(
    architectures: Mapping[str, Architecture], heading: str, notes: Mapping[str, str]
) -> Table:
    """Networks of the zoo.

    Args:
        architectures: The depth, widths, sizes and costs of each.
        heading: Heading of the last column.
        notes: Content of the last column, by name.
    """
    table = Table("name")
    table.add_column("depth", justify="right")
    for column in ("widths", "sizes"):
        table.add_column(column, max_width=28)
    for column in ("params", "multiply-adds"):
        table.add_column(column, justify="right")
    table.add_column(heading)
    for name, found in architectures.items():
        sets = (", ".join(map(str, numbers)) for numbers in (found.widths, found.sizes))
        counts = (f"{found.params:,}", f"{found.multiply_adds:,}")
        table.add_row(name, str(found.depth), *sets, *counts, notes[name])
    return table


def card_table(cards: Mapping[str, Card]) -> Table:
    """The pruned networks that come with the package.

    Args:
        cards: Their cards by name.
    """
    table = Table("name", "base", "data")
    for column in ("multiply-adds", "of base", "params", "test accuracy", "base's", "ms", "base's"):
        table.add_column(column, justify="right")
    for name, card in cards.items():
        share = card.multiply_adds / card.dense_multiply_adds
        costs = (f"{card.multiply_adds:,}", f"{share:.1%}", f"{card.params:,}")
        accuracies = (f"{card.accuracy:.2%}", f"{card.dense_accuracy:.2%}")
        times = (f"{card.latency_ms:.2f}", f"{card.dense_latency_ms:.2f}")
        table.add_row(name, card.base, card.dataset, *costs, *accuracies, *times)
    return table


def recipe_table(recipes: Mapping[str, DataRecipe]) -> Table:
    """The recipes for data sets.

    Args:
        recipes: Recipes by name.
    """
    table = Table(*("name", "model", "epochs", "batch", "rate", "schedule", "augmentation"))
    for column in ("weight decay", "source"):
        table.add_column(column)
    for name, recipe in recipes.items():
        changes = recipe.augmentation
        cells = (
            *(str(recipe.epochs), str(recipe.batch_size), f"{recipe.learning_rate:g}"),
            ", ".join(f"/10 at {drop:.0%}" for drop in recipe.drops) or "half cosine",
            ", ".join(f"{k} {v}" for k, v in vars(changes).items() if v) or "none",
            f"{recipe.weight_decay:g}" if recipe.weight_decay else "none",
        )
        table.add_row(name, recipe.model, *cells, recipe.source)
    return table


def plan_table(plan: Plan, title: str) -> Table:
    """How many kernels of each layer have which size.

    Args:
        plan: The plan.
        title: Title of the table.
    """
    table = Table("layer", title=title)
    table.add_column("kernels", justify="right")
    table.add_column("left", justify="right")
    table.add_column("sizes left: number x size")
    for name, sizes in plan.sizes.items():
        counts = sorted(Counter(size for size in sizes if size).items(), reverse=True)
        text = ", ".join(f"{count} x {size}" for size, count in counts) or "layer removed"
        table.add_row(name, str(len(sizes)), str(plan.widths[name]), text)
    return table


def sweep_table(found: Sequence[Found]) -> Table:
    """The networks of a sweep.

    Args:
        found: Its points.
    """
    table = Table()
    headings = ("alpha", "seed", "tau", "multiply-adds", "of dense", "params")
    for heading in (*headings, "validation", "test at surgery", "test"):
        table.add_column(heading, justify="right")
    for trial, point in ((entry.trial, entry.point) for entry in found):
        table.add_row(
            f"{trial.alpha:g}" if trial.alpha else "dense",
            str(trial.seed),
            f"{point.tau:g}",
            f"{point.multiply_adds:,}",
            f"{point.multiply_adds_fraction:.1%}",
            f"{point.params:,}",
            f"{point.validation_finetuned:.1%}",
            f"{point.accuracy_at_surgery:.1%}",
            f"{point.accuracy_finetuned:.1%}",
        )
    return table


def points_table(dense: Point, points: Sequence[Point], chosen: int) -> Table:
    """The dense network and all points; the chosen one is marked.

    Args:
        dense: The point of the dense network.
        points: The others.
        chosen: Index of the chosen one.
    """
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
    size = (f"{dense.multiply_adds:,}", "100.0%", f"{dense.params:,}")
    table.add_row("", "dense", "", *size, "", f"{dense.accuracy_finetuned:.1%}")
    for index, point in enumerate(points):
        table.add_row(
            "→" if index == chosen else "",
            f"{point.alpha:g}",
            f"{point.tau:g}",
            f"{point.multiply_adds:,}",
            f"{point.multiply_adds_fraction:.1%}",
            f"{point.params:,}",
            f"{point.accuracy_at_surgery:.1%}",
            f"{point.accuracy_finetuned:.1%}",
            style="bold" if index == chosen else None,
        )
    return table


def before_and_after_table(rows: Sequence[Row]) -> Table:
    """Numbers of a network before and after shrinking.

    Args:
        rows: The numbers.
    """
    table = Table("")
    for heading in ("before", "after", "after / before"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.name, row.before, row.after, row.share)
    return table


def latency_table(latencies: Sequence[Latency]) -> Table:
    """The median time per batch of the dense and the pruned network.

    Args:
        latencies: The measurements of networks called "dense" and "pruned".
    """
    table = Table(title="latency, median of a batch", title_justify="left")
    for heading in ("batch", "dense", "pruned", "pruned / dense"):
        table.add_column(heading, justify="right")
    medians = {(row.batch_size, row.name): row.median for row in latencies}
    for size in dict.fromkeys(row.batch_size for row in latencies):
        before, after = medians[size, "dense"], medians[size, "pruned"]
        table.add_row(str(size), f"{before:.2f} ms", f"{after:.2f} ms", f"{after / before:.2f}")
    return table
