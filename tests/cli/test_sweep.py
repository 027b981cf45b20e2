"""The commands ``sweep`` and ``choose``, and the options that only they have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import keras
import pytest
import typer
from helpers_sweeps import SETTINGS, build, dataset
from typer.testing import CliRunner, Result

from keras_structsparse.cli import app, parsing
from keras_structsparse.sweeps import sweep

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner(env={"COLUMNS": "120"}).invoke(app, list(words))


SWEEP = ("sweep", "--model", "digits-plain", "--dataset", "digits", "--out", "run")


def assert_says(result: Result, *parts: str) -> None:
    """The command was refused, with these words."""
    assert result.exit_code == 2, result.output
    for part in parts:
        assert part in " ".join(result.output.split())


def assert_refused(result: Result, *parts: str) -> None:
    """And it wrote nothing."""
    assert_says(result, *parts)
    assert not list(Path().iterdir())


def test_a_sweep_writes_points_figures_and_a_table(run: Run) -> None:
    words = ("--alphas", "0.02", "--taus", "0,0.1", "--epochs", "1", "--batch-size", "512")
    result = run(*SWEEP, *words, "--reweight", "0.1", "--coupled")
    assert result.exit_code == 0, result.output
    record = json.loads(Path("run/settings.json").read_text())
    assert record["model"] == "digits-plain"
    assert record["form"]["reweight"] == 0.1
    assert record["form"]["coupled"] is True
    assert record["tuning"] is None
    assert "dense" in result.output
    again = run(*SWEEP, "--alphas", "0.03", "--taus", "0,0.1", "--epochs", "1")
    assert again.exit_code == 2
    assert "alphas: the run has [0.02], received [0.03]" in again.output
    assert "recipe.batch_size: the run has 512, received 64" in again.output


def test_a_search_takes_as_many_trials_as_alphas(run: Run) -> None:
    words = ("--alphas", "0.002:0.05:2", "--taus", "0", "--epochs", "1", "--batch-size", "512")
    ranges = ("--budget", "0.7", "--learning-rates", "0.05:0.2")
    result = run(*SWEEP, *words, "--search", "bayesian", *ranges)
    assert result.exit_code == 0, result.output
    record = json.loads(Path("run/settings.json").read_text())
    assert record["search"] == {
        "trials": 2,
        "budget": 0.7,
        "reweight": None,
        "learning_rate": [0.05, 0.2],
    }
    assert len(list(Path("run/trials").glob("*learning_rate*.json"))) == 2


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--alphas", "1e-3:x:2"), ("FIRST:LAST:COUNT", "Received: '1e-3:x:2'")),
        (("--alphas", "1e-3", "--taus", "low"), ("expected a number", "'low'")),
        (("--alphas", "1e-3", "--seeds", "0.5"), ("expected a whole number", "'0.5'")),
        (("--alphas", "1e-3", "--strategy", "tpu"), ("mirrored", "'tpu'")),
        (("--alphas", "1e-3", "--search", "random"), ("bayesian", "'random'")),
        (("--alphas", "1e-3", "--search", "bayesian"), ("at least two", "(0.001,)")),
        (("--alphas", "1e-3,2e-3", "--reweights", "0.3:0.1"), ("LEAST:LARGEST", "'0.3:0.1'")),
        (
            ("--alphas", "1e-3,2e-3", "--learning-rates", "0.1:0.3"),
            ("--search bayesian with --learning-rates", "--search grid"),
        ),
        (("--alphas", "1e-3", "--epochs", "0"), ("epochs: expected", "0")),
        (("--alphas", "1e-3", "--realize", "one"), ("auto", "split", "one")),
        (("--alphas", "1e-3", "--regularizer", "none"), ("form: expected one with a penalty",)),
    ],
)
def test_bad_options_are_refused(run: Run, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    assert_refused(run(*SWEEP, *words), *parts)


def test_choose_writes_a_network_with_its_card(run: Run) -> None:
    sweep(build, dataset(), SETTINGS, "run")
    entry = {"name": "VGG", "accuracy": 0.9, "source": "its paper", "multiply_adds": 5}
    Path("marks.json").write_text(json.dumps([entry]))
    assert run("report", "run", "--marks", "marks.json").exit_code == 0
    assert "VGG: its paper" in Path("run/report.html").read_text()
    result = run("choose", "run", "--max-drop", "100", "--out", "chosen")
    assert result.exit_code == 0, result.output
    assert "of the multiply-adds, validation accuracy" in result.output
    keras.models.load_model("chosen/model.keras")
    assert Path("chosen/card.md").read_text().startswith("# Pruned network")
    for words, parts in {
        ("--max-multiply-adds", "1"): ("max_multiply_adds: expected at least", "Received: 1"),
        ("--max-latency", "1e-9ms"): ("max_latency: expected at least", "Received: 1e-09 ms"),
        ("--max-latency", "2 weeks"): ("expected a number. Received: '2 weeks'",),
        ("--max-drop", "1", "--max-latency", "1"): (
            "expected one of --max-drop",
            "Received: --max-drop and --max-latency",
        ),
        (): ("Received: none",),
    }.items():
        assert_says(run("choose", "run", *words, "--out", "other"), *parts)
    assert not Path("other").exists()


def test_report_refuses_bad_marks_before_anything_else(run: Run, tmp_path: Path) -> None:
    marks = tmp_path.parent / f"{tmp_path.name}.json"
    entry = {"name": "VGG", "accuracy": 93.5, "source": "its paper", "multiply_adds": 5}
    marks.write_text(json.dumps([entry]))
    result = run("report", "nowhere", "--marks", str(marks))
    assert_refused(result, "entry 1, accuracy: expected a number from 0 to 1. Received: 93.5")
    marks.write_text(json.dumps([{**entry, "accuracy": 0.935}]))
    assert_refused(run("report", "nowhere", "--marks", str(marks)), "expected a directory of a")


def test_choose_needs_a_run(run: Run) -> None:
    assert_refused(run("choose", "nowhere", "--max-drop", "1", "--out", "x"), "nowhere")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1e-3", (1e-3,)),
        ("1e-3,5e-3", (1e-3, 5e-3)),
        ("1e-5:1e-2:4", (1e-5, 1e-4, 1e-3, 1e-2)),
        ("2:2:1", (2.0,)),
    ],
)
def test_alphas_are_lists_or_ranges(text: str, values: tuple[float, ...]) -> None:
    assert parsing.alphas(text) == pytest.approx(values)


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "nan", "1:2", "0:1:3", "1:0:3", "1:2:0", "1:2:x", "1,1", "inf", "1:1:2"]
)
def test_alphas_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected"):
        parsing.alphas(text)
