"""Figures: the efficient frontier, and the learned architecture against the base one."""

from keras_structsparse.plots.architecture import architecture_figure
from keras_structsparse.plots.frontier import frontier_figure
from keras_structsparse.plots.style import save

__all__ = ["architecture_figure", "frontier_figure", "save"]
