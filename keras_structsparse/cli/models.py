"""The command ``models``: the networks that have names."""

from __future__ import annotations

from typing import Annotated

import typer

from keras_structsparse.cli.tables import card_table, console, zoo_table

EXAMPLE = "Example:\n\nstructsparse models"


def models(
    references: Annotated[
        bool, typer.Option("--references", help="Published networks to compare with, instead.")
    ] = False,
    pruned: Annotated[
        bool, typer.Option("--pruned", help="Trained networks that come with this, instead.")
    ] = False,
) -> None:
    """List the networks that can be trained by name."""
    if references and pruned:
        raise typer.BadParameter("expected --references or --pruned. Received both")
    from keras_structsparse import models as zoo

    if pruned:
        console().print(card_table(zoo.cards()))
    else:
        _list_zoo(references)


def _list_zoo(references: bool) -> None:
    """Print the base networks, or the published ones with their sources."""
    from keras_structsparse import models as zoo
    from keras_structsparse.profiling.architecture import architecture

    entries = zoo.REFERENCES if references else zoo.BASES
    found = {name: architecture(zoo.build(name)) for name in entries}
    out = console()
    if not references:
        notes = {name: entry.summary for name, entry in entries.items()}
        out.print(zoo_table(found, "summary", notes))
        return
    published = {name: entry.published for name, entry in entries.items() if entry.published}
    errors = {name: quoted.errors for name, quoted in published.items()}
    out.print(zoo_table(found, "published error", errors))
    for name, quoted in published.items():
        out.print(f"{name}: {quoted.source}", markup=False)
