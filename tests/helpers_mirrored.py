"""Ten steps on one device and on two, in a process that has two. TensorFlow only."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as L
from keras import optimizers as O

import keras_structsparse as kss

Array = Any

STEPS, BATCH = 10, 16

OPTIMIZERS = {
    "momentum": lambda: O.SGD(0.05, momentum=0.9),
    "adam": lambda: O.Adam(0.01),
    "averaged": lambda: O.SGD(0.05, momentum=0.9, use_ema=True, ema_momentum=0.5),
}


def network() -> keras.Model:
    """A convolution-normalisation pair, with statistics over all replicas."""
    inputs = keras.Input((6, 6, 2))
    # Adam would blow up the rounding of a bias that the normalisation takes out again.
    x = L.Conv2D(6, 3, use_bias=False, name="conv")(inputs)
    x = L.BatchNormalization(synchronized=True, name="norm")(x)
    x = L.Conv2D(4, 3, name="last")(L.ReLU()(x))
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x)))


def data() -> tf.data.Dataset:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS * BATCH, 6, 6, 2)).astype("float32")
    y = rng.normal(size=(STEPS * BATCH, 2)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH, drop_remainder=True)


def trained(name: str, scope: Any, alpha: float = 0.1) -> keras.Model:
    keras.utils.set_random_seed(0)
    with scope:
        model = kss.attach(network(), kss.KernelSize(alpha))
        model.compile(kss.Proximal(OPTIMIZERS[name]()), "mse")
    model.fit(data(), shuffle=False, verbose=0)
    return model


def difference(left: keras.Model, right: keras.Model) -> float:
    pairs = zip(left.get_weights(), right.get_weights(), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def two_devices() -> Any:
    """A strategy over two devices, before TensorFlow has made any."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def distances() -> dict[str, Any]:
    """For every optimizer how far the two trainings end from each other."""
    strategy = two_devices()
    assert strategy.num_replicas_in_sync == 2
    one = {name: trained(name, contextlib.nullcontext()) for name in OPTIMIZERS}
    two = {name: trained(name, strategy.scope()) for name in OPTIMIZERS}
    other = trained("momentum", strategy.scope(), alpha=0.11)
    return {
        "equal": {name: difference(one[name], two[name]) for name in OPTIMIZERS},
        "dead": {name: dead(model) for name, model in two.items()},
        "other alpha": difference(one["momentum"], other),
    }


def dead(model: keras.Model) -> int:
    """How much smaller kernels have become."""
    sizes = kss.plan(model, tau=0).sizes
    return 3 * sum(map(len, sizes.values())) - sum(map(sum, sizes.values()))
