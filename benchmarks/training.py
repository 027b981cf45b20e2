"""What it costs to find a small network, against training the whole one once, on Fashion-MNIST.

    KERAS_BACKEND=jax python benchmarks/training.py --data-dir DIR

Three trainings of the residual network from the start of one seed, for the same number of epochs:
without a penalty, with one, and with one while what has gone to zero is cut out on the way. They
take turns, an epoch each (turns.py), so that a machine that gets slower does so for all. Seconds
hold building, tracing, compiling and surgery as well. The batch size divides the number of images:
JAX would compile a step of its own for a smaller last batch, after every cut. The work of a
training is 3 x the multiply-adds of every image that is seen, for the network as it was then.
Afterwards the sparse networks are cut at tau. Nothing is chosen on the validation or the test
split. Results go to benchmarks/results/training.jsonl; finished seeds are not repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from runs import (
    MODEL,
    RESULTS,
    Results,
    Row,
    groups,
    load,
    machine,
    mean_std,
    recipe_of,
    split,
)
from turns import Clock, take_turns

import keras_structsparse as kss
from keras_structsparse import models
from keras_structsparse.data import datasets
from keras_structsparse.training.fit import accuracy, compile_for, fit, fit_and_shrink
from keras_structsparse.training.recipes import Recipe, Shrinking

PASSES = 3
"""A forward pass, and a backward pass that takes twice as much."""


Trained = tuple[keras.Model, list[tuple[int, int]], dict[str, Any]]
"""The network; its multiply-adds from some epoch on; more to write down."""


def dense(
    model: keras.Model, data: datasets.Dataset, recipe: Recipe, setting: Row, clock: Clock
) -> Trained:
    """Without a penalty."""
    compile_for(model, recipe, len(data.train))
    fit(model, split(data.train), recipe, callbacks=[clock])
    return model, [(0, kss.profile(model).multiply_adds)], {}


def sparse(
    model: keras.Model, data: datasets.Dataset, recipe: Recipe, setting: Row, clock: Clock
) -> Trained:
    """With a penalty; the network keeps its size."""
    penalize(model, data, recipe, setting)
    fit(model, split(data.train), recipe, callbacks=[clock])
    return model, [(0, kss.profile(model).multiply_adds)], {}


def shrinking(
    model: keras.Model, data: datasets.Dataset, recipe: Recipe, setting: Row, clock: Clock
) -> Trained:
    """With a penalty; the network shrinks."""
    penalize(model, data, recipe, setting)
    when = Shrinking(setting["shrink_every"], setting["always"])
    shrunk = fit_and_shrink(model, split(data.train), recipe, when, callbacks=[clock])
    sizes = [(section.epoch, section.multiply_adds) for section in shrunk.sections]
    more = {
        "step_seconds": [round(section.step, 5) for section in shrunk.sections],
        "cut_seconds": [round(section.cost, 2) for section in shrunk.sections],
        "cut_epochs": [epoch for epoch, _ in sizes[1:]],
    }
    return shrunk.model, sizes, more


HOW: Mapping[str, Callable[[keras.Model, datasets.Dataset, Recipe, Row, Clock], Trained]] = {
    "dense": dense,
    "sparse": sparse,
    "sparse, shrinking": shrinking,
}


def penalize(model: keras.Model, data: datasets.Dataset, recipe: Recipe, setting: Row) -> None:
    regularizer = kss.KernelSize(setting["alpha"], reweight=setting["reweight"])
    compile_for(
        model, recipe, len(data.train), regularizer, "multiply_adds", coupled=setting["coupled"]
    )


def train(job: tuple[Row, argparse.Namespace], clock: Clock) -> Row:
    """One training, with the time of its turns, and what surgery makes of its network."""
    setting, options = job
    data = load(options)
    warm_up(data)
    with clock.running():
        keras.utils.set_random_seed(setting["seed"])
        model = models.build(MODEL)
        whole = kss.profile(model).multiply_adds
        recipe = recipe_of(setting, ramp=setting["ramp"])
        trained, sizes, more = HOW[setting["how"]](model, data, recipe, setting, clock)
    pruned = trained if setting["how"] == "dense" else kss.prune(trained, tau=setting["tau"])
    return {
        "seconds": round(sum(clock.seconds), 1),
        "epoch_seconds": clock.seconds,
        "training_multiply_adds": work(sizes, setting["epochs"], len(data.train)),
        "multiply_adds": kss.profile(pruned).multiply_adds / whole,
        "validation": accuracy(pruned, split(data.validation)),
        "test": accuracy(pruned, split(data.test)),
        **more,
        "machine": machine(),
    }


def work(sizes: Sequence[tuple[int, int]], epochs: int, images: int) -> float:
    """Multiply-adds of a training, from those of the network from some epochs on."""
    starts = [start for start, _ in sizes]
    lengths = np.diff([*starts, epochs])
    return float(PASSES * images * np.dot(lengths, [size for _, size in sizes]))


def settings(options: argparse.Namespace, seed: int) -> list[Row]:
    """The three ways of one seed."""
    names = ("images", "epochs", "batch_size", "rate", "ramp", "alpha", "reweight", "coupled")
    names += ("tau", "weight_decay", "shrink_every", "always")
    common = {name: getattr(options, name) for name in names}
    return [{**common, "how": how, "seed": seed} for how in HOW]


def warm_up(data: datasets.Dataset) -> None:
    """A few steps, so that the first training does not pay for starting the backend."""
    model, few = models.build(MODEL), (data.train.x[:256], data.train.y[:256])
    compile_for(model, Recipe(epochs=1, batch_size=128), 256)
    fit(model, few, Recipe(epochs=1, batch_size=128))


def run(results: Results, options: argparse.Namespace) -> None:
    """All seeds that are missing."""
    for seed in range(options.seeds):
        every = settings(options, seed)
        if list(results.missing(every)):
            jobs = [(setting, options) for setting in every]
            for setting, row in zip(every, take_turns(train, jobs), strict=True):
                results.add({**setting, **row})


def table(results: Results) -> None:
    """Means over the seeds, and time and work over those of the dense training of the seed."""
    print("epochs alpha    training            seconds  / dense  work / dense  multiply-adds  test")
    keys = ("images", "epochs", "alpha", "shrink_every", "always")
    for (_, epochs, alpha, *_), rows in groups(results.rows, *keys).items():
        references = {row["seed"]: row for row in rows if row["how"] == "dense"}
        for (how,), own in groups(rows, "how").items():
            paired = [row for row in own if row["seed"] in references]
            ratios = [
                [row[key] / references[row["seed"]][key] for row in paired]
                for key in ("seconds", "training_multiply_adds")
            ]
            seconds = np.mean([row["seconds"] for row in own])
            left, test = (mean_std(own, key) for key in ("multiply_adds", "test"))
            print(
                f"{epochs:>6} {alpha:<8g} {how:<18} {seconds:>8.0f}  "
                f"{np.mean(ratios[0]):>7.2f} {np.mean(ratios[1]):>13.2f}  "
                f"{left[0]:>7.1f} ± {left[1]:.1f}  {test[0]:.2f} ± {test[1]:.2f}"
            )


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="where fashion_mnist lies or will be built by TFDS")
    parser.add_argument("--images", type=int, default=50_000, help="training images to use")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=125)
    parser.add_argument("--rate", type=float, default=0.1, help="learning rate at the start")
    parser.add_argument("--ramp", type=float, default=0.1, help="share over which alpha rises")
    parser.add_argument("--alpha", type=float, default=2e-2)
    parser.add_argument("--reweight", type=float, default=0.1)
    parser.add_argument("--coupled", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--weight-decay", type=float, default=5e-4, help="of kernels")
    parser.add_argument("--tau", type=float, default=1e-3)
    parser.add_argument("--shrink-every", type=int, default=2)
    parser.add_argument("--always", action="store_true", help="cut where it does not pay, too")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default=str(RESULTS / "training.jsonl"), help="where to write")
    parser.add_argument("--table-only", action="store_true", help="print what the results hold")
    options = parser.parse_args()
    results = Results(type(RESULTS)(options.out))
    if not options.table_only:
        run(results, options)
    table(results)


if __name__ == "__main__":
    main()
