"""kss.shrink with its defaults, unchanged, on three kinds of networks that they were not tuned on.

    python benchmarks/shrink_kinds.py --data-dir DIR --vowels FOLDER

- "conv1d": convolutions over time, without normalisation, on JapaneseVowels: which of nine men says
  a vowel; 12 signals of up to 29 steps. 54 of the 270 training utterances are the validation data
  of the shrinking; the test is on the 370 of the official test split.
- "unet": a U-Net that takes noise off images of Fashion-MNIST. Its quality is the mean PSNR in dB.
- "norm-last": a classifier of Fashion-MNIST whose batch normalisations are behind the activations.

Each is trained, then `kss.shrink(model, train, validation, multiply_adds=0.4)` gets only the number
of epochs and the size of a batch. The quality is that of the official test split, which neither
sees. Finished runs are kept in benchmarks/results/shrink_kinds.jsonl, so a benchmark that was
stopped goes on.

DIR is a folder of tensorflow-datasets with Fashion-MNIST; benchmarks/fashion_mnist.py restores its
files from Debian's package. FOLDER holds JapaneseVowels_TRAIN.ts and JapaneseVowels_TEST.ts, which
the wheel of aeon contains:

    pip download --no-deps aeon==1.6.0
    unzip -j aeon-1.6.0-*.whl '*/JapaneseVowels/*' -d FOLDER
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import layers as L
from runs import RESULTS, Array, Results, Row, groups, load, machine

import keras_structsparse as kss

SHARE, SEEDS = 0.4, 3
IMAGES, VALIDATION, TEST = 6_000, 1_000, 4_000
NOISE = 0.25
"""The deviation of the noise that the U-Net takes off; white is 1."""
STEPS, SIGNALS = 29, 12
LINE = "{kind:<10} {left:>6} {dense:>7} {after:>7} {drop:>6} {worst:>6} {limit:>6} {seconds:>8}\n"

Pair = tuple[Array, Array]
Parts = Mapping[str, Pair]
"""Inputs and targets by the name of the split: train, validation, test."""


@dataclass(frozen=True)
class Kind:
    """A kind of network with its task.

    `scale` turns the metric into the unit of the table, in which `limit` is the largest drop.
    """

    build: Callable[[], keras.Model]
    data: Callable[[argparse.Namespace], Parts]
    loss: str
    metric: Callable[[], str | Callable[[Array, Array], Array]]
    epochs: int
    batch: int
    limit: float
    scale: float


@keras.saving.register_keras_serializable("benchmarks")
def psnr(images: Array, outputs: Array) -> Array:
    """The peak signal-to-noise ratio of each image in dB."""
    error = keras.ops.mean(keras.ops.square(images - outputs), axis=(1, 2, 3))
    return -10.0 * keras.ops.log10(keras.ops.maximum(error, 1e-10))


def conv1d() -> keras.Model:
    """Three convolutions over time."""
    inputs = keras.Input((STEPS, SIGNALS))
    x = L.Conv1D(48, 5, padding="same", activation="relu")(inputs)
    x = L.Conv1D(64, 5, padding="same", activation="relu")(x)
    x = L.MaxPooling1D(2)(x)
    x = L.Conv1D(64, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, L.Dense(9, activation="softmax")(L.GlobalMaxPooling1D()(x)))


def unet() -> keras.Model:
    """Two levels down and up again, with connections across."""
    inputs = keras.Input((28, 28, 1))
    one = _double(inputs, 8)
    two = _double(L.MaxPooling2D()(one), 16)
    x = _double(L.MaxPooling2D()(two), 32)
    for across, width in ((two, 16), (one, 8)):
        x = L.Conv2DTranspose(width, 2, strides=2, activation="relu")(x)
        x = _double(L.Concatenate()([x, across]), width)
    return keras.Model(inputs, L.Conv2D(1, 1, activation="sigmoid")(x))


def _double(x: Array, width: int) -> Array:
    for _ in range(2):
        x = L.Conv2D(width, 3, padding="same", activation="relu")(x)
    return x


def norm_last() -> keras.Model:
    """Convolution, activation, batch normalisation, four times."""
    x = inputs = keras.Input((28, 28, 1))
    for width in (16, 24, 32, 32):
        x = L.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = L.BatchNormalization(momentum=0.9)(x)
        x = L.MaxPooling2D()(x) if width < 32 else x
    x = L.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, L.Dense(10, activation="softmax")(x))


def vowels(options: argparse.Namespace) -> Parts:
    """The utterances, padded with zeros behind their ends."""
    train, test = (
        read_series(options.vowels / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST")
    )
    mean, deviation = (f(train[0], axis=(0, 1), where=train[0] != 0) for f in (np.mean, np.std))
    train, test = (
        (np.where(x != 0, (x - mean) / deviation, 0).astype("float32"), y) for x, y in (train, test)
    )
    held = np.arange(len(train[1])) % 5 == 0  # Sorted by speaker: a fifth of each.
    parts = {"train": ~held, "validation": held}
    return {**{name: (train[0][own], train[1][own]) for name, own in parts.items()}, "test": test}


def read_series(path: Path) -> Pair:
    """Series (examples, steps, signals) and classes of a .ts file of several signals."""
    lines = path.read_text().splitlines()
    begin = next(i for i, line in enumerate(lines) if line.strip().lower() == "@data")
    rows = [line.split(":") for line in lines[begin + 1 :] if line.strip()]
    series = np.zeros((len(rows), STEPS, SIGNALS))
    for example, (*signals, _) in zip(series, rows, strict=True):
        values = np.array([signal.split(",") for signal in signals], float).T
        example[: len(values)] = values
    return series, np.array([int(row[-1]) - 1 for row in rows])


def classes(options: argparse.Namespace) -> Parts:
    """Images of Fashion-MNIST and their labels."""
    data = load(options)
    return {
        "train": (data.train.x, data.train.y),
        "validation": (data.validation.x[:VALIDATION], data.validation.y[:VALIDATION]),
        "test": (data.test.x, data.test.y),
    }


def noisy(options: argparse.Namespace) -> Parts:
    """Images of Fashion-MNIST with noise, and without."""
    draw = np.random.default_rng(0).normal
    parts = {name: x if name == "train" else x[:TEST] for name, (x, _) in classes(options).items()}
    return {
        name: ((x + draw(0.0, NOISE, x.shape)).astype("float32"), x) for name, x in parts.items()
    }


CROSS = "sparse_categorical_crossentropy"
KINDS = {
    "conv1d": Kind(conv1d, vowels, CROSS, lambda: "accuracy", 60, 16, 2.0, 100.0),
    "unet": Kind(unet, noisy, "mse", lambda: psnr, 20, 32, 0.3, 1.0),
    "norm-last": Kind(norm_last, classes, CROSS, lambda: "accuracy", 20, 32, 2.0, 100.0),
}


def dense(kind: Kind, train: Pair, seed: int) -> keras.Model:
    """The trained network of a seed."""
    keras.utils.set_random_seed(seed)
    model = kind.build()
    steps = -(-len(train[1]) // kind.batch) * kind.epochs
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.compile(keras.optimizers.Adam(rate), kind.loss, metrics=[kind.metric()])
    model.fit(*train, batch_size=kind.batch, epochs=kind.epochs, verbose=0)
    return model


def run(setting: Row, kind: Kind, parts: Parts) -> Row:
    """Train, shrink, and compare on the test split."""
    start = time.perf_counter()
    model = dense(kind, parts["train"], setting["seed"])
    middle = time.perf_counter()
    result = kss.shrink(
        model,
        parts["train"],
        parts["validation"],
        multiply_adds=setting["share"],
        epochs=kind.epochs,
        batch_size=kind.batch,
        verbose=0,
    )
    seconds = {"training": round(middle - start), "seconds": round(time.perf_counter() - middle)}
    name = "psnr" if kind.metric() is psnr else "accuracy"
    before, after = (
        each.evaluate(*parts["test"], batch_size=256, verbose=0, return_dict=True)[name]
        for each in (model, result.model)
    )
    return {
        **setting,
        "left": result.comparison.multiply_adds_fraction,
        "dense": before,
        "after": after,
        "validation_dense": result.before[name],
        "validation_after": result.after[name],
        "tested_on": len(parts["test"][1]),
        **seconds,
        "warnings": list(result.warnings),
    }


def table(rows: Sequence[Row]) -> str:
    """Means over the seeds, and the worst drop of a seed: points of accuracy, or dB."""
    text = f"kss.shrink(multiply_adds={SHARE}), default settings, test split: {machine()}\n\n"
    names = ("kind", "left", "dense", "after", "drop", "worst", "limit", "seconds")
    text += LINE.format(**{name: name for name in names})
    for (name,), own in groups(rows, "kind").items():
        kind = KINDS[name]
        drops = [kind.scale * (row["dense"] - row["after"]) for row in own]
        means = {k: kind.scale * statistics.fmean(r[k] for r in own) for k in ("dense", "after")}
        text += LINE.format(
            kind=name,
            left=f"{100 * statistics.fmean(row['left'] for row in own):.1f}",
            **{key: f"{value:.2f}" for key, value in means.items()},
            drop=f"{statistics.fmean(drops):.2f}",
            worst=f"{max(drops):.2f}",
            limit=f"{kind.limit:.1f}",
            seconds=round(statistics.median(row["seconds"] for row in own)),
        )
    tested = ", ".join(
        f"{name} {own[0]['tested_on']:,}" for (name,), own in groups(rows, "kind").items()
    )
    seeds = len({row["seed"] for row in rows})
    return f"{text}\n{seeds} seeds; test examples: {tested}; unet in dB, the others in per cent\n"


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="where fashion_mnist lies")
    parser.add_argument("--vowels", type=Path, required=True, help="the folder of the .ts files")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--images", type=int, default=IMAGES, help="training images to use")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    results = Results(RESULTS / "shrink_kinds.jsonl")
    for seed in range(options.seeds):
        for name in options.kinds:
            setting = {"kind": name, "share": SHARE, "seed": seed, "epochs": KINDS[name].epochs}
            for missing in results.missing([setting]):
                results.add(run(missing, KINDS[name], KINDS[name].data(options)))
    text = table(results.rows)
    (RESULTS / "shrink_kinds.txt").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
