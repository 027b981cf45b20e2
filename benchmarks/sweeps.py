"""The sweeps that are kept here: plain and residual square bounds, three penalties, Fashion-MNIST.

    python benchmarks/sweeps.py make residual-kernel-size --data-dir DIR --runs RUNS
    python benchmarks/sweeps.py table

`make` runs `structsparse sweep`, which goes on where it was stopped, in RUNS, and puts everything
of the run directory but the networks into benchmarks/results/sweeps/NAME: settings, points,
figures, report.html, and about.json with the command, the machine, the versions and the time. All
networks are trained on TensorFlow, which takes a network that has been cut without compiling it
anew. `table` prints what the frontiers hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from runs import RESULTS, Row, best_within, machine

from keras_structsparse._files import write_text

FOLDER = RESULTS / "sweeps"
BACKEND = "tensorflow"
VERSIONS = ("keras_structsparse", "keras", "tensorflow", "keras-tuner")
SHARES = (0.6, 0.4, 0.2, 0.1)
"""Of the multiply-adds: the table has the best network within each."""

COMMON = (
    "--dataset fashion_mnist --validation 0.1 --epochs 5 --path-epochs 2 --tuning-epochs 1 "
    "--shrink-every 2 --batch-size 128 --weight-decay 5e-4 --taus 1e-3,0.1"
)
PENALTIES: Mapping[str, str] = {
    "kernel-count": "--regularizer kernel-count --weights multiply_adds --reweight 0.1 "
    "--alphas 2e-2:8e-1:8",
    "kernel-size": "--regularizer kernel-size --weights multiply_adds --reweight 0.1 "
    "--realize split --alphas 2e-3:4e-2:8",
    "multiply-adds": "--regularizer multiply-adds --reweight 0.1 --realize split "
    "--alphas 2e-8:2e-6:8",
}
BASES = ("residual", "plain")
SEVERAL_SEEDS = "residual-kernel-size"
"""The sweep whose curve the README shows: three seeds, the others one."""


def sweeps() -> Mapping[str, str]:
    """By name, the words behind ``structsparse``."""
    found = {}
    for base in BASES:
        for penalty, words in PENALTIES.items():
            name = f"{base}-{penalty}"
            seeds = "0,1,2" if name == SEVERAL_SEEDS else "0"
            found[name] = f"sweep --model fashion-mnist-{base} {COMMON} {words} --seeds {seeds}"
    return found


def make(name: str, runs: Path, data_dir: str | None) -> None:
    """Run one sweep, and keep what is small."""
    words, out = sweeps()[name], runs / name
    where = [] if data_dir is None else ["--data-dir", data_dir]
    command = [sys.executable, "-m", "keras_structsparse", *shlex.split(words), "--out", str(out)]
    environment = {**os.environ, "KERAS_BACKEND": BACKEND}
    subprocess.run([*command, *where], env=environment, check=True)
    kept = FOLDER / name
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(out, kept, ignore=shutil.ignore_patterns("models", ".*"))
    write_text(kept / "about.json", json.dumps(about(words, kept), indent=1) + "\n")


def about(words: str, kept: Path) -> dict[str, Any]:
    """How the sweep came about."""
    return {
        "command": f"KERAS_BACKEND={BACKEND} structsparse {words} --out run",
        "seconds": sum(trial["seconds"] for trial in trials(kept)),
        "machine": f"{machine().rpartition(', ')[2]}, {os.cpu_count()} cores",
        "versions": {each: version(each) for each in VERSIONS},
    }


def trials(kept: Path) -> list[dict[str, Any]]:
    """The records of a sweep."""
    return [json.loads(file.read_text("utf-8")) for file in sorted(kept.glob("trials/*.json"))]


def table() -> None:
    """Test accuracies of the points chosen on the validation split: the mean over the seeds."""
    heads = "  ".join(f"within {share:.0%}" for share in SHARES)
    print(f"{'sweep':<26} seeds  minutes   dense   {heads}")
    for kept in sorted(folder for folder in FOLDER.iterdir() if folder.is_dir()):
        of_seeds: dict[int, list[Row]] = {}
        for trial in trials(kept):
            of_seeds.setdefault(trial["trial"]["seed"], []).extend(trial["points"])
        cells = []
        for share in (None, *SHARES):
            chosen = [
                next((p for p in points if p["alpha"] == 0), None)
                if share is None
                else best_within([p for p in points if p["alpha"] > 0], share)
                for points in of_seeds.values()
            ]
            values = [100 * point["accuracy_finetuned"] for point in chosen if point is not None]
            cells.append(f"{np.mean(values):>6.2f}" if values else "     -")
        minutes = json.loads((kept / "about.json").read_text("utf-8"))["seconds"] / 60
        print(f"{kept.name:<26} {len(of_seeds):>5} {minutes:>8.0f}  {'      '.join(cells)}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=["make", "table"])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(sweeps())}; all unless given")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the sweeps")
    parser.add_argument("--data-dir", help="where fashion_mnist lies or will be built by TFDS")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(sweeps()))
    if unknown:
        parser.error(f"expected names of {', '.join(sweeps())}, received {', '.join(unknown)}")
    if options.command == "make":
        for name in options.names or sweeps():
            make(name, options.runs, options.data_dir)
    table()


if __name__ == "__main__":
    main()
