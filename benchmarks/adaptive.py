"""What penalties that are measured on a trained network change, beside `kss.shrink`.

    python benchmarks/adaptive.py

A network without normalization is trained on scikit-learn's digits. Then it has EPOCHS epochs to
lose a share of its multiply-adds: with `TargetMultiplyAdds` and a penalty for three quarters of
them, without one for the others; or with `kss.shrink`. The penalties are `KernelSize` with
`weights="multiply_adds"`,

- "plain": and nothing more;
- "scale-free": `attach(scale_free=True)`;
- "saliency": `attach(saliency=kss.saliency(model, train))`;
- "both";
- "both, taught": with the unpruned network as teacher (0.9 of the loss) too.

Each takes the learning rate of Adam that is best on the validation data, per seed. The table shows
the accuracy on the test split. Finished runs are kept in benchmarks/results/adaptive.jsonl.
"""

from __future__ import annotations

import argparse
from typing import Any

import keras
from keras import layers as L
from runs import RESULTS, Results, Row, groups, machine, mean_std, split

import keras_structsparse as kss
from keras_structsparse.data import datasets
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.training.distilling import Distilling
from keras_structsparse.training.fit import accuracy

SHARES, SEEDS, RATES = (0.4, 0.2), 3, (1e-3, 4e-3)
EPOCHS, PENALIZED, BATCH = 20, 15, 32
LOSS = "sparse_categorical_crossentropy"
OPTIONS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "scale-free": ("scale_free",),
    "saliency": ("saliency",),
    "both": ("scale_free", "saliency"),
    "both, taught": ("scale_free", "saliency", "taught"),
    "shrink": (),
}
TAUGHT = 0.9
ALPHA = 1e-2


def network(data: datasets.Dataset, seed: int) -> keras.Model:
    """Three convolutions, trained for 40 epochs."""
    keras.utils.set_random_seed(seed)
    inputs = x = keras.Input((8, 8, 1))
    for number in range(3):
        x = L.Conv2D(32, 5, padding="same", activation="relu", name=f"conv{number}")(x)
    x = L.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, L.Dense(10, activation="softmax")(x))
    model.compile("adam", LOSS, metrics=["accuracy"])
    model.fit(*split(data.train), batch_size=BATCH, epochs=40, verbose=0)
    return model


def penalized(model: keras.Model, data: datasets.Dataset, setting: Row, rate: float) -> keras.Model:
    """The network after a path of penalties, pruned and tuned."""
    chosen = OPTIONS[setting["penalty"]]
    teacher, student = copy_model(model), copy_model(model)
    given: dict[str, Any] = {}
    if "saliency" in chosen:
        given["saliency"] = kss.saliency(model, split(data.train))
    scale_free = "scale_free" in chosen
    regularizer = kss.KernelSize(ALPHA)
    kss.attach(student, regularizer, weights="multiply_adds", scale_free=scale_free, **given)
    steps = len(data.train) // BATCH

    def fit(network: keras.Model, optimizer: Any, epochs: int, *callbacks: Any) -> None:
        trained = Distilling(network, teacher, TAUGHT) if "taught" in chosen else network
        trained.compile(optimizer, LOSS, metrics=["accuracy"])
        trained.fit(
            *split(data.train), batch_size=BATCH, epochs=epochs, callbacks=callbacks, verbose=0
        )

    adam = keras.optimizers.Adam(rate)
    target = kss.TargetMultiplyAdds(setting["share"], realize="split")
    fit(student, kss.Proximal(adam), PENALIZED, target)
    pruned = kss.prune(student, tau=1e-3, realize="split")
    falling = keras.optimizers.schedules.CosineDecay(rate, (EPOCHS - PENALIZED) * steps)
    fit(pruned, keras.optimizers.Adam(falling), EPOCHS - PENALIZED)
    return pruned


def run(model: keras.Model, data: datasets.Dataset, setting: Row) -> Row:
    """One penalty with the better learning rate, or one call of shrink."""
    keras.utils.set_random_seed(setting["seed"])
    if setting["penalty"] == "shrink":
        result = kss.shrink(
            model,
            split(data.train),
            split(data.validation),
            multiply_adds=setting["share"],
            epochs=EPOCHS,
            batch_size=BATCH,
        )
        made = {0.0: result.model}
    else:
        made = {rate: penalized(model, data, setting, rate) for rate in RATES}
    validation = {rate: accuracy(own, split(data.validation)) for rate, own in made.items()}
    best = max(validation, key=lambda rate: validation[rate])
    return {
        "rate": best,
        "left": kss.profile(made[best]).multiply_adds / kss.profile(model).multiply_adds,
        "dense": accuracy(model, split(data.test)),
        "test": accuracy(made[best], split(data.test)),
        "machine": machine(),
    }


def table(results: Results) -> str:
    """Mean and standard deviation over the seeds."""
    text = f"digits, {EPOCHS} epochs: {machine()}\n\n"
    text += f"{'penalty':<14}{'share':>7}{'left':>7}{'dense':>7}{'test':>14}\n"
    for (share, penalty), rows in groups(results.rows, "share", "penalty").items():
        left, dense = (100 * sum(r[k] for r in rows) / len(rows) for k in ("left", "dense"))
        test = "{:.1f} ± {:.1f}".format(*mean_std(rows, "test"))
        text += f"{penalty:<14}{100 * share:>7.0f}{left:>7.1f}{dense:>7.1f}{test:>14}\n"
    return text


def main() -> None:
    """Run what is missing, then write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    results = Results(RESULTS / "adaptive.jsonl")
    data = datasets.load("digits")
    for seed in range(SEEDS):
        settings = [
            {"penalty": penalty, "share": share, "seed": seed}
            for share in SHARES
            for penalty in OPTIONS
        ]
        missing = list(results.missing(settings))
        model = network(data, seed) if missing else None
        for setting in missing:
            assert model is not None
            results.add({**setting, **run(model, data, setting)})
    text = table(results)
    (RESULTS / "adaptive.txt").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
