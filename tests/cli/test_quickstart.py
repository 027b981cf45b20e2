"""The quickstart with tiny settings; the full one is the README's first command."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import pytest
from rich.console import Console

from keras_structsparse.cli import quickstart
from keras_structsparse.errors import OutputError
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.sweeps import quickstart as small_sweep
from keras_structsparse.sweeps.run_directory import read_run

FILES = {
    "architecture.png",
    "frontier.png",
    "plan.json",
    "points.json",
    "pruned.keras",
    "run",
    "saved_model",
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    short = {
        name: replace(getattr(small_sweep.SETTINGS, name), epochs=1)
        for name in ("recipe", "path", "tuning")
    }
    settings = replace(small_sweep.SETTINGS, alphas=(8e-3,), **short)
    monkeypatch.setattr(small_sweep, "SETTINGS", settings)
    monkeypatch.setattr(small_sweep, "REPEATS", {1: 3, 128: 3})


def run(out: Path, seed: int = 0) -> tuple[dict[str, Any], str]:
    """What the quickstart wrote to points.json and to the console."""
    text = io.StringIO()
    quickstart.run(out, seed, Console(file=text, width=120))
    return json.loads((out / "points.json").read_text()), text.getvalue()


@pytest.mark.usefixtures("small")
def test_writes_everything_it_promises(tmp_path: Path) -> None:
    record, text = run(tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} - {".structsparse"} == FILES
    assert [point["alpha"] for point in record["points"]] == [8e-3]
    assert record["measured"]["float64_difference"] <= 1e-10
    assert record["measured"]["float64_control"] > 1e-7
    assert max(record["measured"]["reloaded_difference"].values()) < 1e-5
    plan = Plan.from_json((tmp_path / "out" / "plan.json").read_text())
    chosen = record["points"][record["chosen"]]
    assert {name: list(sizes) for name, sizes in plan.sizes.items()} == chosen["sizes"]
    pruned = keras.models.load_model(tmp_path / "out" / "pruned.keras")
    assert pruned.count_params() == chosen["params"]
    assert "fine-tuning, alpha 0.008" in text
    assert all(heading in text for heading in ("of dense", "100.0%", "pruned / dense"))
    assert "pruned against masked in float64: equal" in text


@pytest.mark.usefixtures("small")
def test_it_is_a_sweep_with_its_run_directory_and_report(tmp_path: Path) -> None:
    out = tmp_path / "out"
    record, _ = run(out)
    found = read_run(out / "run")
    dense, sparse = found.dense_and_sparse()
    assert [asdict(f.point) for f in sparse] == [
        {**point, "sizes": {n: tuple(sizes) for n, sizes in point["sizes"].items()}}
        for point in record["points"]
    ]
    assert dense[0].point.accuracy_finetuned == record["dense"]["accuracy"]
    assert (out / "run" / "report.html").is_file()
    (out / "run" / "report.html").write_text("of an earlier call")
    again, _ = run(out, seed=1)
    assert again["settings"]["seeds"] == [1], "an earlier run is replaced, whatever its settings"
    assert (out / "run" / "report.html").read_text() != "of an earlier call"


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_same_seed_gives_the_same_points(tmp_path: Path) -> None:
    records = [run(tmp_path / name, seed)[0] for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    same, again, other = ({**record, "measured": None} for record in records)
    assert same == again
    assert same["points"] != other["points"]


@pytest.mark.usefixtures("small")
def test_refuses_a_directory_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"--out: expected .* which holds 'thesis.tex'"):
        quickstart.run(tmp_path, 0, Console())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
