"""The figures of a run, each with its caption and the numbers that it shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from keras_structsparse.plots import (
    architecture_figure,
    correlation_figure,
    curves_figure,
    widths_figure,
)
from keras_structsparse.plots.curves import Curve, envelope, tau_curves
from keras_structsparse.sweeps.references import ReferenceNetwork
from keras_structsparse.sweeps.run_directory import Correlations
from keras_structsparse.sweeps.run_summary import Contents
from keras_structsparse.sweeps.settings import Trial

FIGURES = (
    *("frontier", "widths", "sizes", "kernels"),
    *("correlation", "correlation_dense", "correlation_sparse"),
)
"""The names of all figures of a report."""

Figure = Any
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes:
        name: The name of its files.
        figure: The matplotlib Figure.
        caption: What it shows.
        rows: The numbers behind it; all rows have the same columns.
    """

    name: str
    figure: Figure
    caption: str
    rows: Sequence[Row]


Series = Mapping[str, Mapping[float, float]]
"""By layer, from an alpha or an epoch to a correlation."""


def drawings(
    contents: Contents, references: Sequence[ReferenceNetwork], title: str
) -> Iterator[Drawing]:
    """Draw the figures of a run.

    Args:
        contents: Its content.
        references: Other networks to compare with.
        title: The network and the data set.

    Yields:
        The figures.

    Raises:
        ImportError: matplotlib is not installed.
    """
    yield _frontier(contents, references, title)
    yield _widths(contents, title)
    yield _sizes(contents, title)
    yield from correlation_drawings(contents.correlations)


# --- accuracy against multiply-adds ---


def _frontier(contents: Contents, references: Sequence[ReferenceNetwork], title: str) -> Drawing:
    points = [f.point for f in contents.sparse]
    dense = fmean(f.point.accuracy_finetuned for f in contents.dense)
    whole = contents.dense[0].point.multiply_adds
    places = [(each.name, each.fraction(whole), each.accuracy) for each in references]
    caption = (
        "Test accuracy of every network against its multiply-adds: for each threshold tau the "
        "medians over seeds, one place for each alpha; the envelope goes through the networks that "
        "no other beats on the validation split, at their test accuracy, so it can go down."
    )
    if references:
        sources = "; ".join(f"{each.name}: {each.source}" for each in references)
        caption += f" Stars are networks of others ({sources})."
    figure = curves_figure(points, dense, places, title)
    rows = [
        *(row for curve in tau_curves(points) for row in _rows("tau", curve)),
        *_rows("envelope", envelope(points)),
        _row("dense", "", 0.0, 1.0, dense),
        *(
            _row("reference", m.name, "", m.fraction(whole), m.accuracy, m.source)
            for m in references
        ),
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


# --- correlation of kernels ---

WHAT = "Mean absolute correlation of the kernels of each layer, in pairs"


def correlation_drawings(correlations: Mapping[Trial, Correlations]) -> Iterator[Drawing]:
    """Draw the correlation of kernels at the end of every training, and during two.

    Args:
        correlations: Those of every trial, after every epoch.

    Yields:
        A figure over alpha; and over the epochs of the dense network and of the largest alpha with
        kernels, for the first seed. None without any records.

    Raises:
        ImportError: matplotlib is not installed.
    """
    known = {trial: found for trial, found in correlations.items() if _has_values(found)}
    if not known:
        return
    caption = f"{WHAT}, at the end of training, against alpha; the mean over seeds."
    yield _correlation_drawing("correlation", _over_alpha(known), "alpha", caption, "over alpha")
    first = [trial for trial in known if trial.seed == min(trial.seed for trial in known)]
    for trial in dict.fromkeys((first[0], first[-1])):
        network = f"alpha {trial.alpha:g}" if trial.alpha else "the dense network"
        name = "correlation_sparse" if trial.alpha else "correlation_dense"
        caption = f"{WHAT}, over the training of {network} (seed {trial.seed})."
        over = {
            layer: {float(epoch): value for epoch, value in enumerate(values, 1)}
            for layer, values in known[trial].items()
        }
        yield _correlation_drawing(name, over, "epoch", caption, network)


def _has_values(found: Correlations) -> bool:
    """Whether a layer has two kernels at the end."""
    return any(value == value for values in found.values() for value in values[-1:])


def _over_alpha(known: Mapping[Trial, Correlations]) -> Series:
    """The last values, the mean over seeds where they are numbers."""
    last: dict[str, dict[float, list[float]]] = {}
    for trial, found in known.items():
        for name, values in found.items():
            own = last.setdefault(name, {}).setdefault(trial.alpha, [])
            own += [value for value in values[-1:] if value == value]
    return {
        name: {alpha: fmean(values) for alpha, values in own.items() if values}
        for name, own in last.items()
    }


def _correlation_drawing(name: str, series: Series, over: str, caption: str, what: str) -> Drawing:
    rows = [
        {"layer": layer, over: place, "correlation": value}
        for layer, own in series.items()
        for place, value in own.items()
    ]
    figure = correlation_figure(series, over, f"Correlation of kernels, {what}")
    return Drawing(name, figure, caption, rows)
