"""Options that several commands have and no dataclass describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_structsparse.cli import parsing

KERAS, JSON = ".keras", ".json"


def floating(help: str, parser: Callable[[str | float], float] = parsing.number) -> Any:
    """An option that takes a number."""
    return typer.Option(parser=parser, metavar="FLOAT", help=help)


def integer(help: str, parser: Callable[[str | int], int] = parsing.whole) -> Any:
    """An option that takes a whole number."""
    return typer.Option(parser=parser, metavar="INT", help=help)


def one_of(choices: Sequence[str], help: str) -> Any:
    """An option that takes one of some words."""
    return typer.Option(parser=parsing.one_of(choices), metavar="|".join(choices), help=help)


InputShape = Annotated[
    str | None,
    typer.Option(
        "--input-shape",
        metavar="28,28,1",
        help="Shape of one input, where the model leaves it open.",
    ),
]
Seed = Annotated[int, integer("Seed of all random numbers.", parsing.seed)]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier call wrote.")]
NewModel = Annotated[Path, typer.Option(metavar=f"FILE{KERAS}", help="Where to save the model.")]
ModelFile = Annotated[Path, typer.Argument(metavar=f"MODEL{KERAS}", help="The model (.h5 too).")]
AnyModel = Annotated[
    str,
    typer.Argument(metavar=f"MODEL{KERAS}|NAME", help="A file (.h5 too), or a name of `models`."),
]
AnyNetwork = Annotated[
    str,
    typer.Option(metavar=f"NAME|FILE{KERAS}", help="A name of `models`, or a file (.h5 too)."),
]
_DATA = {
    "metavar": "NAME|DIR|FILE.npz",
    "help": "digits, a TFDS image-classification set, a folder with one subfolder of images for "
    "each class (with or without train, val, test above), or arrays.",
}
DataName = Annotated[str, typer.Option(**_DATA)]
DataArgument = Annotated[str, typer.Argument(**_DATA)]
DataDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of prepared or raw TFDS data.")
]
Alpha = Annotated[
    float | None,
    floating(
        "Weight of the penalty; unless given 1e-9 for multiply-adds, 1e-3 for the others.",
        parsing.nonnegative,
    ),
]
