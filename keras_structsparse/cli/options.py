"""Options that several commands have and no dataclass describes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_structsparse.cli import parsing

KERAS, JSON = ".keras", ".json"

Seed = Annotated[
    int, typer.Option(parser=parsing.seed, metavar="INT", help="Seed of all random numbers.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier call wrote.")]
NewModel = Annotated[Path, typer.Option(metavar=f"FILE{KERAS}", help="Where to save the model.")]
ModelFile = Annotated[Path, typer.Argument(metavar=f"MODEL{KERAS}", help="The model.")]
AnyModel = Annotated[
    str, typer.Argument(metavar=f"MODEL{KERAS}|NAME", help="A file, or a name of `models`.")
]
AnyNetwork = Annotated[
    str, typer.Option(metavar=f"NAME|FILE{KERAS}", help="A name of `models`, or a file.")
]
DataName = Annotated[
    str, typer.Option(metavar="NAME", help="digits, or a TFDS image-classification set.")
]
DataDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of prepared or raw TFDS data.")
]
PlanFile = typer.Option(metavar=f"FILE{JSON}", help="Where to save the plan.")
Alpha = Annotated[
    float | None,
    typer.Option(
        parser=parsing.nonnegative,
        metavar="FLOAT",
        help="Weight of the penalty; unless given 1e-9 for multiply-adds, 1e-3 for the others.",
    ),
]
