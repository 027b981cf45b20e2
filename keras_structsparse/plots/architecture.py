"""The learned architecture against the base one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras_structsparse.plots.style import (
    GREY,
    STYLE,
    Axes,
    Figure,
    matplotlib_or_explain,
    new_figure,
    note,
)


def architecture_figure(
    base: Mapping[str, tuple[int, int]],
    sizes: Mapping[str, Sequence[int]],
    title: str = "Learned architecture",
) -> Figure:
    """Width and kernel sizes of every layer against the base architecture.

    Args:
        base: (width, size) of each layer before, in order: how many kernels and how large.
        sizes: The learned size of each kernel of a layer, 0 for one that is removed, as in
            ``plan.sizes``. Layers that are not named stay as they are.
        title: The title.

    Returns:
        A matplotlib Figure: a dashed outline as high as the base width, filled from below with
        the kernels that are left, largest first.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: ``base`` is empty, or ``sizes`` does not fit it.

    Examples:
        >>> figure = architecture_figure({"conv": (4, 5)}, {"conv": (5, 3, 0, 3)})
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['conv']
    """
    learned = _learned(base, sizes)
    with matplotlib_or_explain().rc_context(STYLE):
        figure = new_figure(max(4.8, 1.6 + 0.5 * len(base)), 4.4)
        axes = figure.add_subplot()
        _draw_base(axes, base)
        _draw_learned(axes, list(learned.values()))
        _label_layers(axes, base, learned)
        axes.set_title(title)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), alignment="left")
    return figure


def _learned(
    base: Mapping[str, tuple[int, int]], sizes: Mapping[str, Sequence[int]]
) -> dict[str, Sequence[int]]:
    if not base:
        raise ValueError("base: expected at least one layer. Received none.")
    if unknown := sorted(set(sizes) - set(base)):
        raise ValueError(f"sizes: expected layers of base: {list(base)}. Received: {unknown}")
    learned = {name: sizes.get(name, [size] * width) for name, (width, size) in base.items()}
    for name, (width, size) in base.items():
        if len(learned[name]) != width or not all(0 <= s <= size for s in learned[name]):
            raise ValueError(
                f"sizes['{name}']: expected {width} sizes from 0 to {size}. "
                f"Received: {list(learned[name])}"
            )
    return learned


def _draw_base(axes: Axes, base: Mapping[str, tuple[int, int]]) -> None:
    widths = [width for width, _ in base.values()]
    label = "base architecture:\nkernels left / width,\nlargest size"
    style = {"fill": False, "edgecolor": GREY, "linestyle": (0, (3, 2)), "linewidth": 1.0}
    axes.bar(range(len(base)), widths, width=0.72, label=label, zorder=3, **style)


def _draw_learned(axes: Axes, learned: Sequence[Sequence[int]]) -> None:
    """One layer of the stack for each size, the largest at the bottom."""
    present = sorted({size for sizes in learned for size in sizes if size}, reverse=True)
    floor = [0] * len(learned)
    for colour, size in zip(_colours(len(present)), present, strict=True):
        counts = [list(sizes).count(size) for sizes in learned]
        style = {"color": colour, "edgecolor": "white", "linewidth": 0.6, "zorder": 2}
        axes.bar(
            range(len(learned)), counts, bottom=floor, width=0.72, label=_square(size), **style
        )
        floor = [below + count for below, count in zip(floor, counts, strict=True)]


def _colours(count: int) -> list[Any]:
    """Dark to light, for large to small; their order is seen with any colour vision."""
    palette = matplotlib_or_explain().colormaps["viridis"]
    return [palette(0.12 + 0.78 * index / max(count - 1, 1)) for index in range(count)]


def _label_layers(
    axes: Axes, base: Mapping[str, tuple[int, int]], learned: Mapping[str, Sequence[int]]
) -> None:
    tallest = max(width for width, _ in base.values())
    for index, (name, (width, size)) in enumerate(base.items()):
        left = sum(kernel > 0 for kernel in learned[name])
        note(axes, f"{left}/{width}\n≤ {_square(size)}", (index, width), (0, 3))
        if not left:
            note(axes, "removed", (index, 0.5 * width), (0, 0)).set_rotation(90)
    angle = 0 if max(map(len, base)) < 5 else 45
    style = {"ha": "right", "rotation_mode": "anchor"} if angle else {}
    axes.set_xticks(range(len(base)), list(base), rotation=angle, **style)
    axes.tick_params(axis="x", length=0)
    axes.grid(False, axis="x")
    axes.set_xlim(-0.6, len(base) - 0.4)
    axes.set_ylim(0, 1.16 * tallest)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("kernels")


def _square(size: int) -> str:
    return f"{size}×{size}"
