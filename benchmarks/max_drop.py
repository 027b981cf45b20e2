"""kss.shrink(max_drop=0.01): the smallest network within one point, and what the test says of it.

    python benchmarks/max_drop.py --data-dir DIR

scikit-learn's digits: of the 1,297 training images 600 are the validation data, on which the
network is chosen; the test is on the 500 of this package's test split. Fashion-MNIST: 6,000 images
for training and 4,000 for validation, both of the official training split, and its 10,000 test
images. The dense network is trained with another seed in each run; then follows `kss.shrink` with
`max_drop=0.01` and its defaults. Each of its five networks is trained for 20 epochs, the default.

A run meets the limit if its test accuracy is at most one point below that of the dense network. The
test is an estimate too: of 500 images, one point is five. Finished runs are kept in
benchmarks/results/max_drop.jsonl, so a benchmark that was stopped goes on.

DIR is a folder of tensorflow-datasets with Fashion-MNIST; benchmarks/fashion_mnist.py restores its
files from Debian's package.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
from keras import layers as L
from runs import RESULTS, Array, Results, Row, groups, load, machine

import keras_structsparse as kss
from keras_structsparse.data import datasets

LIMIT, SEEDS, BATCH = 0.01, 5, 32
IMAGES, VALIDATION = 6_000, 4_000
DIGITS_VALIDATION = 600 / 1297
LINE = (
    "{task:<14} {left:>6} {dense:>7} {validation:>11} {bound:>6} {test:>6} {worst:>6} "
    "{met:>6} {shown:>6} {seconds:>8}\n"
)

Parts = Mapping[str, tuple[Array, Array]]
"""Inputs and labels by the name of the split: train, validation, test."""


@dataclass(frozen=True)
class Task:
    """A data set, the widths of the network for it, and the epochs of its training."""

    data: Callable[[argparse.Namespace], Parts]
    widths: Sequence[int]
    epochs: int


def digits(options: argparse.Namespace) -> Parts:
    """scikit-learn's digits."""
    return parts(datasets.load("digits", validation=DIGITS_VALIDATION), None)


def fashion(options: argparse.Namespace) -> Parts:
    """A part of Fashion-MNIST."""
    return parts(load(options), VALIDATION)


def parts(data: datasets.Dataset, validation: int | None) -> Parts:
    """The splits as arrays."""
    return {
        "train": (data.train.x, data.train.y),
        "validation": (data.validation.x[:validation], data.validation.y[:validation]),
        "test": (data.test.x, data.test.y),
    }


TASKS = {
    "digits": Task(digits, (32, 32), 30),
    "fashion_mnist": Task(fashion, (16, 32, 32), 12),
}


def dense(task: Task, train: tuple[Array, Array], seed: int) -> keras.Model:
    """The trained network of a seed."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input(train[0].shape[1:])
    for width in task.widths:
        x = L.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = L.MaxPooling2D()(L.ReLU()(L.BatchNormalization(momentum=0.9)(x)))
    x = L.Dense(64, activation="relu")(L.Flatten()(x))
    model = keras.Model(inputs, L.Dense(10, activation="softmax")(x))
    steps = -(-len(train[1]) // BATCH) * task.epochs
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(*train, batch_size=BATCH, epochs=task.epochs, verbose=0)
    return model


def run(setting: Row, task: Task, data: Parts) -> Row:
    """Train, find the smallest network, and compare on the test split."""
    model = dense(task, data["train"], setting["seed"])
    start = time.perf_counter()
    result = kss.shrink(
        model,
        data["train"],
        data["validation"],
        max_drop=setting["max_drop"],
        batch_size=BATCH,
        verbose=0,
    )
    seconds = round(time.perf_counter() - start)
    before, after = (
        each.evaluate(*data["test"], batch_size=256, verbose=0, return_dict=True)["accuracy"]
        for each in (model, result.model)
    )
    return {
        **setting,
        "left": result.comparison.multiply_adds_fraction,
        "dense": before,
        "after": after,
        "test_drop": before - after,
        "validation_drop": result.drop,
        "bound": result.drop_bound.value,
        "shown": result.drop_bound.value <= setting["max_drop"],
        "tested_on": len(data["test"][1]),
        "seconds": seconds,
        "warnings": list(result.warnings),
    }


def table(rows: Sequence[Row]) -> str:
    """Means over the seeds in per cent, and how many runs meet the limit."""
    names = ("task", "left", "dense", "validation", "bound", "test", "worst", "met", "shown")
    text = f"kss.shrink(max_drop={LIMIT}), default settings: {machine()}\n\n"
    text += LINE.format(**{name: name for name in (*names, "seconds")})
    for (name,), own in groups(rows, "task").items():
        drops = [row["test_drop"] for row in own]
        columns = {"validation": "validation_drop", "test": "test_drop"}
        means = {
            key: statistics.fmean(100 * row[columns.get(key, key)] for row in own)
            for key in ("left", "dense", "validation", "bound", "test")
        }
        text += LINE.format(
            task=name,
            **{key: f"{value:.2f}" for key, value in means.items()},
            worst=f"{100 * max(drops):.2f}",
            met=f"{sum(drop <= LIMIT + 1e-6 for drop in drops)}/{len(own)}",
            shown=f"{sum(row['shown'] for row in own)}/{len(own)}",
            seconds=round(statistics.median(row["seconds"] for row in own)),
        )
    return (
        f"{text}\nvalidation, test: the drop there; bound: its upper confidence bound from the "
        "validation\ndata; worst: the largest drop on the test; met: runs that meet the limit on "
        "the test; shown:\nruns whose bound is within it\n"
    )


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="where fashion_mnist lies")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--images", type=int, default=IMAGES, help="training images to use")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    results = Results(RESULTS / "max_drop.jsonl")
    for seed in range(options.seeds):
        for name in options.tasks:
            setting = {"task": name, "max_drop": LIMIT, "seed": seed}
            for missing in results.missing([setting]):
                results.add(run(missing, TASKS[name], TASKS[name].data(options)))
    text = table(results.rows)
    (RESULTS / "max_drop.txt").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
