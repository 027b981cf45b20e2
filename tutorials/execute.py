"""Run the notebooks of this folder and write them back with their outputs.

    python tutorials/execute.py            # all of them, as they are committed
    python tutorials/execute.py 1 5        # those whose names begin so

With STRUCTSPARSE_QUICK=1 they run with small numbers; then nothing is written. Each runs in a new,
empty folder, so that what it saves does not stay here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
QUICK = "STRUCTSPARSE_QUICK"
CELL_SECONDS = 1800
LOGGED = ("INFO:tensorflow:", "WARNING:tensorflow:")
"""How lines begin that TensorFlow logs into the outputs of a cell."""


def notebooks(starts: Sequence[str] = ()) -> list[Path]:
    """The notebooks of the folder whose names begin with one of some texts; without texts, all."""
    return sorted(p for p in FOLDER.glob("*.ipynb") if not starts or p.name.startswith((*starts,)))


def execute(path: Path) -> Any:
    """Run a notebook in a folder of its own.

    Args:
        path: The notebook.

    Returns:
        The notebook with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raises.
    """
    book = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(
            book, timeout=CELL_SECONDS, resources=resources, record_timing=False
        )
        client.execute(stderr=subprocess.DEVNULL)  # What native libraries say at their start.
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = _kept(cell.outputs)
    return book


def _kept(outputs: Sequence[Any]) -> list[Any]:
    """Without what libraries log: it names places of this machine. Texts are put together."""
    kept: list[Any] = []
    for output in outputs:
        if output.output_type != "stream":
            kept.append(output)
            continue
        lines = output.text.splitlines(keepends=True)
        output.text = "".join(line for line in lines if not line.startswith(LOGGED))
        if output.name == "stderr" or not output.text.strip():
            continue
        if kept and kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def main() -> None:
    """Run what the command line asks for."""
    for path in notebooks(sys.argv[1:]):
        start = time.perf_counter()
        book = execute(path)
        if not os.environ.get(QUICK):
            nbformat.write(book, path)
            print(f"wrote the outputs into {path.name}")
        print(f"{path.name}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
