"""The figures of a run, each with its caption and the numbers that it shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from keras_structsparse.plots import architecture_figure, curves_figure, widths_figure
from keras_structsparse.plots.curves import Curve, envelope, tau_curves
from keras_structsparse.sweeps.references import Mark
from keras_structsparse.sweeps.report.correlation_figures import correlation_drawings
from keras_structsparse.sweeps.report.drawing import Drawing, Row
from keras_structsparse.sweeps.report.kernel_figures import kernel_drawings
from keras_structsparse.sweeps.run_summary import Contents


def drawings(contents: Contents, marks: Sequence[Mark], title: str) -> Iterator[Drawing]:
    """Draw the figures of a run.

    Args:
        contents: What it holds.
        marks: Other networks to compare with.
        title: What was trained on what.

    Yields:
        The figures.

    Raises:
        ImportError: matplotlib is not installed.
    """
    yield _frontier(contents, marks, title)
    yield _widths(contents, title)
    yield _sizes(contents, title)
    yield from kernel_drawings(contents)
    yield from correlation_drawings(contents.correlations)


# --- accuracy against multiply-adds ---


def _frontier(contents: Contents, marks: Sequence[Mark], title: str) -> Drawing:
    points = [f.point for f in contents.sparse]
    dense = fmean(f.point.accuracy_finetuned for f in contents.dense)
    whole = contents.dense[0].point.multiply_adds
    references = [(mark.name, mark.fraction(whole), mark.accuracy) for mark in marks]
    caption = (
        "Test accuracy of every network against its multiply-adds: for each threshold tau the "
        "medians over seeds, one place for each alpha; the envelope goes through the networks that "
        "no other beats on the validation split, at their test accuracy, so it can go down."
    )
    if marks:
        sources = "; ".join(f"{mark.name}: {mark.source}" for mark in marks)
        caption += f" Stars are networks of others ({sources})."
    figure = curves_figure(points, dense, references, title)
    rows = [
        *(row for curve in tau_curves(points) for row in _rows("tau", curve)),
        *_rows("envelope", envelope(points)),
        _row("dense", "", 0.0, 1.0, dense),
        *(_row("reference", m.name, "", m.fraction(whole), m.accuracy, m.source) for m in marks),
    ]
    return Drawing("frontier", figure, caption, rows)


def _rows(kind: str, curve: Curve) -> list[Row]:
    places = zip(curve.alphas, curve.fractions, curve.accuracies, strict=True)
    return [_row(kind, curve.label, *place) for place in places]


def _row(
    kind: str, name: str, alpha: Any, fraction: float, accuracy: float, source: str = ""
) -> Row:
    return {
        "kind": kind,
        "name": name,
        "alpha": alpha,
        "multiply_adds_fraction": fraction,
        "accuracy": accuracy,
        "source": source,
    }


# --- widths against alpha ---


def _widths(contents: Contents, title: str) -> Drawing:
    named = contents.sparse[0].point.sizes
    base = {name: width for name, (width, _) in contents.base.items() if name in named}
    learned = _learned(contents)
    caption = (
        "Kernels left in every layer: for each alpha, the smallest threshold of the first seed "
        "that gave a network. Those that stay for a constant alone do not count."
    )
    rows = [
        {"alpha": alpha, "layer": name, "base": width, "left": widths[name]}
        for alpha, widths in learned.items()
        for name, width in base.items()
    ]
    return Drawing(
        "widths", widths_figure(base, learned, f"Learned widths,\n{title}"), caption, rows
    )


def _learned(contents: Contents) -> dict[float, dict[str, int]]:
    """For every alpha those of the first seed at the smallest threshold."""
    ordered = sorted(contents.sparse, key=lambda f: (f.trial.alpha, f.trial.seed, f.point.tau))
    found: dict[float, dict[str, int]] = {}
    for each in ordered:
        sizes = each.point.sizes
        widths = {name: sum(size > 0 for size in kernels) for name, kernels in sizes.items()}
        found.setdefault(each.trial.alpha, widths)
    return found


# --- kernels of every size ---


def _sizes(contents: Contents, title: str) -> Drawing:
    """Those of one network; the numbers are of all on the frontier."""
    shown = contents.middle.point
    base = {name: shape for name, shape in contents.base.items() if name in shown.sizes}
    caption = (
        "Kernels of every size in each layer of one network on the frontier "
        f"(alpha {shown.alpha:g}, tau {shown.tau:g}, seed {contents.middle.trial.seed}): "
        f"{shown.multiply_adds_fraction:.1%} of the multiply-adds, test accuracy "
        f"{shown.accuracy_finetuned:.2%}. The dashed outline is the base architecture. Sizes are "
        "those that the threshold leaves; the network, and its multiply-adds, have layers of "
        "several sizes as one convolution of the largest where splitting them does not pay."
    )
    rows = [
        {"alpha": each.point.alpha, "tau": each.point.tau, "seed": each.trial.seed}
        | {"layer": name, "size": size, "kernels": count}
        for each in contents.front
        for name, sizes in each.point.sizes.items()
        for size, count in sorted(Counter(sizes).items())
        if size
    ]
    figure = architecture_figure(base, shown.sizes, f"Kernels of every size,\n{title}")
    return Drawing("sizes", figure, caption, rows)
