"""The command ``choose``: one network of a sweep, with a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_structsparse.cli import parsing
from keras_structsparse.cli.options import floating
from keras_structsparse.cli.report import RunDirectory, say_unfinished

EXAMPLE = "Example, after that of sweep:\n\nstructsparse choose run --max-drop 1.0 --out chosen"


def choose(
    run: RunDirectory,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the network.")],
    max_drop: Annotated[
        float | None,
        floating("Choose the cheapest network that loses at most this accuracy, in per cent."),
    ] = None,
    max_multiply_adds: Annotated[
        float | None,
        floating(
            "Choose the best network with at most this number of multiply-adds.", parsing.positive
        ),
    ] = None,
    max_latency: Annotated[
        float | None,
        typer.Option(
            parser=parsing.milliseconds,
            metavar="FLOAT[ms]",
            help="Choose the best network that takes at most this time for one image.",
        ),
    ] = None,
) -> None:
    """Choose a network of a sweep by its validation accuracy; write it with a model card."""
    wishes = {
        "--max-drop": max_drop,
        "--max-multiply-adds": max_multiply_adds,
        "--max-latency": max_latency,
    }
    given = [name for name, value in wishes.items() if value is not None]
    if len(given) != 1:
        received = " and ".join(given) or "none"
        raise typer.BadParameter(f"expected one of {', '.join(wishes)}. Received: {received}")
    from keras_structsparse.sweeps.choosing import Wish, choose_network, hand_over
    from keras_structsparse.sweeps.run_directory import read_run

    drop = None if max_drop is None else max_drop / 100
    found = read_run(run)
    say_unfinished(found)
    chosen = choose_network(found, Wish(drop, max_multiply_adds, max_latency))
    hand_over(found, chosen, out)
    point = chosen.point
    typer.echo(
        f"alpha {point.alpha:g}, tau {point.tau:g}, seed {chosen.trial.seed}: "
        f"{point.multiply_adds_fraction:.1%} of the multiply-adds, validation accuracy "
        f"{point.validation_finetuned:.2%}, test accuracy {point.accuracy_finetuned:.2%}"
    )
    typer.echo(f"saved {out}")
