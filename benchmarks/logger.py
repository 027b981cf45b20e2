"""What SparsityLogger costs: its share of the time of an epoch.

    python benchmarks/logger.py > benchmarks/results/logger.txt

Processor time, so that what else the machine does counts little: of an epoch of the residual
network for Fashion-MNIST over some random images, scaled to the 50,000 there are; and of the
logger at the end of an epoch. The median of several of each, in turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from runs import MODEL, machine

import keras_structsparse as kss
from keras_structsparse import models

IMAGES, EPOCH = 1280, 50_000


def seconds(action: Callable[[], Any]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    model = kss.attach(models.build(MODEL), kss.KernelSize(1e-3))
    model.compile(kss.Proximal(keras.optimizers.SGD(0.1)), "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x = rng.random((IMAGES, *model.input_shape[1:]), "float32")
    y = rng.integers(0, model.output_shape[-1], IMAGES)
    logger = kss.SparsityLogger()
    logger.set_model(model)
    logger.on_train_begin()
    actions = {
        "epoch": lambda: model.fit(x, y, batch_size=64, verbose=0),
        "logger": lambda: logger.on_epoch_end(0, {}),
    }
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds + 1):
        for name, action in actions.items():
            times[name].append(seconds(action))
    epoch, logged = (float(np.median(times[name][1:])) for name in actions)
    epoch *= EPOCH / IMAGES
    print(f"{machine()}, {MODEL}, {rounds} rounds, seconds of processor time")
    print(f"an epoch of {EPOCH:,} images {epoch:.1f}, the logger {logged:.3f}")
    print(f"share of the epoch: {logged / epoch:.2%}")


if __name__ == "__main__":
    main()
