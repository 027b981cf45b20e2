"""The loss before and after every cut of a training that shrinks, on Fashion-MNIST.

    python benchmarks/cuts.py --data-dir DIR

The residual network learns with the penalty of training.py, and is cut after every epoch. At each
cut the mean loss over the validation split, and the largest difference between the two networks'
class probabilities, are printed; as a control, the difference that the largest kernel of the last
convolution makes. The committed table: `--epochs 3 > benchmarks/results/cuts.txt`.
"""

from __future__ import annotations

import argparse
from typing import Any

import keras
import numpy as np
from runs import MODEL, load, machine, split

import keras_structsparse as kss
from keras_structsparse import models
from keras_structsparse.data.datasets import Split
from keras_structsparse.training.fit import compile_for, fit_and_shrink
from keras_structsparse.training.recipes import Recipe, Shrinking


class Cuts(keras.callbacks.Callback):
    """Compares the networks on both sides of every cut."""

    def __init__(self, part: Split) -> None:
        super().__init__()
        self._part, self._before = part, (0.0, np.zeros(1))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """What the network computes before it is cut."""
        self._before = self._measured(self.model)

    def on_shrink(self, model: keras.Model, ancestry: Any) -> None:
        """What it computes after that."""
        (before, old), (after, new) = self._before, self._measured(model)
        broken = keras.models.clone_model(model)
        broken.set_weights(model.get_weights())
        kernel = broken.get_layer("conv7").kernel
        values = keras.ops.convert_to_numpy(kernel).copy()
        values[..., np.abs(values).sum(axis=(0, 1, 2)).argmax()] = 0.0
        kernel.assign(values)
        control, _ = self._measured(broken)
        print(
            f"{kss.profile(model).multiply_adds:>10} {before:.7f} {after:.7f} "
            f"{abs(after - before):.1e} {np.abs(old - new).max():.1e} {abs(control - before):.1e}",
            flush=True,
        )

    def _measured(self, model: keras.Model) -> tuple[float, Any]:
        x, y = split(self._part)
        found = np.asarray(model.predict(x, batch_size=500, verbose=0), np.float64)
        right = np.maximum(found[np.arange(len(y)), y], keras.config.epsilon())
        return float(-np.log(right).mean()), found


def main() -> None:
    """Train, and print a line for every cut."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="where fashion_mnist lies or will be built by TFDS")
    parser.add_argument("--images", type=int, default=50_000, help="training images to use")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--alpha", type=float, default=2e-2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = load(options)
    keras.utils.set_random_seed(options.seed)
    model, recipe = models.build(MODEL), Recipe(options.epochs, 125, 0.1, weight_decay=5e-4)
    regularizer = kss.KernelSize(options.alpha, reweight=0.1)
    compile_for(model, recipe, len(data.train), regularizer, "multiply_adds")
    print(machine())
    print("multiply-adds  loss before and after, their difference, that of outputs; control")
    when = Shrinking(1, always=True)
    fit_and_shrink(model, split(data.train), recipe, when, callbacks=[Cuts(data.validation)])


if __name__ == "__main__":
    main()
