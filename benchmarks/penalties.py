"""What the penalties cost beside plain L2: in a training step, and alone.

    python benchmarks/penalties.py > benchmarks/results/penalties.txt

The contenders run in turns in one process, compiled: the ratios to L2 are taken round by round, and
their median and quartiles printed, so that a load on the machine that comes and goes cancels out.

- A training step of ResNet-20 (widths 16, 32, 64; images 32x32x3; batch 128) with SGD and momentum.
- The value of the penalty and its gradient for five kernels of 5x5x256x256.
- Seconds to trace the first training step.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as L

import keras_structsparse as kss

Tensor = Any
Contenders = Mapping[str, Callable[[], Any]]

BATCH = 128
SAME = {"padding": "same", "use_bias": False}


def resnet20(regularizer: Any = None) -> keras.Model:
    """Three stages of three blocks, as for CIFAR-10."""

    def convolution(x: Tensor, width: int, side: int = 3, stride: int = 1) -> Tensor:
        conv = L.Conv2D(width, side, stride, kernel_regularizer=regularizer, **SAME)
        return L.BatchNormalization()(conv(x))

    inputs = keras.Input((32, 32, 3))
    x = L.ReLU()(convolution(inputs, 16))
    for stage, width in enumerate((16, 32, 64)):
        for block in range(3):
            stride = 2 if stage and not block else 1
            y = L.ReLU()(convolution(x, width, 3, stride))
            x = x if stride == 1 else convolution(x, width, 1, stride)
            x = L.ReLU()(L.Add()([x, convolution(y, width)]))
    return keras.Model(inputs, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


def sgd() -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(0.01, momentum=0.9)


def attached(regularizer: Any, coupled: bool = False) -> tuple[keras.Model, Any]:
    model = kss.attach(resnet20(), regularizer, coupled=coupled)
    return model, kss.Proximal(sgd())


NETWORKS: dict[str, Callable[[], tuple[keras.Model, Any]]] = {
    "L2": lambda: (resnet20(keras.regularizers.L2(1e-4)), sgd()),
    "KernelCount + Proximal": lambda: attached(kss.KernelCount(1e-5)),
    "KernelSize + Proximal": lambda: attached(kss.KernelSize(1e-5)),
    "KernelSize coupled + Proximal": lambda: attached(kss.KernelSize(1e-5), coupled=True),
    "MultiplyAdds + Proximal": lambda: attached(kss.MultiplyAdds(1e-12)),
}


def steps(names: list[str]) -> tuple[Contenders, dict[str, float]]:
    """A training step of every network, and the seconds until its first one is done."""
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(BATCH, 32, 32, 3)).astype("float32"))
    y = tf.constant(rng.integers(0, 10, BATCH))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found, first = {}, {}
    for name in names:
        model, optimizer = NETWORKS[name]()
        model.compile(optimizer, loss, jit_compile=False)
        start = time.perf_counter()
        model.train_on_batch(x, y)
        first[name] = time.perf_counter() - start
        found[name] = lambda m=model: m.train_on_batch(x, y)
    return found, first


def gradients() -> Contenders:
    """The value and the gradient for five large kernels, of one penalty each."""
    rng = np.random.default_rng(0)
    kernels = [tf.Variable(rng.normal(size=(5, 5, 256, 256)).astype("float32")) for _ in range(5)]

    def contender(regularizer: Any) -> Callable[[], Any]:
        @tf.function
        def value_and_gradient() -> Tensor:
            with tf.GradientTape() as tape:
                value = tf.add_n([regularizer(kernel) for kernel in kernels])
            return value, tape.gradient(value, kernels)

        return lambda: float(value_and_gradient()[0])

    return {
        "L2": contender(keras.regularizers.L2(1e-4)),
        "KernelCount": contender(kss.KernelCount(1e-4)),
        "KernelSize": contender(kss.KernelSize(1e-4)),
    }


def milliseconds(contenders: Contenders, rounds: int) -> dict[str, Any]:
    """The times of all rounds, each of which runs every contender once, in a random order."""
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 3):
        for name in rng.permutation(list(contenders)):
            start = time.perf_counter()
            contenders[name]()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.array(each[3:]) for name, each in times.items()}


def report(title: str, times: dict[str, Any]) -> None:
    print(f"\n{title}\n{'':32}{'ms':>9}{'ratio to L2: median':>22}{'quartiles':>18}")
    for name, each in times.items():
        low, middle, high = np.percentile(each / times["L2"], (25, 50, 75))
        print(f"{name:32}{np.median(each):9.2f}{middle:22.3f}{f'{low:.3f} - {high:.3f}':>18}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", nargs="*", default=list(NETWORKS), help="networks beside L2")
    arguments = parser.parse_args()
    names = list(dict.fromkeys(["L2", *arguments.only]))
    print(
        f"Keras {keras.__version__}, TensorFlow {tf.__version__}, {platform.machine()}, "
        f"{arguments.rounds} rounds"
    )
    found, first = steps(names)
    report(f"A training step of ResNet-20, batch {BATCH}", milliseconds(found, arguments.rounds))
    print("\nSeconds to trace and run the first step")
    for name, seconds in first.items():
        print(f"{name:32}{seconds:9.1f}")
    report(
        "Penalty and gradient, five kernels 5x5x256x256",
        milliseconds(gradients(), arguments.rounds),
    )


if __name__ == "__main__":
    main()
