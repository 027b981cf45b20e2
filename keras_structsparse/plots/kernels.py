"""The effect of the penalties on one kernel: its groups, and how they shrink."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from keras import ops

from keras_structsparse._typing import Array
from keras_structsparse.graph.nested_groups import GROUPS, ring_index, sizes
from keras_structsparse.plots.style import (
    BLACK,
    STYLE,
    Axes,
    Figure,
    matplotlib_or_explain,
    new_figure,
)


class Shrinks(Protocol):
    """A regularizer, as these figures need it."""

    @property
    def groups(self) -> str:
        """The kind of groups."""

    def prox(self, kernel: Array, step: float) -> Array:
        """The kernel after a proximal step."""

    def group_norms(self, kernel: Array) -> Array:
        """The norms (groups, kernels)."""


def groups_figure(size: int = 5, kinds: Sequence[str] = GROUPS) -> Figure:
    """The groups of a square kernel: each entry with the number of the first group that holds it.

    Group n is everything with a number up to n, so that each holds the one before.

    Args:
        size: Side of the kernel.
        kinds: Kinds of groups, one panel each.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: A kind is unknown, or there is none.

    Examples:
        >>> figure = groups_figure(3, ["ring"])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['1', '1', '1', '1', '2', '1', '1', '1', '1']
    """
    if not kinds:
        raise ValueError("kinds: expected at least one kind of groups. Received none.")
    with matplotlib_or_explain().rc_context(STYLE):
        figure = new_figure(2.5 * len(kinds), 2.8)
        for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
            numbers = ring_index((size, size), kind).reshape(size, size) + 1
            count = numbers.max()
            title = f"{kind}, {count} group{'s' if count > 1 else ''}"
            _image(axes, numbers, title, 0.5, count + 1.5)
            for (row, column), number in np.ndenumerate(numbers):
                axes.text(column, row, number, ha="center", va="center", color=BLACK)
    return figure


def shrinking_figure(
    kernel: Array, regularizer: Shrinks, steps: Sequence[float], title: str | None = None
) -> Figure:
    """One kernel after proximal steps of different lengths.

    Args:
        kernel: A kernel (height, width, inputs, 1).
        regularizer: The regularizer.
        steps: Lengths of the steps, one panel each.
        title: The title; none unless given.

    Returns:
        A matplotlib Figure; shades are the norms over the input channels.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: ``kernel`` holds more than one kernel, or there are no steps.

    Examples:
        >>> from keras_structsparse.regularizers import KernelSize
        >>> figure = shrinking_figure(np.ones((3, 3, 1, 1)), KernelSize(1.0), (0.0, 9.0))
        >>> [axes.get_title("left") for axes in figure.axes]
        ['step 0, size 3', 'step 9, size 0']
    """
    shrunk = _shrunk(kernel, regularizer, steps)
    highest = max(float(np.abs(each).max()) for each in shrunk)
    with matplotlib_or_explain().rc_context(STYLE | {"axes.titleweight": "normal"}):
        figure = new_figure(max(1.7 * len(shrunk), 4.0), 2.3)
        rows = figure.subplots(1, len(shrunk), squeeze=False)
        for axes, step, each in zip(rows[0], steps, shrunk, strict=True):
            shades = np.sqrt((each**2).sum(axis=(-2, -1)))
            count = int((_norms(regularizer, each) > 0).sum())
            size = (0, *sizes(each.shape[:2], regularizer.groups))[count]
            _image(axes, shades, f"step {step:g}, size {size}", 0.0, 1.15 * highest)
            for row, column in np.argwhere(shades == 0):
                axes.text(column, row, "0", ha="center", va="center", color=BLACK, fontsize=8)
        if title is not None:
            figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def path_figure(
    kernel: Array, regularizer: Shrinks, steps: Sequence[float], title: str | None = None
) -> Figure:
    """The norm of every group of one kernel against the length of the proximal step.

    Args:
        kernel: A kernel (height, width, inputs, 1).
        regularizer: The regularizer.
        steps: Lengths of the steps.
        title: The title; none unless given.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: ``kernel`` holds more than one kernel, or there are no steps.

    Examples:
        >>> from keras_structsparse.regularizers import KernelSize
        >>> figure = path_figure(np.ones((3, 3, 1, 1)), KernelSize(1.0), (0.0, 9.0))
        >>> figure.axes[0].lines[-1].get_ydata().tolist()
        [3.0, 0.0]
    """
    norms = np.array([_norms(regularizer, e) for e in _shrunk(kernel, regularizer, steps)])
    with matplotlib_or_explain().rc_context(STYLE):
        figure = new_figure(6.0, 3.4)
        axes = figure.add_subplot()
        palette = matplotlib_or_explain().colormaps["viridis"]
        for index, line in enumerate(norms.T):
            colour = palette(0.9 * index / max(norms.shape[1] - 1, 1))
            axes.plot(steps, line, color=colour, label=f"$G_{index + 1}$")
        axes.set(xlabel="length of the proximal step", ylabel="norm of the group")
        axes.set_ylim(bottom=0)
        axes.legend(title="group")
        if title is not None:
            axes.set_title(title)
    return figure


def _shrunk(kernel: Array, regularizer: Shrinks, steps: Sequence[float]) -> list[Array]:
    kernel = np.asarray(kernel)
    if kernel.ndim != 4 or kernel.shape[-1] != 1 or not len(steps):
        raise ValueError(
            "kernel, steps: expected one kernel (height, width, inputs, 1) and at least one step. "
            f"Received: shape {kernel.shape} and {len(steps)} steps"
        )
    return [ops.convert_to_numpy(regularizer.prox(kernel, float(step))) for step in steps]


def _norms(regularizer: Shrinks, kernel: Array) -> Array:
    return ops.convert_to_numpy(regularizer.group_norms(kernel))[:, 0]


def _image(axes: Axes, values: Array, title: str, low: float, high: float) -> None:
    axes.imshow(values, cmap="Blues", vmin=low, vmax=high)
    axes.set_title(title, fontsize=10)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
