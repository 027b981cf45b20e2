"""A run directory as figures, a table of points, and one page that opens without a network."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_structsparse._files import write_text
from keras_structsparse.export import load_model
from keras_structsparse.frontier import pareto
from keras_structsparse.plots import architecture_figure, frontier_figure, save, svg, widths_figure
from keras_structsparse.results import widths_and_sizes
from keras_structsparse.sweeps import Found, Run

Figure = Any
Shape = tuple[int, int]

TEMPLATES = Path(__file__).parent / "templates"

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


@dataclass(frozen=True)
class Contents:
    """What a run holds, sorted out.

    Attributes:
        dense: The dense networks, one per seed.
        sparse: All others.
        front: Those of them on the efficient frontier of the validation split, cheapest first.
        base: (width, size) of every layer of the base architecture.
    """

    dense: Sequence[Found]
    sparse: Sequence[Found]
    front: Sequence[Found]
    base: Mapping[str, Shape]


def write_report(run: Run) -> Path:
    """Draw the figures of a run and write its page.

    Writes ``frontier`` and ``widths`` as PNG and SVG, ``points.csv`` and ``report.html``.

    Args:
        run: A run; trials that are missing are left out.

    Returns:
        The page.

    Raises:
        ImportError: matplotlib or jinja2 is not installed.
        OutputError: No sparse network, or no dense one, is there yet, or the files cannot be
            written.
    """
    contents = read_contents(run)
    write_text(run.folder / "points.csv", _csv([*contents.dense, *contents.sparse]))
    title = f"{run.settings['model']} on {run.settings['dataset']}"
    figures = dict(_figures(contents, title))
    for name, figure in figures.items():
        save(figure, run.folder / f"{name}.png")
        save(figure, run.folder / f"{name}.svg")
    return write_text(run.folder / "report.html", _page(run, contents, figures, title))


def read_contents(run: Run) -> Contents:
    """Sort out what a run holds.

    Args:
        run: The run.

    Returns:
        Its contents.

    Raises:
        OutputError: No sparse network, or no dense one, is there yet.
    """
    dense, sparse = run.dense_and_sparse()
    values = [(float(f.point.multiply_adds), f.point.validation_finetuned) for f in sparse]
    front = [sparse[i] for i in pareto(values)]
    return Contents(dense, sparse, front, widths_and_sizes(load_model(dense[0].model)))


def _figures(contents: Contents, title: str) -> Iterator[tuple[str, Figure]]:
    accuracies = [f.point.accuracy_finetuned for f in contents.dense]
    points = [f.point for f in contents.sparse]
    yield "frontier", frontier_figure(points, sum(accuracies) / len(accuracies), title=title)
    named = contents.sparse[0].point.sizes
    base = {name: width for name, (width, _) in contents.base.items() if name in named}
    yield "widths", widths_figure(base, _widths(contents), f"Learned widths, {title}")


def _widths(contents: Contents) -> dict[float, dict[str, int]]:
    """For every alpha those of the first seed at the smallest threshold."""
    ordered = sorted(contents.sparse, key=lambda f: (f.trial.alpha, f.trial.seed, f.point.tau))
    found: dict[float, dict[str, int]] = {}
    for each in ordered:
        sizes = each.point.sizes
        widths = {name: sum(size > 0 for size in kernels) for name, kernels in sizes.items()}
        found.setdefault(each.trial.alpha, widths)
    return found


def _values(found: Found) -> dict[str, Any]:
    return {name: getattr(found.point, name, found.trial.seed) for name in COLUMNS}


def _csv(found: Sequence[Found]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_values, found))
    return text.getvalue()


def _page(run: Run, contents: Contents, figures: Mapping[str, Figure], title: str) -> str:
    captions = {
        "frontier": "Test accuracy of every network against its multiply-adds.",
        "widths": "Kernels left in every layer: for each alpha, the smallest threshold of the "
        "first seed.",
    }
    shown = [{"svg": svg(figure), "caption": captions[name]} for name, figure in figures.items()]
    return str(
        _template().render(
            title=title,
            figures=shown,
            headings=[heading for heading, _ in COLUMNS.values()],
            rows=[_row(f, f in contents.front) for f in (*contents.dense, *contents.sparse)],
            front=len(contents.front),
            architectures=[_architecture(f, contents.base) for f in contents.front],
            settings=[(name, _text(value)) for name, value in run.settings.items()],
        )
    )


def _template() -> Any:
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise ImportError(
            "report: expected jinja2, which makes the page: pip install "
            f"'keras-structsparse[plots]'. Received: {error}"
        ) from error
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=True).get_template("report.html")


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
