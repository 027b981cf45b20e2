"""What a path of eight alphas costs, against training the whole network once, on Fashion-MNIST.

    export KERAS_BACKEND=jax
    python benchmarks/path.py --data-dir DIR                # the dense training and the path
    python benchmarks/path.py --data-dir DIR --independent  # and every alpha from the beginning
    python benchmarks/path.py --data-dir DIR --path-epochs 6 --path-rate 0.1  # a longer path

On the path each alpha starts from the network that the one before has left, cut to its size. All
networks with a penalty are cut further while they are trained, those by themselves too. The
trainings take turns, an epoch each (turns.py), so that a machine that gets slower does so for all.
Every network is fine-tuned without penalty after it was cut. Seconds hold tracing, compiling, cuts
and fine-tuning, not the evaluation. The work of a training is 3 x the multiply-adds of every image
that is seen, for the network as it was then.
Results go to benchmarks/results/path.jsonl, the two frontiers to path.png; finished runs are not
repeated. Thresholds are chosen on the validation split; the figure shows the test split.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import matplotlib
import numpy as np
from runs import MODEL, RESULTS, Results, Row, best_within, load, machine, recipe_of
from training import PASSES, warm_up
from turns import Clock, take_turns

import keras_structsparse as kss
from keras_structsparse import models
from keras_structsparse.plots.style import BLACK, BLUE, GREY, ORANGE, STYLE, new_figure, save
from keras_structsparse.sweeps import Settings, Trial
from keras_structsparse.sweeps.points import Point
from keras_structsparse.sweeps.trial import TrainedNetwork, evaluate, train, without_zeros
from keras_structsparse.training.penalty_config import PenaltyConfig

ALPHAS = [float(alpha) for alpha in np.geomspace(3e-3, 2e-2, 8).round(5)]
TAUS = [1e-3]
DENSE, PATH, INDEPENDENT = "dense", "path", "independent"
NAMES = (
    *("images", "epochs", "path_epochs", "alphas", "taus", "batch_size", "rate", "path_rate"),
    *("tuning_epochs", "tuning_rate", "regularizer", "realize", "reweight", "weight_decay"),
    "shrink_every",
)
"""The options that a row's results depend on."""
COLOURS = {INDEPENDENT: ORANGE, DENSE: GREY}
PATH_COLOURS = (BLUE, BLACK)


class Counted(keras.callbacks.Callback):
    """Lets a clock run while a network is fitted, where evaluations come before and after.

    Args:
        clock: The clock, which stands still.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock, self._stack = clock, ExitStack()

    def on_train_begin(self, logs: Any = None) -> None:
        """Start the clock."""
        self._stack.enter_context(self._clock.running())

    def on_train_end(self, logs: Any = None) -> None:
        """Stop it."""
        self._stack.close()


class Work(keras.callbacks.Callback):
    """Adds up the multiply-adds of a training, epoch by epoch, for the network as it is."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images, self.done = images, 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Count one epoch."""
        self.done += PASSES * self.images * kss.profile(self.model).multiply_adds


def run(job: tuple[Row, argparse.Namespace], clock: Clock) -> Row:
    """One dense training, one path, or the trainings of all alphas one by one."""
    setting, options = job
    data = load(options)
    warm_up(data)
    how, wanted = setting["how"], settings(setting)
    work, points = Work(len(data.train)), []
    start: TrainedNetwork | None = None
    for alpha in (0.0,) if how == DENSE else wanted.alphas:
        trial, build = Trial(alpha, setting["seed"]), partial(models.build, MODEL)
        with clock.running():
            trained = train(
                build, data, wanted, trial, lambda name, epochs: [work, clock], start=start
            )
            start = without_zeros(trained) if how == PATH else None
        evaluated = evaluate(
            trained, data, wanted, trial, lambda name, epochs: [work, Counted(clock), clock]
        )
        points += [shown(point) for point, _ in evaluated]
        keras.utils.clear_session()
        gc.collect()
        if how == PATH and start is None:
            break
    return {
        "seconds": round(sum(clock.seconds), 1),
        "training_multiply_adds": work.done,
        "points": points,
        "machine": machine(),
    }


def shown(point: Point) -> Row:
    """What a point is drawn and chosen by."""
    names = ("alpha", "tau", "multiply_adds_fraction", "validation_finetuned", "accuracy_finetuned")
    return {name: getattr(point, name) for name in names}


def settings(setting: Row) -> Settings:
    """What the library is to do."""
    recipe = recipe_of(setting)
    later, tuning = (
        replace(recipe, epochs=setting[epochs], learning_rate=setting[rate], ramp=0.0)
        for epochs, rate in (("path_epochs", "path_rate"), ("tuning_epochs", "tuning_rate"))
    )
    return Settings(
        model=MODEL,
        dataset="fashion_mnist",
        alphas=tuple(setting["alphas"]),
        taus=tuple(setting["taus"]),
        form=PenaltyConfig(
            setting["regularizer"], weights="multiply_adds", reweight=setting["reweight"]
        ),
        recipe=recipe,
        path=later if setting["how"] == PATH else None,
        tuning=tuning,
        realize=setting["realize"],
        shrink_every=setting["shrink_every"],
    )


def frontier(points: Sequence[Row]) -> list[Row]:
    """The points that no other beats on the validation split, by multiply-adds."""
    best: list[Row] = []
    order = ("multiply_adds_fraction", "validation_finetuned")
    for point in sorted(points, key=lambda p: (p[order[0]], -p[order[1]])):
        if not best or point[order[1]] > best[-1][order[1]]:
            best.append(point)
    return best


def label(row: Row) -> str:
    """What a row is called in the table and the figure."""
    epochs = row["path_epochs"]
    return f"path, {epochs} epochs each" if row["how"] == PATH else str(row["how"])


def draw(rows: Sequence[Row], path: Path) -> None:
    """The frontier of every kind of training and seed."""
    figure = new_figure(6.0, 4.0)
    axes: Any = figure.add_subplot()
    paths = sorted({(row["path_epochs"], label(row)) for row in rows if row["how"] == PATH})
    colours = dict(zip((name for _, name in paths), PATH_COLOURS, strict=False)) | COLOURS
    kinds = {(row["seed"], label(row)): row for row in rows}
    for (seed, name), row in sorted(kinds.items()):
        points = frontier(row["points"])
        x, y = (
            [100 * point[key] for point in points]
            for key in ("multiply_adds_fraction", "accuracy_finetuned")
        )
        axes.semilogx(x, y, "o-", color=colours[name], ms=3, label=None if seed else name)
    axes.set_xticks([5, 10, 20, 50, 100], labels=["5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.set_xlabel("multiply-adds (%)")
    axes.set_ylabel("test accuracy (%)")
    axes.legend(loc="lower right")
    save(figure, path)


def table(rows: Sequence[Row]) -> None:
    """Seconds and work over those of the dense training that took turns, and of the frontier."""

    def turns(row: Row) -> tuple[Any, ...]:
        return tuple(str(row[name]) for name in (*NAMES, "seed"))

    dense = {turns(row): row for row in rows if row["how"] == DENSE}
    print(
        "training              seed  seconds  / dense  work / dense  accuracy within 20, 15, 10 %"
    )
    for row in rows:
        if turns(row) not in dense:
            continue
        keys = ("seconds", "training_multiply_adds")
        seconds, work = (row[key] / dense[turns(row)][key] for key in keys)
        best = [below(row["points"], share) for share in (0.2, 0.15, 0.1)]
        ratios = f"{row['seconds']:>8.0f} {seconds:>8.2f} {work:>13.2f}"
        print(f"{label(row):<20} {row['seed']:>5} {ratios}  {'  '.join(best)}")


def below(points: Sequence[Row], share: float) -> str:
    """The test accuracy of the point that is best on the validation split, among small ones."""
    best = best_within(points, share)
    return "    -" if best is None else f"{100 * best['accuracy_finetuned']:.2f}"


def main() -> None:
    """Run what is missing, then draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="where fashion_mnist lies or will be built by TFDS")
    parser.add_argument("--images", type=int, default=50_000, help="training images to use")
    parser.add_argument(
        "--epochs", type=int, default=24, help="of the dense and the first training"
    )
    parser.add_argument("--path-epochs", type=int, default=2, help="of every alpha but the first")
    parser.add_argument("--tuning-epochs", type=int, default=1, help="after every cut")
    parser.add_argument("--regularizer", default="kernel-size")
    parser.add_argument("--realize", default="split", help="layers of several kernel sizes")
    parser.add_argument("--alphas", type=float, nargs="+", default=ALPHAS)
    parser.add_argument("--taus", type=float, nargs="+", default=TAUS)
    parser.add_argument("--batch-size", type=int, default=125)
    parser.add_argument("--rate", type=float, default=0.1, help="learning rate at the start")
    parser.add_argument("--path-rate", type=float, default=0.05, help="that of a later alpha")
    parser.add_argument("--tuning-rate", type=float, default=0.02, help="that of fine-tuning")
    parser.add_argument("--reweight", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=5e-4, help="of kernels")
    parser.add_argument("--shrink-every", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--independent", action="store_true", help="each alpha by itself, too")
    parser.add_argument("--out", type=Path, default=RESULTS / "path.jsonl", help="where to write")
    parser.add_argument("--table-only", action="store_true", help="use what the results hold")
    options = parser.parse_args()
    results = Results(options.out)
    if not options.table_only:
        common = {name: getattr(options, name) for name in NAMES}
        hows = (DENSE, PATH, INDEPENDENT)[: 3 if options.independent else 2]
        every = [{**common, "how": how, "seed": s} for s in range(options.seeds) for how in hows]
        missing = list(results.missing(every))
        jobs = [(setting, options) for setting in missing]
        for setting, row in zip(missing, take_turns(run, jobs), strict=True):
            results.add({**setting, **row})
    with matplotlib.rc_context(STYLE):
        draw(results.rows, options.out.with_suffix(".png"))
    table(results.rows)


if __name__ == "__main__":
    main()
