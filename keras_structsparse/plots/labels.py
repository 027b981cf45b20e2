"""Labels beside points, where they cover as little as possible.

Twelve fixed positions are tried for every label, so that a figure is the same on every machine. The
library adjustText moves labels in small steps for a second by default, so its result depends on the
speed of the machine, and it requires scipy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_structsparse.plots.style import DPI, Axes, Figure, note

SHIFTS = [
    *[(-24.0, 7.0), (0.0, 9.0), (26.0, -7.0), (0.0, -9.0), (24.0, 7.0), (-26.0, -7.0)],
    *[(-36.0, 0.0), (36.0, 0.0), (-30.0, 18.0), (30.0, -18.0), (0.0, 20.0), (0.0, -20.0)],
]
"""Positions of a label, in points from the place that it labels, best first."""


def place_labels(
    figure: Figure, axes: Axes, texts: Sequence[str], places: Sequence[tuple[float, float]]
) -> None:
    """Write a text beside each place.

    Args:
        figure: The figure, complete except for its labels.
        axes: The axes.
        texts: The texts.
        places: The places, in data units.
    """
    figure.draw_without_rendering()
    lines = [line.get_path().transformed(line.get_transform()) for line in axes.lines]
    taken = [mark for line in axes.lines if line.get_marker() != "None" for mark in _marks(line)]
    # From left to right: the best positions are on the left, where no later label will be.
    for index in sorted(range(len(texts)), key=lambda i: (places[i][0], -places[i][1])):
        choices = [note(axes, texts[index], places[index], shift) for shift in SHIFTS]
        covers = [_covered(choice.get_window_extent(), axes, taken, lines) for choice in choices]
        best = choices[covers.index(min(covers))]
        taken.append(best.get_window_extent().padded(3))
        for other in choices:
            if other is not best:
                other.remove()


def scientific(number: float) -> str:
    """A number in two digits.

    Examples:
        >>> scientific(0.0123), scientific(0)
        ('1.2e-2', '0')
    """
    mantissa, exponent = f"{number:.1e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}" if number else "0"


def _marks(line: Any) -> list[Any]:
    """The boxes of a line's markers on the canvas."""
    from matplotlib.transforms import Bbox

    half = 0.5 * (line.get_markersize() + 1) * DPI / 72
    places = line.get_transform().transform(line.get_xydata())
    return [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in places]


def _covered(box: Any, axes: Axes, taken: Sequence[Any], lines: Sequence[Any]) -> int:
    """Cost of a position: 8 outside the axes, 4 for a covered marker or label, 1 for a line."""
    frame = axes.get_window_extent()
    inside = frame.containsx(box.x0) and frame.containsx(box.x1)
    inside = inside and frame.containsy(box.y0) and frame.containsy(box.y1)
    marks = sum(box.overlaps(other) for other in taken)
    return 8 * (not inside) + 4 * marks + sum(x.intersects_bbox(box, filled=False) for x in lines)
