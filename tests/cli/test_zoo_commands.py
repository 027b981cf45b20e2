"""The zoo on the command line: its tables, and bases as texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from keras_structsparse import models as zoo
from keras_structsparse.cli import app


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "150"}).invoke(app, words)
    return result.exit_code, result.stdout, result.stderr


def row(table: str, name: str) -> list[str]:
    line = next(line for line in table.splitlines() if f" {name} " in line)
    return [cell.strip() for cell in line.split("│")[1:-1]]


def test_the_bases_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    bases = {name: zoo.BASES[name] for name in ("digits-plain", "cifar10-resnet20")}
    monkeypatch.setattr(zoo, "BASES", bases)
    code, out, _ = run("models")
    assert code == 0
    assert row(out, "digits-plain")[1:6] == ["8", "16", "5", "39,418", "1,254,560"]
    expected = ["20", "16, 32, 64", "1, 3", "274,042", "40,813,184"]
    assert row(out, "cifar10-resnet20")[1:6] == expected
    assert "vgg16" not in out


def test_the_references_are_listed_with_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "cifar10-resnet20"
    monkeypatch.setattr(zoo, "REFERENCES", {name: zoo.REFERENCES[name]})
    code, out, _ = run("models", "--references")
    assert code == 0
    assert row(out, name)[-1] == "CIFAR-10 8.75 %"
    assert "cifar10-resnet20: He et al. 2016" in out
    assert "digits-plain" not in out


@pytest.mark.slow
def test_the_table_of_references_has_the_open_entries() -> None:
    code, out, _ = run("models", "--references")
    assert code == 0
    assert row(out, "alexnet")[5] == "724,406,816"
    assert row(out, "resnet152")[4] == "60,419,944"
    for name in ("alexnet", "vgg16"):
        published = zoo.REFERENCES[name].published
        assert published is not None
        assert published.source in out.replace("\n", "")


def test_a_text_is_a_model(tmp_path: Path) -> None:
    code, out, _ = run("profile", "(4,5)x3 plain", "--input-shape", "8,8,1")
    assert code == 0
    assert "conv3" in out
    code, _, err = run("profile", "(4,5)x3 palin")
    assert (code, err.count("\n")) == (2, 1)
    assert "expected a word of plain" in err


def test_a_text_is_trained_and_pruned(tmp_path: Path) -> None:
    trained, pruned = str(tmp_path / "trained.keras"), str(tmp_path / "pruned.keras")
    words = ("--dataset", "digits", "--data-dir", str(tmp_path), "--epochs", "1")
    code, out, err = run("train", "--model", "(6,5)x3", *words, "--out", trained)
    assert code == 0, err
    assert "conv3" in out
    assert run("prune", trained, "--out", pruned)[0] == 0
