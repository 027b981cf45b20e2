"""The command ``report``: the figures, tables and page of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_structsparse._files import check_writable
from keras_structsparse.cli.options import JSON
from keras_structsparse.cli.tables import console, sweep_table
from keras_structsparse.errors import OutputError

if TYPE_CHECKING:
    from keras_structsparse.sweeps.references import ReferenceNetwork
    from keras_structsparse.sweeps.run_directory import Run

EXAMPLE = (
    "Example, after that of sweep:\n\nstructsparse report run\n\n"
    "structsparse report run --marks published.json --out report"
)

RunDirectory = Annotated[Path, typer.Argument(metavar="RUN", help="A directory that sweep wrote.")]


def report(
    run: RunDirectory,
    marks: Annotated[
        Path | None,
        typer.Option(
            metavar=f"FILE{JSON}",
            help="Other networks to show beside the frontier: a list of objects with name, "
            "multiply_adds or multiply_adds_fraction, accuracy and source.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write the report instead of into the run."),
    ] = None,
) -> None:
    """Draw the figures of a sweep, also of an unfinished one, and write its page report.html."""
    from keras_structsparse.sweeps.references import read_references
    from keras_structsparse.sweeps.run_directory import read_run

    others = () if marks is None else read_references(marks)
    found = read_run(run)
    say_unfinished(found)
    write_and_print(found, others, out)


def say_unfinished(run: Run) -> None:
    """Warn of a run whose sweep has not finished."""
    if missing := run.missing():
        known = len(run.trials())
        typer.echo(
            f"warning: the sweep is not finished: {known} of {known + len(missing)} trials are "
            f"there, and {missing[0].name} is not",
            err=True,
        )


def write_and_print(
    run: Run, references: Sequence[ReferenceNetwork] = (), out: Path | None = None
) -> None:
    """Print the points of a run and write its report; of one that is read-only, print them.

    Args:
        run: The run.
        references: Networks of others to show beside the frontier.
        out: Where to write the report; the run directory unless given.
    """
    from keras_structsparse.sweeps.report.report import write_report

    run.dense_and_sparse()  # Its errors come first.
    console().print(sweep_table(run.found()))
    try:
        check_writable(run.folder if out is None else out, "RUN" if out is None else "--out")
    except OutputError as error:
        if out is not None:
            raise
        typer.echo(f"warning: no report is written: {error}; see --out", err=True)
        return
    typer.echo(f"wrote {write_report(run, references, out)}")
