"""The command ``profile``: the multiply-adds and weights of a model, or of two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_structsparse.cli import parsing
from keras_structsparse.cli.options import KERAS, AnyModel, InputShape

if TYPE_CHECKING:
    from keras_structsparse.profiling.profile import Comparison, Profile

EXAMPLE = "Example:\n\nstructsparse profile fashion-mnist-residual"


def profile(
    model: AnyModel,
    shape: InputShape = None,
    compare: Annotated[
        str | None, typer.Option(metavar=f"MODEL{KERAS}|NAME", help="A smaller model beside it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png|FILE.svg", help="Draw what --compare compares."),
    ] = None,
) -> None:
    """Count the multiply-adds and weights of every layer."""
    sides = None if shape is None else parsing.input_shape(shape)
    if figure is not None and compare is None:
        raise typer.BadParameter("expected --compare with --figure. Received none")
    found = costs([name for name in (model, compare) if name is not None], sides)
    if figure is not None:
        from keras_structsparse.plots import comparison_figure, save
        from keras_structsparse.profiling.profile import Comparison

        assert isinstance(found, Comparison), "there are two models"
        save(comparison_figure(found), figure)
    typer.echo(found.to_json().rstrip() if json else str(found))
    if figure is not None and not json:
        typer.echo(f"wrote {figure}")


def costs(names: Sequence[str], shape: Sequence[int] | None) -> Profile | Comparison:
    """The profile of one model, or the comparison of two.

    Args:
        names: One or two models, as for :func:`keras_structsparse.cli.files.source`.
        shape: Shape of one input where the models leave it open.
    """
    from keras_structsparse.cli import files
    from keras_structsparse.profiling import profile as profiling

    models = [get(shape, None) for get in [files.source(name) for name in names]]
    if len(models) == 1:
        return profiling.profile(models[0], shape)
    return profiling.compare(models[0], models[1], input_shape=shape)
