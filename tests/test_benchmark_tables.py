"""The tables of the documentation hold what the benchmarks have found."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLES = ("applications", "public_models")


@pytest.fixture(params=TABLES)
def benchmark_module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module(request.param)


def rows_of(module: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in module.LINES.read_text(encoding="utf-8").splitlines()]


def without_machine(text: str) -> str:
    """A page without the versions and the machine that its numbers were measured with."""
    return re.sub(r"\(keras [^)]*\)", "()", text)


def test_a_table_is_that_of_the_results(benchmark_module: Any) -> None:
    rows = rows_of(benchmark_module)
    page = benchmark_module.TABLE.read_text(encoding="utf-8")
    table = benchmark_module.table
    assert without_machine(page) == without_machine(table(benchmark_module.ordered(rows)))
    # The control: another number in the results.
    changed = [{**row, "error": 1.0} if "error" in row else row for row in rows]
    assert without_machine(page) != without_machine(table(benchmark_module.ordered(changed)))


def test_every_network_is_exact_and_none_failed(benchmark_module: Any) -> None:
    rows = rows_of(benchmark_module)
    assert not [row for row in rows if "failure" in row]
    assert all(row["exact"] for row in rows if "exact" in row)


def test_every_public_file_has_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("public_models")
    names = {module.title(*file) for file in module.FILES}
    assert {row["file"] for row in rows_of(module)} == names
    assert len({module.file_name(name) for name in names}) == len(names)
