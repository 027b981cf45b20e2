"""What the benchmarks on Fashion-MNIST share: data, one training, surgery, the file of results.

Every finished run is one line of JSON; a benchmark that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_structsparse as kss
from keras_structsparse import models
from keras_structsparse.data import datasets
from keras_structsparse.errors import DeadNetworkError
from keras_structsparse.training.fit import accuracy, compile_for, fit
from keras_structsparse.training.recipes import Recipe

Array = Any
Row = dict[str, Any]

RESULTS = Path(__file__).parent / "results"
MODEL = "fashion-mnist-residual"


@dataclass(frozen=True)
class Budget:
    """How much training every run gets."""

    images: int
    sparse: Recipe
    tuning: Recipe


def budget(options: argparse.Namespace) -> Budget:
    """The budget that the command line asks for."""
    return Budget(
        options.images,
        Recipe(epochs=options.epochs, batch_size=64, learning_rate=0.1),
        Recipe(epochs=options.tuning, batch_size=64, learning_rate=0.02, ramp=0.0),
    )


def recipe_of(setting: Row, **changes: Any) -> Recipe:
    """How the network of a run is trained."""
    own = setting["epochs"], setting["batch_size"], setting["rate"]
    return Recipe(*own, weight_decay=setting["weight_decay"], **changes)


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks take."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--data-dir", help="where fashion_mnist lies or will be built by TFDS")
    made.add_argument("--images", type=int, default=50_000, help="training images to use")
    made.add_argument("--epochs", type=int, default=8)
    made.add_argument("--tuning", type=int, default=2, help="epochs of fine-tuning")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--plot-only", action="store_true", help="draw what the results hold")
    return made


def load(options: argparse.Namespace) -> datasets.Dataset:
    """Fashion-MNIST: some training images, 10,000 for validation, the official test split."""
    data = datasets.load("fashion_mnist", data_dir=options.data_dir, validation=1 / 6, seed=0)
    kept = datasets.Split(data.train.x[: options.images], data.train.y[: options.images])
    return datasets.Dataset(data.name, kept, data.validation, data.test, data.classes, data.shape)


def split(part: datasets.Split) -> tuple[Array, Array]:
    """Images and labels."""
    return part.x, part.y


def initial_weights(seed: int) -> list[Array]:
    """The weights that a new network of this seed starts with."""
    keras.utils.set_random_seed(seed)
    return list(models.build(MODEL).get_weights())


def finish(
    model: keras.Model,
    chosen: kss.Plan,
    data: datasets.Dataset,
    tuning: Recipe,
    realize: str = "crop",
) -> Row:
    """Cut a trained network, fine-tune it, and report what it costs and what it does."""
    try:
        pruned = kss.prune(model, chosen, realize=realize)
    except DeadNetworkError:
        return {"dead": True}
    row = {
        "multiply_adds": kss.profile(pruned).multiply_adds / kss.profile(model).multiply_adds,
        "validation_at_surgery": accuracy(pruned, split(data.validation)),
        "test_at_surgery": accuracy(pruned, split(data.test)),
    }
    compile_for(pruned, tuning, len(data.train))
    fit(pruned, split(data.train), tuning)
    row["validation"] = accuracy(pruned, split(data.validation))
    row["test"] = accuracy(pruned, split(data.test))
    return row


def whole() -> int:
    """The multiply-adds of the network before."""
    return kss.profile(models.build(MODEL)).multiply_adds


def best_within(points: Sequence[Row], share: float) -> Row | None:
    """The point of the highest validation accuracy within a share of the multiply-adds."""
    small = [point for point in points if point["multiply_adds_fraction"] <= share]
    return max(small, key=lambda point: point["validation_finetuned"], default=None)


class Results:
    """Rows in a file, found again by their settings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows: list[Row] = [json.loads(line) for line in lines]

    def missing(self, settings: Sequence[Row]) -> Iterator[Row]:
        """The settings of which no run has finished."""
        for setting in settings:
            if not any(setting.items() <= row.items() for row in self.rows):
                yield setting

    def add(self, row: Row) -> None:
        """Write a finished run and print it."""
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    def forget(self, setting: Mapping[str, Sequence[Any]]) -> None:
        """Remove the rows with one of these values of a key from the file."""
        ((key, values),) = setting.items()
        self.rows = [row for row in self.rows if row[key] not in values]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))


def in_processes(results: Results, key: str, names: Sequence[str], command: Sequence[str]) -> None:
    """Examine each of the names that are missing in a process of its own, which may die.

    Args:
        results: Where rows are kept.
        key: The field of a row with the name.
        names: What to examine.
        command: The arguments of Python that print a row as the last line, but for the name.
    """
    for setting in list(results.missing([{key: name} for name in names])):
        line = [sys.executable, *command, setting[key]]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        sys.stderr.write(done.stderr[-2000:] if "Traceback" in done.stderr else "")
        lines = done.stdout.strip().splitlines()
        died = {**setting, "failure": f"the process ended with code {done.returncode}"}
        results.add(json.loads(lines[-1]) if lines and not done.returncode else died)


def print_row(row: Row, steps: Iterable[Row]) -> None:
    """Print what the steps find as the last line of output, in JSON; a failure keeps those before.

    Args:
        row: What is known at first.
        steps: What each step finds.
    """
    try:
        for found in steps:
            row.update(found)
    except Exception as error:
        traceback.print_exc()
        row["failure"] = f"{type(error).__name__}: {error}"
    print(json.dumps(row))


def machine() -> str:
    """What the numbers were measured with."""
    backend = keras.backend.backend()
    return f"keras {keras.__version__} on {backend}, {platform.machine()}"


def groups(rows: Sequence[Row], *keys: str) -> Mapping[tuple[Any, ...], list[Row]]:
    """The living rows by the values of some keys."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if not row.get("dead"):
            found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def mean_std(rows: Sequence[Row], key: str) -> tuple[float, float]:
    """Mean and standard deviation over seeds, in per cent."""
    values = 100 * np.array([row[key] for row in rows])
    return float(values.mean()), float(values.std(ddof=1)) if len(rows) > 1 else 0.0
