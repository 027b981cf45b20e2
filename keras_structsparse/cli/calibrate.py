"""The command ``calibrate``: what operations cost on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_structsparse._files import write_text
from keras_structsparse.cli import outputs
from keras_structsparse.cli.options import JSON, Force, integer

EXAMPLE = "Example:\n\nstructsparse calibrate --batch-size 1 --out costs.json"


def calibrate(
    out: Annotated[Path, typer.Option(metavar=f"FILE{JSON}", help="Where to save the costs.")],
    batch_size: Annotated[int, integer("Examples per run, as in the later use.")] = 1,
    repeats: Annotated[int, integer("Runs of each network.")] = 20,
    force: Force = False,
) -> None:
    """Measure what operations cost on this machine, for the choices of surgery."""
    outputs.check_new_file(out, "--out", JSON, force)
    from keras_structsparse.profiling.calibration import calibrate as measure

    found = measure(batch_size, repeats)
    typer.echo(str(found))
    write_text(out, found.to_json())
    typer.echo(f"saved {out}")
