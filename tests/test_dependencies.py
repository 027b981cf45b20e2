"""The page on dependencies names every requirement of pyproject.toml, and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")


def required() -> dict[str, set[str]]:
    """The extras of every requirement; "-" for those of the package itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, set[str]] = {}
    for extra, words in {"-": project["dependencies"], **project["optional-dependencies"]}.items():
        for word in words:
            match = re.match(r"[\w-]+", word)
            assert match is not None
            if match[0] != "keras-structsparse":  # the extra "all"
                found.setdefault(match[0], set()).add(extra)
    return found


def described(page: str) -> dict[str, set[str]]:
    """The same, as the first table of the page has it."""
    rows = re.findall(
        r"^\| ([\w-]+) \| (.+?) \|.+\|.+\|.+\|$", page.split("\n## ")[0], re.MULTILINE
    )
    return {
        name: set(extras.replace("`", "").split(", "))
        for name, extras in rows
        if name != "dependency" and not name.startswith("---")
    }


def test_every_requirement_is_described() -> None:
    assert described(PAGE) == required()


def test_a_missing_row_and_a_wrong_extra_are_seen() -> None:
    assert "scipy" not in described(PAGE.replace("| scipy |", "|"))
    assert described(PAGE.replace("`plots` | Pallets", "`onnx` | Pallets")) != required()


def test_every_row_has_maintainer_licence_and_use() -> None:
    for line in PAGE.splitlines():
        if line.startswith("| "):
            assert all(cell.strip() for cell in line.strip("|").split("|")), line


def unpacked(folders: set[str]) -> set[str]:
    """The packages in folders, or files of data in them, that a wheel would leave out."""
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    packages = set(setup["setuptools"]["packages"])
    data = {
        str(file.relative_to(ROOT))
        for package, patterns in setup["setuptools"]["package-data"].items()
        for pattern in patterns
        for file in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    found = {str(Path(folder)).replace("/", ".") for folder in folders} - packages
    others = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "keras_structsparse").rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    }
    return found | (others - data)


def test_a_wheel_holds_all_packages_and_their_files() -> None:
    folders = {
        str(file.parent.relative_to(ROOT))
        for file in (ROOT / "keras_structsparse").rglob("__init__.py")
    }
    assert unpacked(folders) == set()
    assert unpacked({*folders, "keras_structsparse/new"}) == {"keras_structsparse.new"}
