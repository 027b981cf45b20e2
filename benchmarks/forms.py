"""Which form of the penalty loses least accuracy at equal multiply-adds, on Fashion-MNIST.

    python benchmarks/forms.py --data-dir DIR

Each run trains the residual network from the start of its seed with one form of KernelSize and a
target for the multiply-adds (39 % and 21 %), cuts it and fine-tunes it; all with the same number of
epochs. Nothing is chosen on the validation or the test split. Results go to
benchmarks/results/forms.jsonl, the figure beside it; finished runs are not repeated.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
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
    machine,
    mean_std,
    parser,
    split,
)

import keras_structsparse as kss
from keras_structsparse import models
from keras_structsparse.data import datasets
from keras_structsparse.plots.style import BLUE, ORANGE, STYLE, new_figure, save
from keras_structsparse.training.fit import fit

TARGETS = (0.39, 0.21)
TAU = 1e-3
EPS = 0.1

COST: Row = {"weights": "multiply_adds"}
REWEIGHTED: Row = {"reweight": EPS}
COUPLED: Row = {"coupled": True}
FORMS: dict[str, Row] = {
    "uniform": {},
    "cost-weighted": COST,
    "reweighted": REWEIGHTED,
    "coupled": COUPLED,
    "cost-weighted, reweighted": COST | REWEIGHTED,
    "all three": COST | REWEIGHTED | COUPLED,
}


def train(setting: Row, data: datasets.Dataset, spent: Budget) -> Row:
    """One training with a target, surgery and fine-tuning."""
    form = FORMS[setting["form"]]
    model = models.build(MODEL)
    model.set_weights(initial_weights(setting["seed"]))
    regularizer = kss.KernelSize(1e-3, reweight=form.get("reweight", 0.0))
    kss.attach(
        model,
        regularizer,
        weights=form.get("weights", "uniform"),
        coupled=form.get("coupled", False),
    )
    optimizer = kss.Proximal(spent.sparse.sgd(len(data.train)))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    target = kss.TargetMultiplyAdds(setting["target"], tau=TAU)
    start = time.perf_counter()
    fit(model, split(data.train), spent.sparse, callbacks=[target])
    seconds = time.perf_counter() - start
    # As the target counts: with the windows that prune chooses by itself.
    row = finish(model, kss.plan(model, TAU), data, spent.tuning, realize="auto")
    return {**row, "threshold": target.threshold, "seconds": round(seconds), "machine": machine()}


def run(path: Path, data: datasets.Dataset, spent: Budget, seeds: int) -> None:
    """All runs that are missing."""
    results = Results(path)
    common = {"images": spent.images, "epochs": spent.sparse.epochs, "tuning": spent.tuning.epochs}
    settings = [
        {**common, "form": form, "target": target, "seed": seed}
        for seed in range(seeds)
        for target in TARGETS
        for form in FORMS
    ]
    for setting in results.missing(settings):
        results.add({**setting, **train(setting, data, spent)})


def draw(path: Path) -> None:
    """Accuracy of every form at every target, mean and standard deviation over the seeds."""
    found = groups(Results(path).rows, "target", "form")
    figure = new_figure(7.0, 4.0)
    for place, target in enumerate(TARGETS):
        axes: Any = figure.add_subplot(1, len(TARGETS), place + 1)
        names = [form for form in FORMS if (target, form) in found]
        rows = [found[target, form] for form in names]
        for key, colour, label, shift in (
            ("test_at_surgery", ORANGE, "at surgery", 0.12),
            ("test", BLUE, "fine-tuned", -0.12),
        ):
            values = [mean_std(each, key) for each in rows]
            axes.errorbar(
                [mean for mean, _ in values],
                np.arange(len(names)) + shift,
                xerr=[std for _, std in values],
                fmt="o",
                color=colour,
                capsize=2,
                markersize=4,
                label=label,
            )
        axes.set_yticks(range(len(names)), names if place == 0 else [""] * len(names))
        axes.invert_yaxis()
        axes.set_title(f"{target:.0%} of the multiply-adds")
        axes.set_xlabel("test accuracy (%)")
    axes.legend(loc="lower left")
    save(figure, path.with_suffix(".png"))


def table(path: Path) -> None:
    """The figure's numbers."""
    print(
        f"{'target':>6} {'form':<26} {'multiply-adds':>14} {'at surgery':>13} {'tuned':>13} seeds"
    )
    for (target, form), rows in groups(Results(path).rows, "target", "form").items():
        cells = [mean_std(rows, k) for k in ("multiply_adds", "test_at_surgery", "test")]
        numbers = " ".join(f"{mean:>7.2f} ± {std:.2f}" for mean, std in cells)
        print(f"{target:>6.0%} {form:<26} {numbers} {len(rows):>5}")


def main() -> None:
    """Run what is missing, then draw."""
    options = parser(__doc__).parse_args()
    path = RESULTS / "forms.jsonl"
    if not options.plot_only:
        run(path, load(options), budget(options), options.seeds)
    import matplotlib

    with matplotlib.rc_context(STYLE):
        draw(path)
    table(path)


if __name__ == "__main__":
    main()
