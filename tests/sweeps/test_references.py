"""Networks to compare with: what a file may hold, and what it is told when it does not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from keras_structsparse.errors import MarksError
from keras_structsparse.sweeps.references import ReferenceNetwork, read_references

GOOD: dict[str, Any] = {"name": "VGG", "accuracy": 0.935, "source": "its paper, table 3"}


def written(folder: Path, content: Any) -> Path:
    path = folder / "marks.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_marks_are_read_with_costs_of_either_kind(tmp_path: Path) -> None:
    entries = [{**GOOD, "multiply_adds": 50}, {**GOOD, "name": "b", "multiply_adds_fraction": 1.5}]
    first, second = read_references(written(tmp_path, entries))
    assert first == ReferenceNetwork("VGG", 0.935, "its paper, table 3", multiply_adds=50)
    assert (first.fraction(200), second.fraction(200)) == (0.25, 1.5)
    assert read_references(written(tmp_path, [])) == ()


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in {**GOOD, "multiply_adds": 5}.items() if key != name}


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (without("name"), "name: expected a text. Received: None"),
        (without("accuracy"), "accuracy: expected a number from 0 to 1. Received: None"),
        (without("source"), "source: expected a text. Received: None"),
        ({**GOOD, "multiply_adds": 5, "source": " "}, "source: expected a text. Received: ' '"),
        ({**GOOD, "multiply_adds": 5, "accuracy": 93.5}, "accuracy: expected .*Received: 93.5"),
        ({**GOOD, "multiply_adds": 5, "accuracy": True}, "accuracy: expected .*Received: True"),
        (GOOD, "multiply_adds or multiply_adds_fraction: expected exactly one .*'none'"),
        (
            {**GOOD, "multiply_adds": 5, "multiply_adds_fraction": 0.1},
            r"multiply_adds or multiply_adds_fraction: expected exactly one of them. Received: \{",
        ),
        ({**GOOD, "multiply_adds": 0}, "multiply_adds: expected a finite number > 0. Received: 0"),
        ({**GOOD, "multiply_adds": "5M"}, "multiply_adds: expected a finite number > 0. .*'5M'"),
        ({**GOOD, "multiply_adds_fraction": float("inf")}, "multiply_adds_fraction: expected a f"),
        ({**GOOD, "macs": 5}, "macs: expected no field but name, accuracy, source, multiply_adds"),
    ],
)
def test_what_is_wrong_is_named_with_its_entry(
    tmp_path: Path, entry: dict[str, Any], complaint: str
) -> None:
    path = written(tmp_path, [{**GOOD, "multiply_adds": 5}, entry])
    with pytest.raises(MarksError, match=f"^marks: {re.escape(str(path))}, entry 2, {complaint}"):
        read_references(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[", "expected a file of JSON"),
        ({"marks": []}, "expected a list of networks. .* which holds dict"),
        (["VGG"], "entry 1: expected an object. Received: 'VGG'"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: Any, complaint: str) -> None:
    with pytest.raises(MarksError, match=complaint):
        read_references(written(tmp_path, content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MarksError, match=r"expected a file of JSON. Received: .*nowhere\.json"):
        read_references(tmp_path / "nowhere.json")
