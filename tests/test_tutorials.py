"""The notebooks run, with small numbers, and are committed as a full run has left them."""

from __future__ import annotations

import base64
import os
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
exceptions = pytest.importorskip("nbclient.exceptions")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(path.name for path in (ROOT / "tutorials").glob("*.ipynb"))
SCRIPT = runpy.run_path(str(ROOT / "tutorials" / "execute.py"))

every = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRUCTSPARSE_QUICK", "1")
    # The kernel's: conftest's is for tests that draw into files.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


def read(name: str) -> Any:
    return nbformat.read(ROOT / "tutorials" / name, as_version=4)


def code(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def kinds(book: Any) -> list[list[str]]:
    """What the cells of a notebook put out: texts or pictures."""
    found = [[*output.get("data", {"text": ""})] for cell in code(book) for output in cell.outputs]
    return [sorted({kind for kind in each if kind != "text/plain"}) for each in found]


@every
@pytest.mark.usefixtures("quick")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_notebook_runs(name: str) -> None:
    book = SCRIPT["execute"](ROOT / "tutorials" / name)
    assert all(cell.execution_count for cell in code(book))
    assert kinds(book) == kinds(read(name))


@pytest.mark.usefixtures("quick")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_notebook_that_fails_is_caught(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell("import os\nassert not os.environ['STRUCTSPARSE_QUICK']")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "bad.ipynb")
    with pytest.raises(exceptions.CellExecutionError, match="AssertionError"):
        SCRIPT["execute"](tmp_path / "bad.ipynb")


@every
def test_outputs_are_committed(name: str) -> None:
    """Every cell has run, one after the other, without an error or a place of some machine."""
    book = read(name)
    counts = [cell.execution_count for cell in code(book)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in code(book) for output in cell.outputs]
    assert outputs
    assert {output.output_type for output in outputs} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    assert not re.search(r"/(tmp|home|work|root|usr)/", (ROOT / "tutorials" / name).read_text())


@every
def test_links_lead_somewhere(name: str) -> None:
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not link.startswith("https://"):
            assert (ROOT / "tutorials" / link).is_file(), link


def test_all_notebooks_are_on_the_site_and_in_the_readme() -> None:
    assert NAMES
    site = (ROOT / "mkdocs.yml").read_text("utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    for name in NAMES:
        assert f"tutorials/{name.removesuffix('.ipynb')}.md" in site
        assert f"](tutorials/{name})" in readme


def test_a_page_holds_text_code_outputs_and_pictures() -> None:
    picture = base64.b64encode(b"picture").decode()
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["one\n", "two\n"]},
        {"output_type": "display_data", "data": {"image/png": picture, "text/plain": ["<Figure>"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {"cell_type": "code", "source": ["1 +\\\n", "1"], "outputs": outputs},
    ]
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    text, pictures = hooks["page_of"]({"cells": cells}, "net")
    assert text.startswith("# Title\n\n```python\n1 +\\\n1\n```\n\n```text\none\ntwo\n```\n")
    assert "](net-1.png)" in text
    assert "<Figure>" not in text
    assert pictures == {"net-1.png": b"picture"}
