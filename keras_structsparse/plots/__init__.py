"""Figures: the efficient frontier, learned architectures, networks before and after, one kernel."""

from keras_structsparse.plots.architecture import architecture_figure
from keras_structsparse.plots.comparison import comparison_figure
from keras_structsparse.plots.correlation import correlation_figure
from keras_structsparse.plots.curves import curves_figure
from keras_structsparse.plots.frontier import frontier_figure
from keras_structsparse.plots.kernels import groups_figure, path_figure, shrinking_figure
from keras_structsparse.plots.strips import strips_figure
from keras_structsparse.plots.style import save, svg
from keras_structsparse.plots.widths import widths_figure

__all__ = [
    "architecture_figure",
    "comparison_figure",
    "correlation_figure",
    "curves_figure",
    "frontier_figure",
    "groups_figure",
    "path_figure",
    "save",
    "shrinking_figure",
    "strips_figure",
    "svg",
    "widths_figure",
]
