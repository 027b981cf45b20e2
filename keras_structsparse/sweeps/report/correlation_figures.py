"""How alike the kernels of every layer were, over alpha and over a training, as figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean

from keras_structsparse.plots import correlation_figure
from keras_structsparse.sweeps import Trial
from keras_structsparse.sweeps.report.drawing import Drawing
from keras_structsparse.sweeps.run_directory import Correlations

Series = Mapping[str, Mapping[float, float]]
"""By layer, from an alpha or an epoch to a correlation."""

WHAT = "Mean absolute correlation of the kernels of each layer, in pairs"


def correlation_drawings(correlations: Mapping[Trial, Correlations]) -> Iterator[Drawing]:
    """Draw how alike the kernels were at the end of every training, and in the course of two.

    Args:
        correlations: What the trials noted after every epoch.

    Yields:
        A figure over alpha; and over the epochs of the dense network and of the largest alpha with
        kernels left, for the first seed. None where nothing was noted.

    Raises:
        ImportError: matplotlib is not installed.
    """
    known = {trial: found for trial, found in correlations.items() if _has_values(found)}
    if not known:
        return
    caption = f"{WHAT}, at the end of training, against alpha; the mean over seeds."
    yield _drawing("correlation", _over_alpha(known), "alpha", caption, "over alpha")
    first = [trial for trial in known if trial.seed == min(trial.seed for trial in known)]
    for trial in dict.fromkeys((first[0], first[-1])):
        network = f"alpha {trial.alpha:g}" if trial.alpha else "the dense network"
        name = "correlation_sparse" if trial.alpha else "correlation_dense"
        caption = f"{WHAT}, over the training of {network} (seed {trial.seed})."
        over = {
            layer: {float(epoch): value for epoch, value in enumerate(values, 1)}
            for layer, values in known[trial].items()
        }
        yield _drawing(name, over, "epoch", caption, network)


def _has_values(found: Correlations) -> bool:
    """Whether two kernels of a layer are left at the end."""
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


def _drawing(name: str, series: Series, over: str, caption: str, what: str) -> Drawing:
    rows = [
        {"layer": layer, over: place, "correlation": value}
        for layer, own in series.items()
        for place, value in own.items()
    ]
    figure = correlation_figure(series, over, f"Correlation of kernels, {what}")
    return Drawing(name, figure, caption, rows)
