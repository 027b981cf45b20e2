"""The page `docs/keras-habits.md`: its table, read and written.

    python tests/helpers_habit_page.py

trains every cell, which takes about half an hour on two cores, and rewrites the table.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "keras-habits.md"
START, END = "<!-- the table -->\n", "<!-- end of the table -->\n"

Cells = Mapping[tuple[str, str], str]

ROW = """
import sys
sys.path.insert(0, sys.argv[1])
import conftest, helpers_habit_page
helpers_habit_page.print_row(sys.argv[2])
"""


def row(name: str) -> dict[str, str]:
    """The texts of the cells of a habit, by column, found in a process of its own."""
    command = [sys.executable, "-c", ROW, str(TESTS), name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def print_row(name: str) -> None:
    """Print the texts of the cells of a habit as JSON."""
    from conftest import fresh_keras
    from helpers_habit_cells import WAYS, outcome

    found = {}
    for way in WAYS:
        fresh_keras()
        with tempfile.TemporaryDirectory() as folder:
            found[way] = outcome(name, way, Path(folder))
    print(json.dumps(found))


def table(cells: Cells) -> str:
    """The table of the page."""
    from helpers_habit_cells import WAYS
    from helpers_habits import HABITS

    rows = [("habit", *WAYS), ("---",) * (len(WAYS) + 1)]
    rows += [(name, *(cells[name, way] for way in WAYS)) for name in HABITS]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def written() -> dict[tuple[str, str], str]:
    """The cells of the page as it is, by habit and column."""
    text = PAGE.read_text(encoding="utf-8").split(START)[1].split(END)[0]
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines()]
    return {
        (name, way): cell
        for name, *own in rows[2:]
        for way, cell in zip(rows[0][1:], own, strict=True)
    }


def write(cells: Cells) -> None:
    """Replace the table of the page."""
    text = PAGE.read_text(encoding="utf-8")
    head, tail = text.split(START)[0], text.split(END)[1]
    PAGE.write_text(f"{head}{START}{table(cells)}{END}{tail}", encoding="utf-8")


def main() -> None:
    """Train every cell and rewrite the table."""
    import conftest  # noqa: F401
    from helpers_habits import HABITS

    cells: dict[tuple[str, str], str] = {}
    for name in HABITS:
        found = row(name)
        print(name, found, flush=True)
        cells |= {(name, way): text for way, text in found.items()}
    write(cells)


if __name__ == "__main__":
    main()
