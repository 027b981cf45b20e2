"""Figures: what they show, in the numbers behind the artists."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.text
import pytest

pytest.importorskip("matplotlib")

from keras_structsparse import plots
from keras_structsparse.errors import OutputError
from keras_structsparse.profiling.profile import Comparison, LayerComparison


@dataclass(frozen=True)
class Trained:
    alpha: float
    multiply_adds_fraction: float
    accuracy_at_surgery: float
    accuracy_finetuned: float | None


SWEEP = [
    Trained(1e-2, 0.06, 0.10, 0.8654),
    Trained(1e-4, 0.63, 0.9086, 0.9112),
    Trained(1.2e-3, 0.21, 0.881, 0.9003),
    Trained(3e-3, 0.25, 0.38, 0.8871),  # dominated
]
BASE = {"conv": (4, 5), "branch": (2, 3), "head": (3, 1)}
SIZES = {"conv": (5, 3, 0, 3), "branch": (0, 0)}


def line(figure: Any, label: str) -> Any:
    (found,) = (x for x in figure.axes[0].lines if x.get_label() == label)
    return found


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


# --- the frontier ---


def test_the_frontier_shows_both_accuracies_in_percent() -> None:
    figure = plots.frontier_figure(SWEEP, dense=0.9164, chosen=2, title="mine")
    assert list(line(figure, "fine-tuned").get_xdata()) == [6, 63, 21, 25]
    assert list(line(figure, "fine-tuned").get_ydata()) == pytest.approx(
        [86.54, 91.12, 90.03, 88.71]
    )
    assert list(line(figure, "at surgery").get_ydata()) == pytest.approx([90.86, 88.1])
    assert list(line(figure, "dense network").get_xydata()[0]) == pytest.approx([100, 91.64])
    assert list(line(figure, "chosen").get_xydata()[0]) == pytest.approx([21, 90.03])
    assert figure.axes[0].get_title(loc="left") == "mine"


def test_what_collapsed_at_surgery_stands_at_the_edge_with_its_accuracy() -> None:
    figure = plots.frontier_figure(SWEEP, dense=0.9164)
    assert {"10", "38"} <= set(texts(figure))
    assert figure.axes[0].get_ylim()[0] > 80


def test_the_envelope_steps_through_the_undominated_points() -> None:
    figure = plots.frontier_figure(SWEEP, dense=0.9164)
    corners = line(figure, "efficient frontier").get_xydata()[1:]
    right = figure.axes[0].get_xlim()[1]
    assert corners[:, 0].tolist() == pytest.approx([6, 21, 21, 63, 63, right])
    assert corners[:, 1].tolist() == pytest.approx([86.54, 86.54, 90.03, 90.03, 91.12, 91.12])


def test_every_point_has_its_alpha_once() -> None:
    figure = plots.frontier_figure([*SWEEP, Trained(0.0, 1.0, 0.91, 0.91)], dense=0.9164)
    labels = sorted(text for text in texts(figure) if text.startswith("α"))
    assert labels == ["α = 0", "α = 1.2e-3", "α = 1e-2", "α = 1e-4", "α = 3e-3"]


def many(count: int) -> list[Trained]:
    return [
        Trained(1e-5 * 1.7**i, 0.95 * 0.8**i, 0.9 - 0.004 * i**1.5, 0.915 - 0.0015 * i**1.5)
        for i in range(count)
    ]


@pytest.mark.parametrize("points", [SWEEP, many(10)])
def test_no_label_covers_another_or_a_mark(points: Sequence[Trained]) -> None:
    figure = plots.frontier_figure(points, dense=0.9164, chosen=1)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    marks = [mark for line in figure.axes[0].lines for mark in marks_of(line)]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
        assert not any(box.contains(x, y) for x, y in marks)


def marks_of(line: Any) -> Any:
    drawn = line.get_marker() not in ("None", None, "")
    return line.get_transform().transform(line.get_xydata()) if drawn else []


def test_without_fine_tuning_the_frontier_is_that_at_surgery() -> None:
    figure = plots.frontier_figure([Trained(1e-3, 0.4, 0.88, None)], dense=0.9)
    assert list(line(figure, "at surgery").get_ydata()) == [88]
    assert not [x for x in figure.axes[0].lines if x.get_label() == "fine-tuned"]


@pytest.mark.parametrize("chosen", [-1, 4])
def test_a_chosen_point_must_be_there(chosen: int) -> None:
    with pytest.raises(ValueError, match="chosen: expected an index below 4"):
        plots.frontier_figure(SWEEP, 0.9, chosen)


def test_a_frontier_needs_points() -> None:
    with pytest.raises(ValueError, match="points: expected at least one"):
        plots.frontier_figure([], 0.9)


# --- the architecture ---


def bars(figure: Any) -> dict[str, list[tuple[float, float]]]:
    return {
        group.get_label(): [(bar.get_y(), bar.get_height()) for bar in group]
        for group in figure.axes[0].containers
    }


def test_the_architecture_stacks_the_kernels_of_each_size() -> None:
    drawn = bars(plots.architecture_figure(BASE, SIZES))
    assert list(drawn)[1:] == ["5×5", "3×3", "1×1"]
    assert drawn["5×5"] == [(0, 1), (0, 0), (0, 0)]
    assert drawn["3×3"] == [(1, 2), (0, 0), (0, 0)]
    assert drawn["1×1"] == [(3, 0), (0, 0), (0, 3)]  # the head is not named: as it was
    assert [height for _, height in next(iter(drawn.values()))] == [4, 2, 3]


def test_the_architecture_says_what_is_left_and_what_is_gone() -> None:
    figure = plots.architecture_figure(BASE, SIZES)
    assert texts(figure) == ["3/4\n≤ 5×5", "0/2\n≤ 3×3", "removed", "3/3\n≤ 1×1"]
    assert [x.get_text() for x in figure.axes[0].get_xticklabels()] == list(BASE)


def test_twenty_layers_have_room_for_their_labels() -> None:
    base = {f"stage_{i}_block_{i}_conv": (64, 3) for i in range(20)}
    figure = plots.architecture_figure(base, {name: [3, 2, 1, 0] * 16 for name in base})
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"cnv": (1,)}, r"sizes: expected layers of base.*\['cnv'\]"),
        ({"conv": (1, 2)}, r"sizes\['conv'\]: expected 4 sizes from 0 to 5"),
        ({"branch": (1, 4)}, r"sizes\['branch'\]: expected 2 sizes from 0 to 3"),
        ({"branch": (1, -1)}, r"sizes\['branch'\]: expected 2 sizes from 0 to 3"),
    ],
)
def test_sizes_must_fit_the_base(sizes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plots.architecture_figure(BASE, sizes)


def test_an_architecture_needs_layers() -> None:
    with pytest.raises(ValueError, match="base: expected at least one"):
        plots.architecture_figure({}, {})


# --- files ---


def test_a_figure_is_written_and_is_the_same_each_time(tmp_path: Path) -> None:
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        first, again = (
            plots.save(plots.architecture_figure(BASE, SIZES), tmp_path / f"{n}{suffix}")
            for n in range(2)
        )
        assert first.read_bytes().startswith(start)
        assert first.read_bytes() == again.read_bytes()
    other = plots.save(plots.architecture_figure(BASE, {}), tmp_path / "other.png")
    assert other.read_bytes() != (tmp_path / "0.png").read_bytes()


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\.png or \.svg"):
        plots.save(plots.architecture_figure(BASE, SIZES), tmp_path / "a.jpg")


def test_pyplot_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    plots.architecture_figure(BASE, SIZES)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"keras-structsparse\[plots\]"):
        plots.architecture_figure(BASE, SIZES)


# --- before and after ---


def compared() -> Comparison:
    return Comparison(
        (
            LayerComparison("conv", "Conv2D", (16, 9), ((5, 5), (3, 3)), (4000, 900), (10, 5)),
            LayerComparison("norm", "BatchNormalization", (0, 0), ((), ()), (0, 0), (4, 2)),
            LayerComparison("gone", "Conv2D", (8, 0), ((3, 3), ()), (2000, 0), (10, 0)),
            LayerComparison("head", "Dense", (10, 10), ((), ()), (160, 90), (10, 5)),
        )
    )


def test_a_comparison_shows_every_layer_that_costs_something() -> None:
    figure = plots.comparison_figure(compared())
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv", "gone", "head"]
    before, after = axes.containers
    assert [bar.get_width() for bar in before] == [4.0, 2.0, 0.16]
    assert [bar.get_width() for bar in after] == [0.9, 0.0, 0.09]
    assert axes.get_xlabel() == "multiply-adds (thousands)"
    assert axes.get_title("left") == "Multiply-adds: 6,160 → 990 (16.1%)"
    assert texts(figure) == ["16 of 5×5 → 9 of 3×3", "8 of 3×3 → none", "10"]


def test_a_comparison_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a layer with multiply-adds"):
        plots.comparison_figure(Comparison(compared().layers[1:2]))


# --- names of users ---

NAMES = ("$x_1$", "a$b", "a|b<i>", "[bold]x[/bold]", "line\nbreak", "100 %", "^{x}", "\\alpha")


@pytest.mark.parametrize("name", NAMES)
def test_names_are_drawn_as_they_are(name: str, tmp_path: Path) -> None:
    figures = [
        plots.widths_figure({name: 4}, {0.1: {name: 2}}, title=name),
        plots.correlation_figure({name: {0.0: 0.5, 0.1: 0.2}}, "alpha", title=name),
        plots.architecture_figure({name: (4, 3)}, {name: (3, 0, 1, 0)}, title=name),
    ]
    for number, figure in enumerate(figures):
        plots.save(figure, tmp_path / f"{number}.svg")
        plots.save(figure, tmp_path / f"{number}.png")
        texts = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
        assert any(name in text.get_text() for text in texts)
        assert not any(text.get_parse_math() for text in texts if name in text.get_text())


def test_a_logarithmic_axis_has_plain_numbers() -> None:
    figure = plots.correlation_figure({"conv": {0.0: 0.5, 1e-3: 0.2, 1e-1: 0.1}}, "alpha")
    figure.canvas.draw()
    assert "0.001" in [label.get_text() for label in figure.axes[0].get_xticklabels()]
