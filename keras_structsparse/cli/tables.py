"""Tables of what the package comes with: the networks of the zoo, and recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from keras_structsparse.models.card import Card
    from keras_structsparse.profiling.architecture import Architecture
    from keras_structsparse.training.recipes import DataRecipe


def zoo_table(
    architectures: Mapping[str, Architecture], heading: str, notes: Mapping[str, str]
) -> Table:
    """Networks of the zoo.

    Args:
        architectures: What each is and costs.
        heading: Of the last column.
        notes: What stands there.
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
