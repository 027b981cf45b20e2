"""A network before and after surgery, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from keras_structsparse.plots.style import (
    BLUE,
    DARK,
    STYLE,
    Axes,
    Figure,
    matplotlib_or_explain,
    new_figure,
)
from keras_structsparse.profiling.profile import Comparison, LayerComparison

UNITS = ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands"), (1.0, ""))
BEFORE = "#cfd8dc"


def comparison_figure(comparison: Comparison, title: str | None = None) -> Figure:
    """The multiply-adds (eq. 10) of every layer before and after, with its kernels and their size.

    Args:
        comparison: What :func:`keras_structsparse.compare` gives; layers without multiply-adds
            are left out.
        title: The title; the totals unless given.

    Returns:
        A matplotlib Figure: a pair of bars for each layer, the first layer on top.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: No layer has multiply-adds.

    Examples:
        >>> import keras
        >>> import keras_structsparse as kss
        >>> inputs = keras.Input((8, 8, 1))
        >>> x = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, name="conv")(inputs))
        >>> model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
        >>> pruned = kss.prune(model, kss.Plan({"conv": (3, 0, 3, 0)}))
        >>> axes = comparison_figure(kss.compare(model, pruned)).axes[0]
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['conv', 'head']
    """
    layers = [layer for layer in comparison.layers if any(layer.multiply_adds)]
    if not layers:
        raise ValueError("comparison: expected a layer with multiply-adds. Received none.")
    with matplotlib_or_explain().rc_context(STYLE):
        figure = new_figure(7.6, 1.6 + 0.34 * len(layers))
        axes = figure.add_subplot()
        unit, name = _unit(max(max(layer.multiply_adds) for layer in layers))
        _draw(axes, layers, unit)
        axes.set_xlabel(f"multiply-adds ({name})" if name else "multiply-adds")
        axes.set_title(_totals(comparison) if title is None else title)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _unit(largest: int) -> tuple[float, str]:
    return next(entry for entry in UNITS if largest >= entry[0])


def _draw(axes: Axes, layers: Sequence[LayerComparison], unit: float) -> None:
    places = range(len(layers))
    before, after = ([layer.multiply_adds[side] / unit for layer in layers] for side in (0, 1))
    axes.barh(places, before, height=0.78, color=BEFORE, label="before", zorder=2)
    axes.barh(places, after, height=0.5, color=BLUE, label="after", zorder=3)
    widest = max(*before, *after)
    for place, layer, ends in zip(places, layers, zip(before, after, strict=True), strict=True):
        style = {"fontsize": 7.5, "color": DARK, "va": "center"}
        axes.text(max(ends) + 0.01 * widest, place, _kernels(layer), **style)
    axes.set_yticks(places, [layer.name for layer in layers])
    axes.set_xlim(0, 1.22 * widest)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)


def _kernels(layer: LayerComparison) -> str:
    """Such as "16 of 5×5 → 9 of 3×3"; once if nothing has changed."""
    sides = [
        f"{count} of {'×'.join(map(str, size))}" if size else str(count) if count else "none"
        for count, size in zip(layer.kernels, layer.size, strict=True)
    ]
    changed = any(left != right for left, right in pairwise(sides))
    text = " → ".join(sides) if changed else sides[0]
    return f"{text}, split" if layer.parts else text


def _totals(comparison: Comparison) -> str:
    before, after = comparison.multiply_adds
    share = f" ({after / before:.1%})" if before else ""
    return f"Multiply-adds: {before:,} → {after:,}{share}"
