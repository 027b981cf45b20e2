"""The command line ``structsparse``: one file of this folder for each command.

Keras takes seconds to import. The modules of this folder import it inside functions only, so that
help and usage errors come at once.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import warnings
from typing import Annotated, Any

import typer

from keras_structsparse._version import __version__
from keras_structsparse.cli import (
    calibrate,
    choose,
    export,
    models,
    profile,
    prune,
    quickstart,
    recipe,
    report,
    shrink,
    sweep,
    train,
)
from keras_structsparse.cli.errors import INTERRUPTED, Commands, interrupt_when_told

app = typer.Typer(
    name="structsparse",
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; warnings and signals end in one line, a native crash is not silent."""
    warnings.formatwarning = _one_line
    if sys.stderr is not None:
        faulthandler.enable(sys.stderr)
    interrupt_when_told()
    try:
        app(prog_name="structsparse")
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _end_at_once()
        raise


def _end_at_once() -> None:
    """End without the seconds in which TensorFlow's threads are taken down."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(INTERRUPTED)


def _one_line(message: Warning | str, *where: Any, **more: Any) -> str:
    return f"warning: {' '.join(str(message).split())}\n"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"structsparse {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def structsparse(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
    traceback: Annotated[
        bool,
        typer.Option(
            "--traceback",
            envvar="STRUCTSPARSE_TRACEBACK",
            help="Show where an error comes from.",
        ),
    ] = False,
) -> None:
    """Train a Keras network into a really smaller one with exactly the same outputs.

    Start with `structsparse quickstart`; or train, prune, profile and export on your own.
    """
    # Read when TensorFlow is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


app.command(epilog=quickstart.EXAMPLE)(quickstart.quickstart)
app.command(epilog=models.EXAMPLE)(models.models)
app.command(epilog=shrink.EXAMPLE)(shrink.shrink)
app.command(epilog=train.EXAMPLE)(train.train)
app.command(epilog=recipe.EXAMPLE)(recipe.recipe)
app.command(epilog=sweep.EXAMPLE)(sweep.sweep)
app.command(epilog=choose.EXAMPLE)(choose.choose)
app.command(epilog=report.EXAMPLE)(report.report)
app.command(epilog=prune.EXAMPLE)(prune.prune)
app.command(epilog=profile.EXAMPLE)(profile.profile)
app.command(epilog=export.EXAMPLE)(export.export)
app.command(epilog=calibrate.EXAMPLE)(calibrate.calibrate)
