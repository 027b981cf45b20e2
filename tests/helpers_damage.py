"""Damage to the files of a directory: what hypothesis may do to them, and what must come of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

KINDS = (
    "truncated",
    "emptied",
    "bytes",
    "value",
    "field",
    "gone",
    "directory",
    "dead link",
    "looping link",
    "link to another",
    "another",
)

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(),
    st.just(10**400),
    st.text(max_size=4),
    st.just([]),
    st.just({}),
    st.just([[[[]]]]),
)


@dataclass(frozen=True)
class Damage:
    """What was done to a file."""

    kind: str
    file: str


def outcome(use: Callable[[], Any], error: type[Exception]) -> tuple[Any, str | None]:
    """What something gives, or what an expected error says."""
    try:
        return use(), None
    except error as raised:
        return None, str(raised)


@st.composite
def damages(draw: st.DrawFn, folder: Path) -> Damage:
    """Damage one file of a directory."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    file = draw(st.sampled_from(files))
    kind = draw(st.sampled_from(KINDS))
    if kind in ("value", "field") and file.suffix != ".json":
        kind = "bytes"
    if kind in ("value", "field"):
        _change_json(draw, file, kind)
    elif kind in ("truncated", "bytes"):
        _change_bytes(draw, file, kind)
    else:
        others = [path for path in files if path != file]
        same = [path for path in others if path.suffix == file.suffix] or others
        _replace(file, kind, draw(st.sampled_from(same)))
    return Damage(kind, file.relative_to(folder).as_posix())


def _change_json(draw: st.DrawFn, file: Path, kind: str) -> None:
    content = json.loads(file.read_text())
    holder, key = draw(st.sampled_from(_places(content)))
    if kind == "field" and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = draw(VALUES)
    file.write_text(json.dumps(content))


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value, as what holds it and its key."""
    keys = list(content) if isinstance(content, dict) else range(len(content))
    own = [(content, key) for key in keys]
    return own + [
        place
        for key in keys
        if isinstance(content[key], dict | list)
        for place in _places(content[key])
    ]


def _change_bytes(draw: st.DrawFn, file: Path, kind: str) -> None:
    content = file.read_bytes()
    if kind == "truncated":
        file.write_bytes(content[: draw(st.integers(0, max(len(content) - 1, 0)))])
        return
    start = draw(st.integers(0, max(len(content) - 1, 0)))
    junk = draw(st.binary(min_size=1, max_size=16))
    file.write_bytes(content[:start] + junk + content[start + len(junk) :])


def _replace(file: Path, kind: str, other: Path) -> None:
    file.unlink()
    if kind == "emptied":
        file.touch()
    elif kind == "directory":
        file.mkdir()
    elif kind == "dead link":
        file.symlink_to(file.parent / "nothing")
    elif kind == "looping link":
        file.symlink_to(file)
    elif kind == "link to another":
        file.symlink_to(os.path.relpath(other, file.parent))
    elif kind == "another":
        shutil.copyfile(other, file)
