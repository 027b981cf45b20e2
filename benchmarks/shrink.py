"""kss.shrink on a pretrained SqueezeNet and real photographs: what the budgets cost.

    python benchmarks/shrink.py --data-dir DIR
    python benchmarks/shrink.py --data-dir DIR --all     # all photographs, one seed

DIR holds `imagenette/train` and `imagenette/val` with one folder a class, as in the public
repository thunderInfy/imagenette, and `squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5`, as
in DeepCognition/keras-squeezenet. The photographs are the first 300 and 150 of each class by name,
at 96x96. The network gets a dense head and is fine-tuned for 20 epochs; then `kss.shrink` with its
default settings has 20 epochs in all. The accuracy is that of the 1,500 photographs, on which
nothing is chosen. Finished runs are kept in benchmarks/results/shrink.jsonl.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import h5py
import keras
import numpy as np
from keras import layers as L
from runs import RESULTS, Array, Results, Row, groups, machine

import keras_structsparse as kss

SIZE, CLASSES = 96, 10
MEAN = np.array([103.939, 116.779, 123.68], "float32")
"""Of ImageNet, blue first; the weights expect it to be subtracted."""
WEIGHTS = "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"
FIRES = (
    *((2, 16, 64), (3, 16, 64), (4, 32, 128), (5, 32, 128)),
    *((6, 48, 192), (7, 48, 192), (8, 64, 256), (9, 64, 256)),
)
"""Number of the module, kernels of its squeezing layer, kernels of each of its expanding ones."""
SHARES = (0.6, 0.4, 0.2)
EPOCHS, BATCH, RATE = 20, 64, 3e-4
LINE = "{share:>7} {left:>7} {dense:>7} {after:>7} {drop:>7} {worst:>7} {seconds:>9}\n"


def photographs(folder: Path, each: int | None) -> tuple[Array, Array]:
    """The first images of each class by name, as the network takes them, and their labels."""
    images, labels = [], []
    for label, directory in enumerate(sorted(folder.iterdir())):
        for path in sorted(directory.iterdir())[:each]:
            image = keras.utils.load_img(path, target_size=(SIZE, SIZE), interpolation="bilinear")
            images.append(np.asarray(image, "uint8"))
            labels.append(label)
    return np.stack(images)[..., ::-1].astype("float32") - MEAN, np.array(labels)


def squeezenet(weights: Path) -> keras.Model:
    """SqueezeNet 1.1 with the pretrained weights and a dense head."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = L.Conv2D(64, 3, strides=2, activation="relu", name="conv1")(inputs)
    x = L.MaxPooling2D(3, 2)(x)
    for number, squeezed, expanded in FIRES:
        x = L.Conv2D(squeezed, 1, activation="relu", name=f"fire{number}_squeeze1x1")(x)
        one = L.Conv2D(expanded, 1, activation="relu", name=f"fire{number}_expand1x1")(x)
        three = L.Conv2D(
            expanded, 3, padding="same", activation="relu", name=f"fire{number}_expand3x3"
        )(x)
        x = L.Concatenate()([one, three])
        x = L.MaxPooling2D(3, 2)(x) if number in (3, 5) else x
    x = L.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, L.Dense(CLASSES, activation="softmax", name="head")(x))
    with h5py.File(weights) as file:
        for layer in model.layers:
            if isinstance(layer, L.Conv2D):
                found: list[Array] = []
                group = file[layer.name.replace("_", "/", 1)]
                group.visititems(lambda _, item, to=found: _read(item, to))
                layer.set_weights(sorted(found, key=np.ndim, reverse=True))
    return model


def _read(item: object, to: list[Array]) -> None:
    if isinstance(item, h5py.Dataset):
        to.append(np.array(item))


def dense(data: Row, folder: Path, seed: int, name: str) -> keras.Model:
    """The fine-tuned network of a seed; it is stored beside the data."""
    stored = folder / f"{name}-{seed}.keras"
    if stored.exists():
        return keras.models.load_model(stored)
    keras.utils.set_random_seed(seed)
    model = squeezenet(folder / WEIGHTS)
    steps = -(-len(data["train"][1]) // BATCH) * EPOCHS
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps)),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(*data["train"], batch_size=BATCH, epochs=EPOCHS, verbose=2)
    model.save(stored)
    return model


def run(setting: Row, data: Row, folder: Path) -> Row:
    """One call of shrink."""
    model = dense(data, folder, setting["seed"], setting["photographs"])
    keras.utils.set_random_seed(setting["seed"])
    start = time.perf_counter()
    result = kss.shrink(
        model,
        data["train"],
        data["validation"],
        multiply_adds=setting["share"],
        epochs=EPOCHS,
        batch_size=BATCH,
    )
    return {
        **setting,
        "left": result.comparison.multiply_adds_fraction,
        "dense": result.before["accuracy"],
        "after": result.after["accuracy"],
        "seconds": round(time.perf_counter() - start),
        "history": [round(value, 4) for value in result.history["val_accuracy"]],
    }


def table(rows: Sequence[Row]) -> str:
    """Mean over the seeds, in per cent; the worst drop of a seed."""
    text = f"kss.shrink, default settings, {EPOCHS} epochs: {machine()}\n"
    for (name,), own in groups(rows, "photographs").items():
        names = ("share", "left", "dense", "after", "drop", "worst", "seconds")
        text += f"\nSqueezeNet on Imagenette, {name} photographs\n"
        text += LINE.format(**{key: key for key in names})
        for (share,), found in sorted(groups(own, "share").items(), reverse=True):
            drops = [100 * (row["dense"] - row["after"]) for row in found]
            means = {k: statistics.fmean(100 * r[k] for r in found) for k in names[1:4]}
            text += LINE.format(
                share=f"{100 * share:.0f}",
                **{key: f"{value:.1f}" for key, value in means.items()},
                drop=f"{statistics.fmean(drops):.1f}",
                worst=f"{max(drops):.1f}",
                seconds=round(statistics.median(row["seconds"] for row in found)),
            )
    return text


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="all photographs, one seed")
    options = parser.parse_args()
    results = Results(RESULTS / "shrink.jsonl")
    name, seeds = ("all", 1) if options.all else ("3,000", options.seeds)
    settings = [
        {"photographs": name, "share": share, "seed": seed}
        for seed in range(seeds)
        for share in options.shares
    ]
    missing = list(results.missing(settings))
    if missing:
        folder = options.data_dir / "imagenette"
        parts = {"train": None if options.all else 300, "val": 150}
        train, validation = (photographs(folder / part, each) for part, each in parts.items())
        data = {"train": train, "validation": validation}
        for setting in missing:
            results.add(run(setting, data, options.data_dir))
    text = table(results.rows)
    (RESULTS / "shrink.txt").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
