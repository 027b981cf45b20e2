"""A run directory as figures, a table of points, and one page that opens without a network."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_structsparse._files import new_directory, write_text
from keras_structsparse._typing import StrPath
from keras_structsparse.plots import architecture_figure, save, svg
from keras_structsparse.plots.pages import page_template
from keras_structsparse.sweeps.references import ReferenceNetwork
from keras_structsparse.sweeps.report.figures import Drawing, drawings
from keras_structsparse.sweeps.report.kernel_figures import kernel_drawings
from keras_structsparse.sweeps.run_directory import Found, Run
from keras_structsparse.sweeps.run_summary import Contents, Shape, read_contents

TEMPLATES = Path(__file__).parent

HASH = re.compile(r", SHA-256 [0-9a-f]+$")
DETAILS = re.compile(r"(, \d+ pixels)?(, preprocessed as \S+)?, \S+ for validation$")
"""What the settings of the command line add to the names of a file and of a data set."""

LINE = 40
"""Characters in a line of a figure's title."""

COLUMNS = {
    "alpha": ("alpha", "{:g}"),
    "seed": ("seed", "{}"),
    "tau": ("tau", "{:g}"),
    "multiply_adds": ("multiply-adds", "{:,}"),
    "multiply_adds_fraction": ("of dense", "{:.1%}"),
    "params": ("params", "{:,}"),
    "validation_at_surgery": ("validation at surgery", "{:.2%}"),
    "validation_finetuned": ("validation", "{:.2%}"),
    "accuracy_at_surgery": ("test at surgery", "{:.2%}"),
    "accuracy_finetuned": ("test", "{:.2%}"),
}
"""Of the table of points: attributes, their headings, and how they are shown."""


def write_report(
    run: Run, references: Sequence[ReferenceNetwork] = (), out: StrPath | None = None
) -> Path:
    """Draw the figures of a run and write its page.

    Writes the figures, such as ``frontier`` and ``widths``, as PNG and SVG with the numbers that
    they show as CSV, ``points.csv`` and ``report.html``.

    Args:
        run: A run; trials that are missing are left out.
        references: Other networks, such as published ones, to show beside the frontier.
        out: Another directory for the files than that of the run: new, empty, or written by an
            earlier call.

    Returns:
        The page.

    Raises:
        ImportError: matplotlib or jinja2 is not installed.
        OutputError: No sparse network, or no dense one, is there yet, or the files cannot be
            written.
    """
    contents = read_contents(run)
    folder = run.folder if out is None else new_directory(out, "--out")
    write_text(folder / "points.csv", _csv([*map(_values, (*contents.dense, *contents.sparse))]))
    title = heading(run.settings)
    found = [*drawings(contents, references, title), *kernel_drawings(contents)]
    for each in found:
        save(each.figure, folder / f"{each.name}.png")
        save(each.figure, folder / f"{each.name}.svg")
        write_text(folder / f"{each.name}.csv", _csv(each.rows))
    return write_text(folder / "report.html", _page(run, contents, found, title))


def heading(settings: Mapping[str, Any]) -> str:
    """The names of the network and the data set, in lines that fit into a figure.

    Args:
        settings: The settings of a run. Its table has the rest of both: the hash of a file, the
            size of the images.

    Examples:
        >>> heading({"model": "a, b.keras, SHA-256 12ab", "dataset": "digits, 0.1 for validation"})
        'a, b.keras on digits'
    """
    model = HASH.sub("", settings["model"])
    dataset = DETAILS.sub("", settings["dataset"])
    return textwrap.fill(f"{model} on {Path(dataset).name}", LINE)


def _values(found: Found) -> dict[str, Any]:
    return {name: getattr(found.point, name, found.trial.seed) for name in COLUMNS}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _page(run: Run, contents: Contents, found: Sequence[Drawing], title: str) -> str:
    shown = [{"svg": svg(each.figure), "caption": each.caption} for each in found]
    return str(
        page_template(TEMPLATES).render(
            title=title,
            figures=shown,
            headings=[heading for heading, _ in COLUMNS.values()],
            rows=[_row(f, f in contents.front) for f in (*contents.dense, *contents.sparse)],
            pruned=len(contents.sparse),
            dense=len(contents.dense),
            front=len(contents.front),
            architectures=[_architecture(f, contents.base) for f in contents.front],
            settings=[(name, _text(value)) for name, value in run.settings.items()],
        )
    )


def _row(found: Found, front: bool) -> dict[str, Any]:
    values = _values(found)
    cells = [
        {"value": value, "text": COLUMNS[name][1].format(value)} for name, value in values.items()
    ]
    return {"front": front, "cells": cells}


def _architecture(found: Found, base: Mapping[str, Shape]) -> dict[str, str]:
    point = found.point
    title = f"alpha {point.alpha:g}, tau {point.tau:g}, seed {found.trial.seed}"
    caption = (
        f"{point.multiply_adds_fraction:.1%} of the multiply-adds, test accuracy "
        f"{point.accuracy_finetuned:.2%} ({title})"
    )
    named = {name: shape for name, shape in base.items() if name in point.sizes}
    return {"svg": svg(architecture_figure(named, point.sizes, title)), "caption": caption}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(entry)}" for name, entry in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
