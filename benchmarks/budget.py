"""How near a training with a target ends to it, on Fashion-MNIST.

    python benchmarks/budget.py --data-dir DIR

Each run trains the residual network once, with a target for its multiply-adds and no fine-tuning.
Nothing is chosen on the validation or the test split. Results go to
benchmarks/results/budget.jsonl; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import time

import keras
from runs import MODEL, RESULTS, Results, Row, groups, load, machine, mean_std, split

import keras_structsparse as kss
from keras_structsparse import models
from keras_structsparse.data import datasets
from keras_structsparse.training.fit import accuracy, compile_for, fit
from keras_structsparse.training.recipes import Recipe

TARGETS = (0.6, 0.4, 0.2)
TAU = 1e-3
REGULARIZERS = {"KernelSize": kss.KernelSize, "KernelCount": kss.KernelCount}


def train(setting: Row, data: datasets.Dataset) -> Row:
    """One training from the start that its seed gives, and what surgery makes of it."""
    keras.utils.set_random_seed(setting["seed"])
    model = models.build(MODEL)
    recipe = Recipe(epochs=setting["epochs"], batch_size=64, learning_rate=0.1)
    compile_for(model, recipe, len(data.train), REGULARIZERS[setting["regularizer"]](1e-3))
    budget = kss.TargetMultiplyAdds(setting["target"], tau=TAU)
    start = time.perf_counter()
    fit(model, split(data.train), recipe, callbacks=[budget])
    seconds = time.perf_counter() - start
    pruned = kss.prune(model, tau=TAU)
    return {
        "multiply_adds": kss.profile(pruned).multiply_adds / kss.profile(model).multiply_adds,
        "threshold": budget.threshold,
        "validation": accuracy(pruned, split(data.validation)),
        "test": accuracy(pruned, split(data.test)),
        "seconds": round(seconds, 1),
        "machine": machine(),
    }


def run(results: Results, options: argparse.Namespace) -> None:
    """All runs that are missing."""
    settings = [
        {
            "regularizer": options.regularizer,
            "images": options.images,
            "epochs": options.epochs,
            "target": target,
            "seed": seed,
        }
        for seed in range(options.seeds)
        for target in options.targets
    ]
    missing = list(results.missing(settings))
    data = load(options) if missing else None
    for setting in missing:
        assert data is not None
        results.add({**setting, **train(setting, data)})


def table(results: Results) -> None:
    """Mean and standard deviation over the seeds, and the largest miss."""
    print("regularizer  images epochs target  multiply-adds  largest miss  test accuracy  seeds")
    keys = ("regularizer", "images", "epochs", "target")
    for (name, images, epochs, target), rows in groups(results.rows, *keys).items():
        miss = max(abs(row["multiply_adds"] - target) for row in rows)
        left, test = (mean_std(rows, key) for key in ("multiply_adds", "test"))
        print(
            f"{name:<12} {images:>6} {epochs:>6} {target:>6.0%}  "
            f"{left[0]:>6.2f} ± {left[1]:.2f} {100 * miss:>12.2f}  "
            f"{test[0]:>7.2f} ± {test[1]:.2f} {len(rows):>6}"
        )


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="where fashion_mnist lies or will be built by TFDS")
    parser.add_argument("--regularizer", choices=REGULARIZERS, default="KernelSize")
    parser.add_argument("--targets", type=float, nargs="+", default=TARGETS)
    parser.add_argument("--images", type=int, default=50_000, help="training images to use")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table-only", action="store_true", help="print what the results hold")
    options = parser.parse_args()
    results = Results(RESULTS / "budget.jsonl")
    if not options.table_only:
        run(results, options)
    table(results)


if __name__ == "__main__":
    main()
