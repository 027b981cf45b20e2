"""Every code block of the README and the documentation does what it says."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
import types
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers_images import bright_and_dark
from typer.testing import CliRunner

import keras_structsparse as kss
from keras_structsparse.cli import app
from keras_structsparse.data import datasets

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "keras_structsparse"
SETS_UP = ("source", "pip")
"""Commands that prepare an environment; tests have one."""

LONG = ("sweep", "report", "choose", "--references")
"""Words of commands on several networks, or large ones; they run in a slow test."""

CHANGES = {
    "train": ("--epochs", "1", "--batch-size", "512", "--force"),
    "recipe": ("--epochs", "1", "--force"),
    "shrink": ("--epochs", "2", "--force"),
    "prune": ("--force",),
    "export": ("--force",),
    "sweep": ("--epochs", "1", "--tuning-epochs", "0", "--batch-size", "512"),
    "choose": ("--max-drop", "100"),
}
"""Later options win: trainings are short, so a wish allows for more, and sections of a page that
write the same file do not get into each other's way."""


class Block(NamedTuple):
    """A fenced piece of a page."""

    language: str
    text: str
    line: int


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(match[1], match[2], text[: match.start()].count("\n") + 2)
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def commands(block: Block) -> Iterator[list[str]]:
    if block.language != "bash":
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            if words := shlex.split(part, comments=True):
                yield words


def with_blocks(words: Container[str] | None = None) -> list[Any]:
    """Pages with code; with a command that has one of some words, if any are given."""
    return [
        pytest.param(page, id=page.relative_to(ROOT).as_posix())
        for page in pages()
        if (shown := blocks(page))
        and (words is None or any(has(line, words) for block in shown for line in commands(block)))
    ]


def has(line: list[str], words: Container[str]) -> bool:
    return line[0] == "structsparse" and any(word in words for word in line)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepared() -> dict[str, Any]:
    """What the README's reader has: a model in a file, images, labels, and a folder of photos."""
    bright_and_dark(Path("photos"))
    kss.models.build("(6,5)x3", (8, 8, 1)).save("model.keras")
    data = datasets.load("digits")
    return {"__name__": "docs", "x": data.train.x[:256], "y": data.train.y[:256]}


def run(words: list[str], skipped: Container[str]) -> None:
    """Run one command of a page, or see that it exists where running it is what others do."""
    program, *rest = words
    if program in SETS_UP or program.startswith(".venv/"):
        return
    if program == "./dev":
        usage = subprocess.run([ROOT / "dev", "help"], capture_output=True, text=True, check=True)
        assert re.search(rf"^  {rest[0]}\b", usage.stdout, re.MULTILINE), words
        return
    assert program == "structsparse", f"no rule for the command {words}"
    if has(words, skipped):
        return
    result = CliRunner().invoke(app, [*rest, *CHANGES.get(rest[0], ())])
    assert result.exit_code == 0, (words, result.output, result.exception)


def execute(page: Path, skipped: Container[str] = ()) -> None:
    space = prepared()
    for block in blocks(page):
        if block.language == "python":
            code = "\n" * (block.line - 1) + block.text
            exec(compile(code, str(page), "exec"), space)
        elif block.language == "bash":
            for words in commands(block):
                run(words, skipped)
        else:
            assert block.language == "text", f"{page}:{block.line}: no rule for this language"


@pytest.mark.filterwarnings("ignore:shrink. :UserWarning")  # trainings are short
# keras-tuner loads files of trained networks into new ones, whose optimizers have no state yet
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning")
@pytest.mark.parametrize("page", with_blocks())
def test_a_page_does_what_it_says(page: Path, folder: Path) -> None:
    execute(page, skipped=LONG)


@pytest.mark.slow
@pytest.mark.parametrize("page", with_blocks(LONG))
def test_a_page_with_long_commands_does_what_it_says(page: Path, folder: Path) -> None:
    execute(page)


@pytest.mark.parametrize(
    "text",
    [
        "```python\nassert False\n```\n",
        "```bash\n./dev nosuch\n```\n",
        "```bash\nstructsparse nosuch\n```\n",
        "```bash\nrm -r .\n```\n",
        "```\nno language\n```\n",
        "```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n",
    ],
)
def test_a_wrong_page_is_caught(text: str, folder: Path) -> None:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(AssertionError):
        execute(page)


def test_every_public_name_is_in_the_reference() -> None:
    reference = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs/api").glob("*.md"))
    private = {"__version__", "models", "surgery", "sweep", "Costs", "Comparison", "Profile"}
    for name in set(kss.__all__) - private - {"SweepSearch", "SweepSettings"}:
        if not name.endswith("Error"):  # all of that module are shown
            assert re.search(rf"\b{name}\b", reference), name


def missing_files(text: str) -> list[str]:
    """Python files that a page names and that are neither in the package nor in the clone."""
    named = re.findall(r"`((?:\w+/)+\w+\.py)`", text)
    folders = (ROOT, ROOT / PACKAGE)
    return [name for name in named if not any((f / name).is_file() for f in folders)]


@pytest.mark.parametrize("name", ["code-map.md", "design-notes.md", "method.md"])
def test_files_that_a_page_names_exist(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert not missing_files(text)
    assert missing_files(text + "`graph/nosuch.py`") == ["graph/nosuch.py"]


def missing_names(text: str) -> list[str]:
    """Names that a page gives behind a file of the package, and that this file does not hold."""
    named = re.findall(r"`((?:\w+/)+\w+\.py)`(?:: | \()`(?!kss)(?:\w+\.)?(\w+)`", text)
    return [name for file, name in named if name not in (ROOT / PACKAGE / file).read_text("utf-8")]


def test_names_that_the_code_map_gives_behind_a_file_are_in_it() -> None:
    text = (ROOT / "docs" / "code-map.md").read_text(encoding="utf-8")
    assert not missing_names(text)
    assert missing_names("`graph/channels/costs.py`: `nosuch`") == ["nosuch"]


def stops(text: str) -> list[str]:
    """The files of the numbered list in the section on the walk of one kernel."""
    section = text.split("## The walk of one kernel")[1].split("\n## ")[0]
    return re.findall(r"^\d+\. `([\w/]+\.py)`: ", section, re.MULTILINE)


def test_the_walk_of_a_kernel_has_at_most_ten_stops_each_a_file() -> None:
    text = (ROOT / "docs" / "code-map.md").read_text(encoding="utf-8")
    found = stops(text)
    assert 5 <= len(found) <= 10
    assert len(set(found)) == len(found)
    assert stops(text.replace("1. `", "1. x`")) == found[1:]  # a stop without a file is not counted


def test_a_clones_two_commands_are_the_first_block_of_the_readme() -> None:
    first, *others = blocks(ROOT / "README.md")
    assert list(commands(first)) == [["./dev", "quickstart"], ["./dev", "test"]]
    assert all(list(commands(block)) != list(commands(first)) for block in others)


# --- the hooks of the site ---


def hooks() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "hooks.py"))


def test_equations_in_code_stay() -> None:
    text = "`$x$` and\n```bash\necho $A $B\n```\n"
    assert hooks()["equations"](text) == text


def test_equations_become_mathml(monkeypatch: pytest.MonkeyPatch) -> None:
    converter = types.ModuleType("latex2mathml.converter")
    convert = lambda text, display: f'<math display="{display}">{text}</math>'  # noqa: E731
    monkeypatch.setattr(converter, "convert", convert, raising=False)
    monkeypatch.setitem(sys.modules, "latex2mathml", types.ModuleType("latex2mathml"))
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", converter)
    found = hooks()["equations"]("a $x^2$ b\n\n$$\\sum_i x_i$$\n")
    assert found.count("<math") == 2
    assert 'display="block"' in found
    assert "$" not in found
    # Markdown makes a block of a line that starts with <math>; <span> is inline.
    assert "<span><math" in hooks()["equations"]("$x$ starts a line")


def test_the_reference_networks_of_the_page_are_those_of_the_zoo() -> None:
    from hand_counts import COUNTS

    text = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    for name, row in {"alexnet": "AlexNet", "vgg16": "VGG-16", "resnet152": "ResNet-152"}.items():
        cells = re.search(rf"^\| {row} \|(.*)$", text, re.MULTILINE)
        assert cells is not None
        numbers = [float(n) for n in re.findall(r"\| \**([\d.]+) [MG]", cells[1])]
        expected = [COUNTS[name].params / 1e6, COUNTS[name].multiply_adds / 1e9]
        np.testing.assert_allclose(numbers, expected, rtol=2e-3)
