"""What the width of a convolution does to its time: multiply-adds are not milliseconds.

    python benchmarks/widths.py > benchmarks/results/widths.txt

Six 5x5 convolutions of equal width on 28x28 maps, batch 64, one thread; the widths run in turns in
one process, on TensorFlow and ONNX Runtime. Runtimes compute channels in blocks of 8 or 16.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime as ort
import tensorflow as tf

WIDTHS = (6, 8, 10, 11, 12, 14, 15, 16)
ROUNDS, BATCH = 15, 64

Run = Callable[[Any], Any]


def network(width: int) -> keras.Model:
    inputs = x = keras.Input((28, 28, 1))
    for _ in range(6):
        x = keras.layers.Conv2D(width, 5, padding="same", activation="relu")(x)
    return keras.Model(inputs, x)


def tensorflow(model: keras.Model) -> Run:
    compiled = tf.function(model)
    return lambda images: compiled(images).numpy()


def onnxruntime(model: keras.Model) -> Run:
    model(np.zeros((1, 28, 28, 1), "float32"))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "model.onnx"
        model.export(path, format="onnx", verbose=False)
        session = ort.InferenceSession(path, options)
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})


def main() -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    images = np.random.default_rng(0).random((BATCH, 28, 28, 1), "float32")
    print(f"Keras {keras.__version__}, TensorFlow {tf.__version__}, ONNX Runtime {ort.__version__}")
    print("milliseconds, and over those of the widest", *(f"{width:>6}" for width in WIDTHS))
    for runtime in (tensorflow, onnxruntime):
        runs = {width: runtime(network(width)) for width in WIDTHS}
        times: dict[int, list[float]] = {width: [] for width in WIDTHS}
        for _ in range(ROUNDS + 2):
            for width, run in runs.items():
                start = time.perf_counter()
                run(images)
                times[width].append(1e3 * (time.perf_counter() - start))
        medians = [float(np.median(times[width][2:])) for width in WIDTHS]
        print(f"{runtime.__name__:<42}", *(f"{value:6.1f}" for value in medians))
        print(f"{'':<42}", *(f"{value / medians[-1]:6.2f}" for value in medians))


if __name__ == "__main__":
    main()
