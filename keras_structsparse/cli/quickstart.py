"""The command ``quickstart``: a small sweep, its best network, and what it saves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from keras_structsparse.cli.options import Seed
from keras_structsparse.cli.tables import console, latency_table, points_table

if TYPE_CHECKING:
    from keras_structsparse.sweeps.quickstart import Outcome

EXAMPLE = "Example:\n\nstructsparse quickstart --out quickstart-out --seed 0"


def quickstart(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the results.")] = Path(
        "quickstart-out"
    ),
    seed: Seed = 0,
) -> None:
    """Find the efficient frontier of a residual network on digits, in three minutes."""
    run(out, seed, console())


def run(out: Path, seed: int, console: Console) -> None:
    """Run the quickstart and print its tables.

    Args:
        out: Directory for the results.
        seed: Seed of everything random.
        console: Where to print.
    """
    from keras_structsparse.cli.progress import TrialBars
    from keras_structsparse.sweeps.quickstart import quickstart as small_sweep

    start = time.perf_counter()
    found = small_sweep(out, seed, TrialBars(console))
    _print(console, found)
    seconds = time.perf_counter() - start
    console.print(f"wrote {out}, with the report {out}/run/report.html, in {seconds:.0f} s")


def _print(out: Console, found: Outcome) -> None:
    best, dense = found.best, found.dense.point
    points = [each.point for each in found.sparse]
    out.print(points_table(dense, points, found.chosen))
    out.print(latency_table(found.latencies))
    out.print(str(found.verification), highlight=False)
    for name, difference in found.reloaded.items():
        out.print(f"{name} reloaded without keras_structsparse: difference {difference:.1e}")
    out.print(
        f"chosen by validation accuracy, {best.validation_finetuned:.1%} "
        f"(dense {dense.validation_finetuned:.1%}): alpha {best.alpha:g}, "
        f"{best.multiply_adds_fraction:.1%} of the multiply-adds, "
        f"test accuracy {best.accuracy_finetuned:.1%} (dense {dense.accuracy_finetuned:.1%})"
    )
