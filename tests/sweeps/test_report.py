"""The report of a run directory: what its page and its files hold."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_sweeps import SETTINGS, build
from typer.testing import CliRunner

pytest.importorskip("matplotlib")


from keras_structsparse import plots
from keras_structsparse.cli import app
from keras_structsparse.errors import OutputError
from keras_structsparse.sweeps import Run, Trial, open_run
from keras_structsparse.sweeps.points import Point
from keras_structsparse.sweeps.references import ReferenceNetwork
from keras_structsparse.sweeps.report.figures import FIGURES
from keras_structsparse.sweeps.report.report import write_report

SIZES = {"conv1": (3, 3, 1, 0, 0, 0), "conv2": (3, 2, 0, 0, 0, 0)}
NAN = float("nan")
WHOLE = {"conv1": (3,) * 6, "conv2": (3,) * 6}


def point(alpha: float, tau: float, fraction: float, validation: float, sizes: Any) -> Point:
    costs = int(24252 * fraction), fraction, 100
    return Point(alpha, tau, *costs, validation, validation, 0.5, validation - 0.01, sizes)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Untrained networks that pass for those of a sweep; the third is beaten by the second."""
    return filled(open_run(tmp_path / "run", replace(SETTINGS, seeds=(0, 1))))


def filled(found: Run) -> Run:
    """A run with networks."""
    dense = {"conv1": [0.1, 0.2], "conv2": [0.3, 0.4]}
    found.add(Trial(0.0, 0), [(point(0.0, 0.0, 1.0, 0.9, {}), build())], 1.0, dense)
    first, second = SETTINGS.alphas
    lost = {"conv1": [0.2, 0.25], "conv2": [0.5, NAN]}
    found.add(Trial(first, 0), [(point(first, 0.0, 0.8, 0.89, WHOLE), build())], 1.0, lost)
    both = point(second, 0.1, 0.25, 0.88, SIZES), point(second, 0.0, 0.4, 0.8, SIZES)
    found.add(Trial(second, 0), [(each, build()) for each in both], 1.0)
    return found


class Page(HTMLParser):
    """The texts of a page by the element they stand in, and all addresses it names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {}
        self.addresses: list[str] = []
        self._path: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._path.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if data.strip() and self._path:
            self.texts.setdefault(self._path[-1], []).append(data.strip())


def test_the_page_has_every_point_and_needs_no_network(run: Run) -> None:
    text = write_report(run).read_text()
    page = Page(text)
    cells = page.texts["td"]
    assert {"100.0%", "80.0%", "25.0%", "40.0%"} <= set(cells)
    assert text.count('<tr class="front">') == 2
    assert text.count("<details") == 2
    assert text.count("<svg") == len(FIGURES) + 2
    assert all(address.startswith("#") for address in page.addresses)
    assert not re.search(r"@import|url\((?!#)", text)


def test_the_points_are_beside_the_figures(run: Run) -> None:
    write_report(run)
    rows = list(csv.DictReader((run.folder / "points.csv").read_text().splitlines()))
    assert [float(row["alpha"]) for row in rows] == [0.0, SETTINGS.alphas[0]] + [
        SETTINGS.alphas[1]
    ] * 2
    assert float(rows[-1]["multiply_adds_fraction"]) == 0.4
    for name in FIGURES:
        assert (run.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (run.folder / f"{name}.svg").read_text()


def table(run: Run, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((run.folder / f"{name}.csv").read_text().splitlines()))


def test_what_a_figure_shows_is_beside_it(run: Run) -> None:
    write_report(run)
    frontier = [
        (row["kind"], row["name"], float(row["accuracy"])) for row in table(run, "frontier")
    ]
    assert frontier == [
        *[("tau", "0", 0.79), ("tau", "0", 0.88), ("tau", "0.1", 0.87)],
        *[("envelope", "", 0.87), ("envelope", "", 0.88), ("dense", "", 0.89)],
    ]
    widths = [(float(row["alpha"]), row["layer"], row["left"]) for row in table(run, "widths")]
    first, second = SETTINGS.alphas
    assert widths == [
        *[(first, "conv1", "6"), (first, "conv2", "6")],
        *[(second, "conv1", "3"), (second, "conv2", "2")],
    ]
    assert {row["base"] for row in table(run, "widths")} == {"6"}
    sizes = [[row[n] for n in ("tau", "layer", "size", "kernels")] for row in table(run, "sizes")]
    assert sizes == [
        *[["0.1", "conv1", "1", "1"], ["0.1", "conv1", "3", "2"]],
        *[["0.1", "conv2", "2", "1"], ["0.1", "conv2", "3", "1"]],
        *[["0.0", "conv1", "3", "6"], ["0.0", "conv2", "3", "6"]],
    ]


def test_correlations_are_drawn_over_alpha_and_over_two_trainings(run: Run) -> None:
    text = write_report(run).read_text()
    first = SETTINGS.alphas[0]
    assert rows(run, "correlation", "alpha") == [
        *[("conv1", 0.0, 0.2), ("conv1", first, 0.25), ("conv2", 0.0, 0.4)],
    ]
    assert rows(run, "correlation_dense", "epoch")[:2] == [("conv1", 1, 0.1), ("conv1", 2, 0.2)]
    sparse = rows(run, "correlation_sparse", "epoch")
    assert sparse[:3] == [("conv1", 1, 0.2), ("conv1", 2, 0.25), ("conv2", 1, 0.5)]
    assert f"over the training of alpha {first:g} (seed 0)" in text, "the second noted nothing"
    seed = {"conv1": [0.4, 0.45]}
    run.add(Trial(first, 1), [(point(first, 0.0, 0.8, 0.89, WHOLE), build())], 1.0, seed)
    write_report(run)
    layer, alpha, mean = rows(run, "correlation", "alpha")[1]
    assert (layer, alpha, round(mean, 9)) == ("conv1", first, 0.35)


def rows(run: Run, name: str, over: str) -> list[tuple[str, float, float]]:
    found = table(run, name)
    return [(row["layer"], float(row[over]), float(row["correlation"])) for row in found]


def test_records_without_correlations_are_read_and_have_no_such_figures(run: Run) -> None:
    for file in (run.folder / "trials").iterdir():
        record = json.loads(file.read_text())
        old = {name: record[name] for name in ("trial", "seconds", "points")}
        file.write_text(json.dumps(old))
    assert run.correlations() == {}
    assert write_report(run).read_text().count("<svg") == 6
    assert not (run.folder / "correlation.png").exists()


@pytest.mark.parametrize("spoiled", [[], {"conv1": 0.5}, {"conv1": ["much"]}])
def test_spoiled_correlations_are_refused(run: Run, spoiled: Any) -> None:
    file = next((run.folder / "trials").glob("alpha-0.0-*"))
    record = {**json.loads(file.read_text()), "correlations": spoiled}
    record.pop("format"), record.pop("checksum")
    file.write_text(json.dumps(record))
    where = r"expected the points of a trial. Received: .*alpha-0.0.*, correlations.*: expected"
    with pytest.raises(OutputError, match=where):
        write_report(run)


def test_networks_of_others_stand_beside_the_frontier_with_their_sources(run: Run) -> None:
    marks = [
        ReferenceNetwork("LeNet", 0.7, "a <paper>", multiply_adds=48504),
        ReferenceNetwork("small", 0.6, "a book", multiply_adds_fraction=0.1),
    ]
    plain = write_report(run).read_text()
    text = write_report(run, marks).read_text()
    assert "Stars are networks of others (LeNet: a &lt;paper&gt;; small: a book)." in text
    assert "Stars" not in plain
    rows = [row for row in table(run, "frontier") if row["kind"] == "reference"]
    found = [(r["name"], r["multiply_adds_fraction"], r["accuracy"], r["source"]) for r in rows]
    assert found == [("LeNet", "2.0", "0.7", "a <paper>"), ("small", "0.1", "0.6", "a book")]


def test_the_same_run_gives_the_same_page(run: Run) -> None:
    first = write_report(run).read_text()
    assert write_report(run).read_text() == first


def test_a_report_can_stand_elsewhere(run: Run, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    page = write_report(run, out=tmp_path / "report")
    assert page == tmp_path / "report" / "report.html"
    assert {f"{name}.png" for name in FIGURES} < {path.name for path in page.parent.iterdir()}
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before


def test_a_run_that_is_read_only_is_printed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(directory: Path, argument: str) -> None:
        raise OutputError(f"{argument}: expected a path that can be written. Received: {directory}")

    monkeypatch.setattr("keras_structsparse.cli.report.check_writable", refused)
    result = CliRunner().invoke(app, ["report", str(run.folder)])
    assert result.exit_code == 0, result.output
    assert "80.0%" in result.stdout
    last = result.stderr.splitlines()[-1]
    assert last.startswith("warning: no report is written: RUN: expected a path that can be")
    assert not (run.folder / "report.html").exists()
    elsewhere = CliRunner().invoke(app, ["report", str(run.folder), "--out", "/nowhere"])
    assert elsewhere.exit_code == 2


def test_names_are_escaped(tmp_path: Path) -> None:
    named = replace(SETTINGS, dataset="<script>alert(1)</script>")
    run = filled(open_run(tmp_path / "run", named))
    assert "<script>alert" not in write_report(run).read_text()


def test_a_run_without_points_has_no_report(tmp_path: Path) -> None:
    empty = open_run(tmp_path / "run", SETTINGS)
    with pytest.raises(OutputError, match=r"run: expected finished trials .* with 0 and 0"):
        write_report(empty)
    assert {file.name for file in empty.folder.iterdir()} == {".structsparse", "settings.json"}


def test_widths_are_those_of_the_layers() -> None:
    figure = plots.widths_figure({"a": 4, "b": 6}, {1e-2: {"a": 1}, 1e-3: {"a": 3, "b": 5}})
    drawn = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].lines}
    assert drawn == {"0.001": [3, 5], "0.01": [1, 6]}
    with pytest.raises(ValueError, match=r"widths\[0\.1\]: expected .* Received: \{'c': 1\}"):
        plots.widths_figure({"a": 4}, {0.1: {"c": 1}})
    with pytest.raises(ValueError, match=r"widths\[0\.1\]: expected .* Received: \{'a': 5\}"):
        plots.widths_figure({"a": 4}, {0.1: {"a": 5}})
    with pytest.raises(ValueError, match="at least one layer and one alpha"):
        plots.widths_figure({}, {0.1: {}})


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_the_table_sorts_in_a_browser(run: Run, tmp_path: Path) -> None:
    text = write_report(run).read_text()
    click = "document.querySelectorAll('#points th')[4].click()"
    clicked = tmp_path / "clicked.html"

    def fractions(source: str) -> list[str]:
        clicked.write_text(source)
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        shown = subprocess.run(
            ["chromium", *flags, f"--user-data-dir={tmp_path}", "--dump-dom", clicked.as_uri()],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        body = shown.partition("<tbody>")[2].partition("</tbody>")[0]
        return re.findall(r"(\d+\.\d)%", body)

    before = fractions(text)
    after = fractions(text.replace("</body>", f"<script>{click}</script></body>"))
    assert before == ["100.0", "80.0", "25.0", "40.0"]
    assert after == sorted(before, key=float)
    assert not np.array_equal(before, after)


def test_the_report_names_what_it_was_made_of(run: Run) -> None:
    page = Page(write_report(run).read_text())
    assert page.texts["h1"] == ["two convolutions on 600 digits"]
    assert (
        "epochs 5, batch_size 16, learning_rate 0.1, momentum 0.9, ramp 0.25, weight_decay 0.0"
        in page.texts["td"]
    )
