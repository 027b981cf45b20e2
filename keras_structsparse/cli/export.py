"""The command ``export``: a model for use without Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_structsparse.cli import outputs
from keras_structsparse.cli.options import Force, ModelFile, one_of

EXAMPLE = "Example, after that of prune:\n\nstructsparse export pruned.keras --out saved_model"

ENDINGS = {"saved_model": None, "litert": ".tflite", "onnx": ".onnx"}
"""How the name of a file ends, by format; None for a directory."""


def export(
    model: ModelFile,
    out: Annotated[
        Path, typer.Option(metavar="DIR|FILE", help="A directory, or a .tflite or .onnx file.")
    ],
    format: Annotated[
        str,
        one_of(tuple(ENDINGS), "What to export to."),
    ] = "saved_model",
    fold: Annotated[
        bool,
        typer.Option(help="Fold batch normalisations into convolutions, checked in float64."),
    ] = True,
    force: Force = False,
) -> None:
    """Export a model for use without Keras, and run the export in a process of its own."""
    ending = ENDINGS[format]
    if ending is not None:
        outputs.check_new_file(out, "--out", ending, force)
    else:
        outputs.check_new_directory(out, "--out", force)
    from keras_structsparse.cli.files import load_model
    from keras_structsparse.export.verified import export as write

    typer.echo(str(write(load_model(model), out, format, fold=fold)))
