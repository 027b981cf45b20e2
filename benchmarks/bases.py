"""What bases of few multiply-adds learn by themselves, without a penalty, on Fashion-MNIST.

    KERAS_BACKEND=jax python benchmarks/bases.py --data-dir DIR

Networks of the reference network's shape with fewer, or smaller, kernels, trained from the
beginning with several weight decays for the budget of frontier.py, 8 + 2 epochs: a sweep has to
find something better than these. Accuracies are those on 10,000 held-out training images; the test
split is not looked at. Results go to benchmarks/results/bases.jsonl, their table to bases.txt;
finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence

import keras
from runs import MODEL, RESULTS, Results, Row, groups, load, machine, mean_std, split, whole

import keras_structsparse as kss
from keras_structsparse import models
from keras_structsparse.data import datasets
from keras_structsparse.training.fit import accuracy, compile_for, fit
from keras_structsparse.training.recipes import Recipe

BATCH = 128
LEARNING = {"epochs": 8, "learning_rate": 0.1}
TUNING = {"epochs": 2, "learning_rate": 0.02}
RUNS = {
    MODEL: (0.0,),
    "(16,3,2),(16,3)x2,(16,3,2),(16,3)x3": (0.0,),
    "(10,5,2),(10,5)x2,(10,5,2),(10,5)x3": (0.0,),
    "(8,3,2),(8,3)x2,(16,3,2),(16,3)x3": (0.0, 1e-4, 5e-4),
}
"""Weight decays to try, by network."""


def train(setting: Row, data: datasets.Dataset) -> Row:
    """Both trainings of one network."""
    keras.utils.set_random_seed(setting["seed"])
    model = models.build(setting["base"], data.shape, data.classes)
    row: Row = {"share": kss.profile(model).multiply_adds / whole()}
    for name, numbers in (("learned", LEARNING), ("tuned", TUNING)):
        recipe = Recipe(batch_size=BATCH, weight_decay=setting["decay"], **numbers)
        compile_for(model, recipe, len(data.train))
        fit(model, split(data.train), recipe)
        row[name] = accuracy(model, split(data.validation))
    del model
    keras.utils.clear_session()
    gc.collect()
    return {**row, "machine": machine()}


def table(rows: Sequence[Row]) -> str:
    """Mean and standard deviation over the seeds."""
    text = f"{'base':<38} multiply-adds  decay   after 8 epochs  after 8 + 2  seeds\n"
    for (base, decay), own in groups(rows, "base", "decay").items():
        cells = [mean_std(own, key) for key in ("learned", "tuned")]
        numbers = "   ".join(f"{mean:.2f} ± {std:.2f}" for mean, std in cells)
        text += f"{base:<38} {own[0]['share']:>12.1%}  {decay:<6g}  {numbers}  {len(own):>4}\n"
    return text


def main() -> None:
    """Train what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", help="where fashion_mnist lies or will be built by TFDS")
    parser.add_argument("--images", type=int, default=50_000, help="training images to use")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--table-only", action="store_true", help="use what the results hold")
    options = parser.parse_args()
    results = Results(RESULTS / "bases.jsonl")
    settings = [
        {"images": options.images, "base": base, "decay": decay, "seed": seed}
        for seed in range(options.seeds)
        for base, decays in RUNS.items()
        for decay in decays
    ]
    missing = [] if options.table_only else list(results.missing(settings))
    data = load(options) if missing else None
    for setting in missing:
        assert data is not None
        results.add({**setting, **train(setting, data)})
    results.path.with_suffix(".txt").write_text(table(results.rows))
    print(table(results.rows), end="")


if __name__ == "__main__":
    main()
