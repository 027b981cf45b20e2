"""The solver that knows of batch normalisation against plain sub-gradients, on Fashion-MNIST.

    python benchmarks/solver.py --data-dir DIR

Both train the same residual network from the same start, with the convex KernelSize at five
alphas, for the same number of epochs; then the largest threshold that costs at most two points
on the validation split is applied, the network is cut, and fine-tuned. Results go to
benchmarks/results/solver.jsonl, the figure beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
from runs import (
    MODEL,
    RESULTS,
    Budget,
    Results,
    Row,
    budget,
    finish,
    groups,
    initial_weights,
    load,
    mean_std,
    parser,
    split,
)

import keras_structsparse as kss
from keras_structsparse import models
from keras_structsparse.data import datasets
from keras_structsparse.plots.style import BLACK, BLUE, ORANGE, STYLE, new_figure, save
from keras_structsparse.sweeps.threshold_selection import largest_threshold
from keras_structsparse.training.fit import accuracy, compile_for, fit, restart
from keras_structsparse.training.recipes import Recipe

ALPHAS = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
TAUS = (1e-3, 3e-3, 1e-2, 3e-2, 5e-2, 0.1, 0.15, 0.2, 0.3, 0.5)
MAX_DROP = 0.02

Prepared = tuple[keras.Model, kss.KernelSize | None]


def effective(recipe: Recipe, examples: int) -> Prepared:
    """Penalise the effective kernels and apply exact proximal steps."""
    model, regularizer = models.build(MODEL), kss.KernelSize(ALPHAS[0])
    compile_for(model, recipe, examples, regularizer)
    return model, regularizer


def subgradients(recipe: Recipe, examples: int) -> Prepared:
    """Add the penalty of the kernels themselves to the loss, as any Keras regularizer does."""
    regularizer = kss.KernelSize(ALPHAS[0])

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if isinstance(layer, keras.layers.Conv2D):
            config["kernel_regularizer"] = regularizer
        return type(layer).from_config(config)

    model = keras.models.clone_model(models.build(MODEL), clone_function=copy)
    compile_for(model, recipe, examples)
    return model, regularizer


def dense(recipe: Recipe, examples: int) -> Prepared:
    """No penalty."""
    model = models.build(MODEL)
    compile_for(model, recipe, examples)
    return model, None


METHODS: dict[str, Callable[[Recipe, int], Prepared]] = {
    "dense": dense,
    "effective kernels, proximal": effective,
    "kernels, sub-gradients": subgradients,
}


def train(prepared: Prepared, setting: Row, data: datasets.Dataset, spent: Budget) -> Row:
    """One run from the start that its seed gives."""
    model, regularizer = prepared
    model.set_weights(initial_weights(setting["seed"]))
    restart(model.optimizer)
    if regularizer is not None:
        regularizer.alpha.assign(setting["alpha"])
    fit(model, split(data.train), spent.sparse)
    if regularizer is None:
        return {"multiply_adds": 1.0, "test": accuracy(model, split(data.test))}
    tau, chosen, _ = largest_threshold(model, TAUS, split(data.validation), MAX_DROP)
    return {"tau": tau, **finish(model, chosen, data, spent.tuning)}


def run(path: Path, data: datasets.Dataset, spent: Budget, seeds: int) -> None:
    """All runs that are missing."""
    results = Results(path)
    common = {"images": spent.images, "epochs": spent.sparse.epochs, "tuning": spent.tuning.epochs}
    for method, prepare in METHODS.items():
        alphas = ALPHAS if method != "dense" else (0.0,)
        settings = [
            {**common, "method": method, "alpha": alpha, "seed": seed}
            for seed in range(seeds)
            for alpha in alphas
        ]
        missing = list(results.missing(settings))
        prepared = prepare(spent.sparse, len(data.train)) if missing else None
        for setting in missing:
            assert prepared is not None
            results.add({**setting, **train(prepared, setting, data, spent)})


def draw(path: Path) -> None:
    """Accuracy against multiply-adds, mean and standard deviation over the seeds."""
    found = groups(Results(path).rows, "method", "alpha")
    figure = new_figure(7.0, 4.5)
    axes: Any = figure.add_subplot()
    colours = dict(zip(METHODS, (BLACK, BLUE, ORANGE), strict=True))
    for method, colour in colours.items():
        rows = [values for key, values in found.items() if key[0] == method]
        _draw_method(axes, method, rows, colour)
    axes.set(xlabel="multiply-adds left (%)", ylabel="test accuracy (%)")
    axes.set_title("Fashion-MNIST, KernelSize at five alphas, three seeds")
    axes.legend(loc="lower right")
    save(figure, path.with_suffix(".png"))


def _draw_method(axes: Any, method: str, rows: list[list[Row]], colour: str) -> None:
    keys = ("test",) if method == "dense" else ("test", "test_at_surgery")
    for key, style, label in zip(keys, ("-o", ":s"), ("fine-tuned", "at surgery"), strict=False):
        x = [mean_std(values, "multiply_adds") for values in rows]
        y = [mean_std(values, key) for values in rows]
        axes.errorbar(
            [mean for mean, _ in x],
            [mean for mean, _ in y],
            xerr=[std for _, std in x],
            yerr=[std for _, std in y],
            fmt=style,
            color=colour,
            capsize=2,
            markersize=4,
            label=method if method == "dense" else f"{method}: {label}",
        )


def table(path: Path) -> None:
    """The figure's numbers."""
    print(f"{'method':<28} {'alpha':>7} {'multiply-adds':>15} {'at surgery':>13} {'tuned':>13}")
    for (method, alpha), rows in groups(Results(path).rows, "method", "alpha").items():
        cells = [
            mean_std(rows, key)
            for key in ("multiply_adds", "test_at_surgery", "test")
            if key in rows[0]
        ]
        print(f"{method:<28} {alpha:>7g}", *(f"{mean:>7.2f} ± {std:.2f}" for mean, std in cells))


def main() -> None:
    """Run what is missing, then draw."""
    options = parser(__doc__).parse_args()
    path = RESULTS / "solver.jsonl"
    if not options.plot_only:
        run(path, load(options), budget(options), options.seeds)
    import matplotlib

    with matplotlib.rc_context(STYLE):
        draw(path)
    table(path)


if __name__ == "__main__":
    main()
