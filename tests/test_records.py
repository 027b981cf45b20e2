"""Files of JSON: read strictly, and refused in one short line that names the field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers_damage import outcome
from hypothesis import given
from hypothesis import strategies as st

import keras_structsparse as kss
from keras_structsparse._records import DEPTH, parse_json, read_record
from keras_structsparse.cli.files import read_costs, read_plan
from keras_structsparse.errors import StructSparseError
from keras_structsparse.models.card import Card
from keras_structsparse.surgery import Costs
from keras_structsparse.surgery.kernel_provenance import Ancestry
from keras_structsparse.sweeps.references import read_references

FILES = Path(__file__).parent / "data_files"


@dataclass(frozen=True)
class Part:
    """A part of a record."""

    sizes: Mapping[str, tuple[int, ...]]
    pair: tuple[str, float]


@dataclass(frozen=True)
class Whole:
    """A record with a value of every kind."""

    name: str
    count: int
    value: float
    known: bool
    parts: tuple[Part, ...]
    path: Part | None = None
    notes: Any = None

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"count: expected a whole number >= 0. Received: {self.count}")


PART = Part({"conv": (3, 0)}, ("a", 0.5))
WHOLE = Whole("x", 3, 1.5, True, (PART, PART), PART, {"free": [1, "2"]})
RECORD: dict[str, Any] = json.loads(json.dumps(asdict(WHOLE)))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


def fields_of(content: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of everything that a record holds."""
    inner: list[tuple[Any, Any]] = list(content.items()) if isinstance(content, dict) else []
    inner += enumerate(content) if isinstance(content, list) else []
    return [place, *(found for key, held in inner for found in fields_of(held, (*place, key)))]


def replaced(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The record with another value at a place."""
    if not place:
        return value
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[place[0]] = replaced(content[place[0]], place[1:], value)
    return copy


def test_what_was_written_is_read() -> None:
    assert read_record(Whole, RECORD, "file.json") == WHOLE
    short = {name: value for name, value in RECORD.items() if name not in ("path", "notes")}
    assert read_record(Whole, short, "file.json").path is None
    assert read_record(Whole, {**RECORD, "value": 2}, "file.json").value == 2.0


@given(place=st.sampled_from(fields_of(RECORD)), value=JSON)
def test_any_other_value_is_of_its_type_or_refused_with_its_place(
    place: tuple[Any, ...], value: Any
) -> None:
    damaged = replaced(RECORD, place, value)
    found, said = outcome(lambda: read_record(Whole, damaged, "file.json"), ValueError)
    if said is not None:
        assert said.startswith("file.json")
        assert "expected" in said
        assert "Received" in said
        assert len(said) < 400
        assert not place or str(place[0]) in said
        return
    assert json.dumps(asdict(found), sort_keys=True)
    assert type(found.count) is int
    assert type(found.value) is float
    assert found.value - found.value == 0, "it is finite"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"count": True}, "file.json, count: expected a whole number. Received: True"),
        ({"count": 3.0}, "file.json, count: expected a whole number. Received: 3.0"),
        ({"count": -1}, "file.json, count: expected a whole number >= 0. Received: -1"),
        ({"value": float("nan")}, "file.json, value: expected a finite number. Received: nan"),
        ({"value": 10**400}, "file.json, value: expected a finite number. Received: 1000"),
        ({"known": 1}, "file.json, known: expected true or false. Received: 1"),
        ({"parts": {}}, "file.json, parts: expected a list. Received: {}"),
        ({"path": []}, "file.json, path: expected an object. Received: []"),
        ({"other": 1}, "file.json: expected no field but name, count"),
    ],
)
def test_errors_name_the_field(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match="expected") as info:
        read_record(Whole, {**RECORD, **change}, "file.json")
    assert str(info.value).startswith(complaint)


def test_a_missing_field_is_named() -> None:
    damaged = replaced(RECORD, ("parts", 1), {"sizes": {}})
    with pytest.raises(ValueError, match=r"file, parts\[1\]\.pair: expected a value\. .* none"):
        read_record(Whole, damaged, "file")


# --- JSON itself ---


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 900 + "1" + "}" * 900])
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"nested more than {DEPTH} levels|Expecting"):
        parse_json(text)
    assert parse_json("[" * 20 + "]" * 20), "the control"


def test_a_key_is_given_once() -> None:
    with pytest.raises(ValueError, match="'a' is given twice"):
        parse_json('{"b": {"a": 1, "a": 1}}')
    assert parse_json(b'{"a": {"a": 1}}') == {"a": {"a": 1}}


# --- the files of this package ---

READERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "plan": (read_plan, (FILES / "plan_of_version_0_1.json").read_text()),
    "costs": (read_costs, (FILES / "costs_of_version_0_1.json").read_text()),
    "marks": (
        read_references,
        json.dumps([{"name": "a", "accuracy": 0.5, "source": "b", "multiply_adds": 5}]),
    ),
}
TEXTS: dict[str, tuple[Callable[[str], Any], str]] = {
    "card": (Card.from_json, (FILES / "card_of_version_0_1.json").read_text()),
    "saliency": (
        kss.Saliency.from_json,
        kss.Saliency({"a": [[0.1]]}, {"a": [[0.1]]}, "kernel").to_json(),
    ),
    "ancestry": (Ancestry.from_json, Ancestry({"a": ("b", (0, 1))}, {"b": 2}).to_json()),
    "plan": (kss.Plan.from_json, kss.Plan({"a": (1, 0)}).to_json()),
    "costs": (Costs.from_json, Costs().to_json()),
}


@st.composite
def damages(draw: st.DrawFn, text: str) -> bytes:
    """A text with another value in it, cut short, or with other bytes in it."""
    content = text.encode()
    kind = draw(st.sampled_from(["value", "cut", "bytes", "deep", "binary"]))
    if kind == "value":
        record = json.loads(text)
        place = draw(st.sampled_from(fields_of(record)))
        return json.dumps(replaced(record, place, draw(JSON))).encode()
    if kind == "cut":
        return content[: draw(st.integers(0, len(content) - 1))]
    if kind == "bytes":
        start = draw(st.integers(0, len(content) - 1))
        junk = draw(st.binary(min_size=1, max_size=8))
        return content[:start] + junk + content[start + len(junk) :]
    return b"[" * 50_000 if kind == "deep" else draw(st.binary(max_size=50))


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_damaged_files_are_named_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    read, text = READERS[name]
    path = tmp_path_factory.getbasetemp() / f"{name}.json"
    path.write_text(text)
    assert read(path), "the control"
    path.write_bytes(data.draw(damages(text)))
    _, said = outcome(lambda: read(path), StructSparseError)
    assert said is None or (str(path) in said and "xpected" in said)


@pytest.mark.parametrize("name", TEXTS)
@given(data=st.data())
def test_damaged_texts_are_refused_by_an_error_of_ours(name: str, data: st.DataObject) -> None:
    read, text = TEXTS[name]
    read(text)
    damaged = data.draw(damages(text)).decode("utf-8", "replace")
    _, said = outcome(lambda: read(damaged), ValueError)
    named = (name, "groups")  # an argument of Saliency
    assert said is None or (any(each in said.lower() for each in named) and "xpected" in said)
