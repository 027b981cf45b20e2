"""Our frontier on the reference network, in plain JSON, beside the points of other tools.

    python benchmarks/frontier.py --data-dir DIR
    python benchmarks/frontier.py --data-dir DIR --choose --seeds 1 --out OUT.json

The residual network for Fashion-MNIST learns for 8 epochs on all 60,000 training images, batch 128,
SGD with momentum 0.9 and a weight decay of the kernels, on a cosine from 0.1. In the first half a
penalty is steered to a target for the multiply-adds (63, 39, 21, 14 and 6 %); then the network is
cut, every kernel to its own size, and goes on on the same cosine, its momentum carried along. Last
it is fine-tuned for 2 epochs on a cosine from 0.02. "At surgery" is the accuracy before the
fine-tuning. Alpha follows the target and tau is fixed, so nothing is chosen on labels. With
--choose 10,000 training images are held out, accuracies are those on them, and the test split is
not looked at. The weight decay was chosen by bases.py, which holds out the same images.

benchmarks/results/frontier.json holds one entry a run; a file of the same form is drawn beside it,
torch_pruning.json unless given. Finished runs are kept in frontier.jsonl and not repeated.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import matplotlib
import numpy as np
from forms import FORMS, TAU
from runs import MODEL, RESULTS, Results, Row, groups, machine, mean_std, split, whole

import keras_structsparse as kss
from keras_structsparse import models
from keras_structsparse.data import datasets
from keras_structsparse.plots.style import BLUE, GREY, ORANGE, STYLE, new_figure, save
from keras_structsparse.training.fit import accuracy, compile_for, fit
from keras_structsparse.training.recipes import Recipe

TARGETS = (0.63, 0.39, 0.21, 0.14, 0.06)
BATCH, RATE, TUNING_RATE, TOLERANCE = 128, 0.1, 0.02, 0.004
REALIZE = "split"
"""What counts here are multiply-adds: every kernel at its own size."""

DENSE = "dense"
BESIDE = Path(__file__).parent / "torch_pruning.json"
TUNED = "accuracy_finetuned"
FIELDS = (
    "multiply_adds_fraction",
    "accuracy_at_surgery",
    TUNED,
    "epochs",
    "seconds",
    "seed",
    "form",
)


def train(setting: Row, data: datasets.Dataset) -> Row:
    """Learn, cut and fine-tune; the time is that of both trainings and of surgery."""
    keras.utils.set_random_seed(setting["seed"])
    learning = Recipe(setting["learning"], BATCH, RATE, weight_decay=setting["decay"])
    tuning = replace(learning, epochs=setting["tuning"], learning_rate=TUNING_RATE)
    start = time.perf_counter()
    model, cut = learn(models.build(MODEL), learning, setting, data)
    took = time.perf_counter() - start
    at_surgery = accuracy(model, split(data.test))
    start = time.perf_counter()
    compile_for(model, tuning, len(data.train))
    fit(model, split(data.train), tuning)
    took += time.perf_counter() - start
    row = {
        "multiply_adds_fraction": kss.profile(model).multiply_adds / whole(),
        "accuracy_at_surgery": at_surgery,
        "accuracy_finetuned": accuracy(model, split(data.test)),
        "epochs": setting["learning"] + setting["tuning"],
        "seconds": round(took, 1),
        **cut,
        "machine": machine(),
    }
    del model
    keras.utils.clear_session()
    gc.collect()
    return row


def learn(
    model: keras.Model, recipe: Recipe, setting: Row, data: datasets.Dataset
) -> tuple[keras.Model, Row]:
    """Train towards the target, cut, go on; the dense network without a penalty."""
    if setting["form"] == DENSE:
        compile_for(model, recipe, len(data.train))
        fit(model, split(data.train), recipe)
        return model, {}
    form = FORMS[setting["form"]]
    regularizer = kss.KernelSize(1e-3, reweight=form.get("reweight", 0.0))
    weights, coupled = form.get("weights", "uniform"), form.get("coupled", False)
    compile_for(model, recipe, len(data.train), regularizer, weights, coupled)
    target = kss.TargetMultiplyAdds(setting["target"], TAU, TOLERANCE, REALIZE)
    search = setting["search"]
    fit(model, split(data.train), replace(recipe, epochs=search), callbacks=[target])
    plan = kss.plan(model, tau=TAU)
    pruned = kss.prune(model, plan, realize=REALIZE)
    both = [accuracy(each, split(data.test)) for each in (model, pruned)]
    kss.carry_optimizer(model, pruned)
    rest: Row = {"initial_epoch": search, "epochs": recipe.epochs, "batch_size": BATCH}
    pruned.fit(*split(data.train), verbose=0, **rest)
    return pruned, {"accuracy_around_the_cut": both, "sizes": counts(plan)}


def counts(plan: kss.Plan) -> dict[str, dict[int, int]]:
    """How many kernels of each size are left in a layer."""
    return {name: dict(sorted(Counter(sizes).items())) for name, sizes in plan.sizes.items()}


def settings(options: argparse.Namespace) -> list[Row]:
    """All runs: a seed's frontier before the next seed, the dense networks last."""
    common = {
        "images": 50_000 if options.choose else 60_000,
        "learning": options.epochs,
        "search": options.search,
        "tuning": options.tuning,
        "decay": options.weight_decay,
    }
    seeds = range(options.seeds)
    ends = [(f, t, seed) for seed in seeds for f in options.forms for t in options.targets]
    ends += [(DENSE, 1.0, seed) for seed in seeds]
    return [{**common, "form": form, "target": target, "seed": seed} for form, target, seed in ends]


def load(options: argparse.Namespace) -> datasets.Dataset:
    """All training images and the test split; or the validation split in its place."""
    data = datasets.load("fashion_mnist", data_dir=options.data_dir, validation=1 / 6, seed=0)
    if options.choose:
        return replace(data, test=data.validation)
    x = np.concatenate([data.train.x, data.validation.x])
    y = np.concatenate([data.train.y, data.validation.y])
    return replace(data, train=datasets.Split(x, y))


def run(results: Results, options: argparse.Namespace) -> None:
    """All runs that are missing."""
    missing = list(results.missing(settings(options)))
    data = load(options) if missing else None
    for setting in missing:
        assert data is not None
        results.add({**setting, **train(setting, data)})


def points(rows: Sequence[Row]) -> list[Row]:
    """What other tools can write as well."""
    return [{field: row[field] for field in FIELDS} for row in rows]


def draw(rows: Sequence[Row], beside: Sequence[Row], path: Path) -> None:
    """Accuracy against multiply-adds: the mean over seeds, and their spread."""
    figure = new_figure(6.0, 4.0)
    axes: Any = figure.add_subplot()
    kinds = (("accuracy_at_surgery", ORANGE, "at surgery"), (TUNED, BLUE, "fine-tuned"))
    for key, colour, label in kinds:
        for number, own in enumerate(curves(rows)):
            means = [mean_std(each, key) for each in own]
            places = [mean_std(each, FIELDS[0])[0] for each in own]
            style = {"color": colour, "fmt": "o-", "capsize": 2, "markersize": 4}
            name = f"{own[0][0]['form']}, {label}"
            y, spread = zip(*means, strict=True)
            axes.errorbar(places, y, spread, label=name, alpha=1 - 0.3 * number, **style)
        others = sorted((p for p in beside if p.get(key) is not None), key=lambda p: p[FIELDS[0]])
        x, y = ([100 * p[field] for p in others] for field in (FIELDS[0], key))
        marker = "s--" if colour == BLUE else "x--"
        if others:
            axes.plot(x, y, marker, color=GREY, markersize=4, label=f"{others[0]['form']}, {label}")
    axes.set_xlabel("multiply-adds (%)")
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(70, 93)
    axes.legend(loc="lower right", fontsize="small")
    save(figure, path)


def curves(rows: Sequence[Row]) -> list[list[list[Row]]]:
    """The rows of every form, by target; each with the dense ones at its end."""
    found = groups(rows, "form", "target")
    dense = [own for (form, _), own in found.items() if form == DENSE]
    forms = dict.fromkeys(form for form, _ in found if form != DENSE)
    return [
        [*(own for (f, _), own in sorted(found.items()) if f == form), *dense] for form in forms
    ]


def table(rows: Sequence[Row]) -> None:
    """The figure's numbers."""
    heads = "".join(f"{head:>15}" for head in ("multiply-adds", "at surgery", "tuned"))
    print(f"decay   {'form':<25} target {heads}  seconds seeds")
    found = groups(sorted(rows, key=lambda row: -row["target"]), "decay", "form", "target")
    for (decay, form, target), own in found.items():
        cells = [mean_std(own, key) for key in FIELDS[:3]]
        numbers = " ".join(f"{mean:>7.2f} ± {std:.2f}" for mean, std in cells)
        seconds = np.mean([row["seconds"] for row in own])
        print(f"{decay:<7g} {form:<25} {target:>6.0%} {numbers} {seconds:>8.0f} {len(own):>5}")


def main() -> None:
    """Run what is missing, then write and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="where fashion_mnist lies or will be built by TFDS")
    parser.add_argument("--choose", action="store_true", help="hold out images to choose by")
    parser.add_argument("--epochs", type=int, default=8, help="of learning")
    parser.add_argument("--search", type=int, default=4, help="of these, the epochs with a penalty")
    parser.add_argument("--tuning", type=int, default=2, help="epochs of fine-tuning")
    parser.add_argument("--weight-decay", type=float, default=5e-4, help="of kernels")
    parser.add_argument("--targets", type=float, nargs="+", default=TARGETS)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=["cost-weighted"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--beside", type=Path, default=BESIDE, help="points of another tool")
    parser.add_argument("--out", type=Path, default=RESULTS / "frontier.json")
    parser.add_argument("--table-only", action="store_true", help="use what the results hold")
    options = parser.parse_args()
    results = Results(options.out.with_suffix(".jsonl"))
    if not options.table_only:
        run(results, options)
    rows = [row for row in results.rows if row["decay"] == options.weight_decay]
    options.out.write_text(json.dumps(points(rows), indent=1) + "\n")
    beside = json.loads(options.beside.read_text())
    with matplotlib.rc_context(STYLE):
        draw(rows, beside, options.out.with_suffix(".png"))
    table(results.rows)


if __name__ == "__main__":
    main()
