"""Pretrained networks and photographs, for the benchmarks that shrink them.

A folder of data holds `imagenette/train` and `imagenette/val` with one folder a class, as in the
public repository thunderInfy/imagenette, and the weights of a network without its head:

- "squeezenet": `squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5`, as in
  DeepCognition/keras-squeezenet. It is SqueezeNet 1.1.
- "mobilenet_v2": `keras_model.h5`, as in 00Ely00/Bot_IA. It is MobileNetV2 0.35.

The photographs are the first 300 and 150 of each class by name, or all of them, at 96x96. 270 of
the 300 are for training and 30 for validation, on which a shrinking may choose; the 150 are the
test, on which nothing is chosen.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np
from keras import layers as L
from runs import Array

SIZE, CLASSES = 96, 10
EPOCHS, BATCH, RATE = 20, 64, 3e-4
"""Of the fine-tuning of the dense network; a shrinking has as many epochs."""
SHRINK_BATCH = 32
"""Of a shrinking, and of the peer: the default of `kss.shrink`."""
EACH, TEST, VALIDATION = 300, 150, 0.1
"""Photographs of a class for training and test; the part of the former that is for validation."""
MEAN = np.array([103.939, 116.779, 123.68], "float32")
"""Of ImageNet, blue first."""
FIRES = (
    *((2, 16, 64), (3, 16, 64), (4, 32, 128), (5, 32, 128)),
    *((6, 48, 192), (7, 48, 192), (8, 64, 256), (9, 64, 256)),
)
"""Number of the module, kernels of its squeezing layer, kernels of each of its expanding ones."""

Pair = tuple[Array, Array]
Parts = Mapping[str, Pair]
"""Photographs and labels by the name of the split: train, validation, test."""


@dataclass(frozen=True)
class Network:
    """A network without its head, and what its weights expect of an image with values 0 to 255."""

    backbone: Callable[[Path], keras.Model]
    preprocess: Callable[[Array], Array]


def squeezenet(folder: Path) -> keras.Model:
    """SqueezeNet 1.1 without its head."""
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
    model = keras.Model(inputs, L.GlobalAveragePooling2D()(x))
    with h5py.File(folder / "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5") as file:
        for layer in model.layers:
            if isinstance(layer, L.Conv2D):
                found = _arrays(file[layer.name.replace("_", "/", 1)])
                layer.set_weights(sorted(found.values(), key=np.ndim, reverse=True))
    return model


def mobilenet_v2(folder: Path) -> keras.Model:
    """MobileNetV2 of width 0.35 without its head."""
    model = keras.applications.MobileNetV2(
        (SIZE, SIZE, 3), alpha=0.35, include_top=False, weights=None, pooling="avg"
    )
    with h5py.File(folder / "keras_model.h5") as file:
        found = _arrays(file["model_weights"])
    for layer in model.layers:
        # By the last word: Keras 2 called the kernel of a depthwise layer depthwise_kernel.
        own = {_word(path): value for path, value in found.items() if f"/{layer.name}/" in path}
        layer.set_weights([own[_word(weight.name)] for weight in layer.weights])
    return model


NETWORKS: Mapping[str, Network] = {
    "squeezenet": Network(squeezenet, lambda x: x[..., ::-1].astype("float32") - MEAN),
    "mobilenet_v2": Network(mobilenet_v2, lambda x: x.astype("float32") / 127.5 - 1),
}


def _word(path: str) -> str:
    return re.split("[/_]", path.removesuffix(":0"))[-1]


def _arrays(group: h5py.Group) -> dict[str, Array]:
    found: dict[str, Array] = {}

    def read(path: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[path] = np.array(item)

    group.visititems(read)
    return found


# --- data ---


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a benchmark of these networks."""
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=["squeezenet"], choices=tuple(NETWORKS))
    parser.add_argument("--shares", type=float, nargs="+", default=(0.6, 0.4, 0.2))
    parser.add_argument("--seeds", type=int, default=3)


def load(folder: Path, network: str, every: bool = False) -> Parts:
    """The photographs, as a network takes them.

    Args:
        folder: The folder of data.
        network: A key of `NETWORKS`.
        every: Whether all photographs for training are used.
    """
    images, labels = photographs(folder / "imagenette" / "train", None if every else EACH)
    held = np.zeros(len(labels), bool)
    for label in range(CLASSES):
        places = np.flatnonzero(labels == label)
        held[places[len(places) - round(VALIDATION * len(places)) :]] = True
    test = photographs(folder / "imagenette" / "val", TEST)
    parts = {
        "train": (images[~held], labels[~held]),
        "validation": (images[held], labels[held]),
        "test": test,
    }
    preprocess = NETWORKS[network].preprocess
    return {name: (preprocess(x), y) for name, (x, y) in parts.items()}


def photographs(folder: Path, each: int | None) -> Pair:
    """The first images of each class by name, with values 0 to 255, and their labels."""
    images, labels = [], []
    for label, directory in enumerate(sorted(folder.iterdir())):
        for path in sorted(directory.iterdir())[:each]:
            image = keras.utils.load_img(path, target_size=(SIZE, SIZE), interpolation="bilinear")
            images.append(np.asarray(image, "uint8"))
            labels.append(label)
    return np.stack(images), np.array(labels)


def dense(parts: Parts, folder: Path, network: str, seed: int, every: bool = False) -> keras.Model:
    """The fine-tuned network of a seed; it is stored beside the data."""
    stored = folder / f"{network}-{'all' if every else EACH * CLASSES}-{seed}.keras"
    if stored.exists():
        return keras.models.load_model(stored)
    keras.utils.set_random_seed(seed)
    backbone = NETWORKS[network].backbone(folder)
    head = L.Dense(CLASSES, activation="softmax", name="head")
    model = keras.Model(backbone.inputs, head(backbone.output))
    steps = -(-len(parts["train"][1]) // BATCH) * EPOCHS
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps)),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(*parts["train"], batch_size=BATCH, epochs=EPOCHS, verbose=2)
    model.save(stored)
    return model


def accuracy(model: keras.Model, part: Pair) -> float:
    """The share of the labels that a compiled model finds."""
    return float(model.evaluate(*part, batch_size=250, verbose=0, return_dict=True)["accuracy"])
